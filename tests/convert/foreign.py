"""torchvision's RetinaNets with weights that bring every difference to light."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import hydra
import torch
from torch import Tensor, nn
from torchvision.models import resnet50
from torchvision.models.detection import retinanet
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.detection.retinanet import (
    LastLevelP6P7,
    RetinaNet,
    RetinaNetHead,
    _default_anchorgen,
)
from torchvision.ops import FrozenBatchNorm2d

from detector.config import from_plain
from detector.config.compose import plain_values
from detector.convert.coco import CLASSES
from detector.convert.convert import empty_model
from detector.models.detector import Detector
from tests.commands import ROOT

Version = Literal["torchvision_v1", "torchvision_v2"]

ORDER = [r * 3 + s for s in range(3) for r in range(3)]
"""Where torchvision has our anchors of a cell: it counts ratios outside, scales inside."""


def make_torchvision(version: Version, **options: Any) -> RetinaNet:
    """Random weights; logits and deltas spread so that there is something to detect.

    Frozen batch norm as for its published weights, with eps 0 in the first version, and statistics
    of which none is 0 or 1. options: of `RetinaNet`, such as the size of images.
    """
    torch.manual_seed(0)
    is_v2 = version == "torchvision_v2"
    body = resnet50(weights=None, norm_layer=FrozenBatchNorm2d)
    extra = LastLevelP6P7(2048 if is_v2 else 256, 256)
    backbone = _resnet_fpn_extractor(body, 3, returned_layers=[2, 3, 4], extra_blocks=extra)
    head = None
    if is_v2:
        generator = _default_anchorgen()
        norm = retinanet.partial(nn.GroupNorm, 32)
        head = RetinaNetHead(backbone.out_channels, 9, 91, norm_layer=norm)
        head.regression_head._loss_type = "giou"
        options |= {"anchor_generator": generator, "head": head}
    model = RetinaNet(backbone, 91, **options).eval()
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d):
            spread(module, eps=1e-5 if is_v2 else 0.0)
        elif isinstance(module, nn.GroupNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    outputs: Any = (model.head.classification_head.cls_logits, model.head.regression_head.bbox_reg)
    for layer in outputs:
        nn.init.normal_(layer.bias, std=0.3)
    return model


def spread(norm: FrozenBatchNorm2d, eps: float) -> None:
    """Statistics of which none is trivial; one variance in eight is so small that eps counts."""
    norm.eps = eps
    nn.init.uniform_(norm.weight, 0.3, 0.9)
    nn.init.uniform_(norm.bias, -0.2, 0.2)
    nn.init.uniform_(norm.running_mean, -0.2, 0.2)
    nn.init.uniform_(norm.running_var, 0.2, 1.5)
    norm.running_var[::8], norm.weight[::8] = 1e-4, 5e-3


def scale_outputs(model: RetinaNet, images: list[Tensor]) -> None:
    """Makes logits spread by 1 around -3 and deltas by 0.1, on these images."""
    with torch.no_grad():
        batch, _ = model.transform(images)
        features = list(model.backbone(batch.tensors).values())
        outputs = model.head(features)
        head: Any = model.head
        for name, layer, deviation, shift in (
            ("cls_logits", head.classification_head.cls_logits, 1.0, -3.0),
            ("bbox_regression", head.regression_head.bbox_reg, 0.1, 0.0),
        ):
            factor = deviation / outputs[name].std()
            layer.weight.mul_(factor)
            layer.bias.mul_(factor).add_(shift - factor * outputs[name].mean())


def preset(source: str, *overrides: str) -> dict[str, Any]:
    """The composed config of `model=SOURCE`, with data=coco."""
    with hydra.initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        node = hydra.compose(
            "train", [f"model={source}", "data=coco", "data.root=coco", *overrides]
        )
        return plain_values(node)


def empty(source: str, *overrides: str) -> tuple[Detector, dict[str, Any]]:
    """Our model of a preset with 80 classes, and its config."""
    plain = preset(source, *overrides)
    assert len(CLASSES) == 80
    assert from_plain(plain).backbone.name == "resnet"
    return empty_model(plain), plain


def save_state(path: Path, state: dict[str, Any]) -> str:
    torch.save(state, path)
    return str(path)
