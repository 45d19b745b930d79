"""torchvision's RetinaNet with the backbone, width and size of ours, to be timed beside it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.retinanet import RetinaNet, RetinaNetHead
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from detector.config.model import ModelConfig
from detector.config.schema import Plug, require
from detector.models.backbones.resnet import STAGES
from detector.models.norm import NUM_GROUPS


class TorchvisionRetinaNet(nn.Module):
    """torchvision.models.detection.RetinaNet as its own code builds it.

    Its head has four convolutions in a tower whatever ours has. Its resizing is left out: ours is
    done by the loader, and the images have their size already.
    """

    def __init__(
        self, backbone: Plug, model: ModelConfig, *, classes: int, height: int, width: int
    ) -> None:
        super().__init__()
        require(
            backbone.name == "resnet",
            f"backbone: {backbone.name} given; torchvision's RetinaNet is timed with a resnet",
        )
        options: dict[str, Any] = backbone.options
        norm = torchvision_norm(options.get("norm", "auto"))
        net: Any = get_model(options["arch"], weights=None, norm_layer=norm)
        freeze(net, options.get("frozen_stages") or 0)
        channels = model.fpn.channels
        c5 = net.layer4[0].conv1.in_channels * 2
        body = BackboneWithFPN(
            net,
            {"layer2": "0", "layer3": "1", "layer4": "2"},
            [c5 // 4, c5 // 2, c5],
            channels,
            extra_blocks=LastLevelP6P7(c5, channels),
        )
        sides = [[2**level * 4 * 2 ** (k / 3) for k in range(3)] for level in range(3, 8)]
        anchors = AnchorGenerator(
            tuple(tuple(int(x) for x in level) for level in sides), ((0.5, 1.0, 2.0),) * 5
        )
        has_norm = model.head.norm == "group"
        head = RetinaNetHead(
            channels,
            9,
            classes,
            norm_layer=partial(nn.GroupNorm, NUM_GROUPS) if has_norm else None,
        )
        self.net = RetinaNet(
            body,
            classes,
            min_size=min(height, width),
            max_size=max(height, width),
            anchor_generator=anchors,
            head=head,
            detections_per_img=model.postprocess.detections_per_image,
            topk_candidates=model.postprocess.topk_per_level,
            _skip_resize=True,
        )

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        return self.net(images, targets)


def torchvision_norm(norm: str) -> Callable[..., nn.Module]:
    """torchvision's own layer for the option `backbone.norm`; auto is group norm, from scratch."""
    layers = {
        "batch": nn.BatchNorm2d,
        "frozen_batch": FrozenBatchNorm2d,
        "group": partial(nn.GroupNorm, NUM_GROUPS),
    }
    norm = "group" if norm == "auto" else norm
    require(norm in layers, f"backbone.norm: {norm} given, one of {', '.join(layers)} is needed")
    return layers[norm]


def freeze(net: nn.Module, stages: int) -> None:
    """The stages, counted from the image, get no gradient."""
    for names in STAGES[:stages]:
        for name in names:
            net.get_submodule(name).requires_grad_(False)
