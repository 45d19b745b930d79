"""torchvision's other classifiers: where they are cut, their norms, and weights that are real."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torchvision.models import MobileNet_V2_Weights

from detector.config.registry import BACKBONES
from detector.config.schema import Plug
from detector.errors import ConfigError
from detector.models.backbones.base import PIXEL_MEAN, PIXEL_STD
from detector.models.backbones.classifiers import Classifier
from detector.models.norm import FrozenBatchNorm, GroupNorm

SHARED = Path(__file__).parents[4] / "shared" / "data"
WEIGHTS = SHARED / "weights" / "mobilenet_v2-b0353104.pth"
PHOTOGRAPHS = SHARED / "coco128" / "train2017"

SHOWN = {
    "000000000034.jpg": "zebra",
    "000000000397.jpg": "pizza",
    "000000000471.jpg": "school bus",
    "000000000502.jpg": "American black bear",
}
"""What photographs show, in ImageNet's words."""

CUTS = {
    "mobilenet_v2": ("features.3", "features.6", "features.13", "features.18"),
    "efficientnet_b0": ("features.2", "features.3", "features.5", "features.8"),
    "convnext_tiny": ("features.1", "features.3", "features.5", "features.7"),
    "regnet_x_400mf": tuple(f"trunk_output.block{i}" for i in (1, 2, 3, 4)),
}
"""The modules of torchvision's that put out C2 to C5, by the strides of the papers' tables."""


def build(**options: Any) -> Classifier:
    return BACKBONES.build(Plug("torchvision", options))


def reference(arch: str) -> Any:
    """torchvision's network in evaluation, with the statistics of a little data."""
    torch.manual_seed(0)
    depth = {"stochastic_depth_prob": 0.0} if arch.startswith(("eff", "conv")) else {}
    net = torchvision.models.get_model(arch, weights=None, **depth)
    with torch.no_grad():
        net.train()(torch.randn(4, 3, 64, 64))
    return net.eval()


def outputs_of(net: nn.Module, names: Sequence[str], images: Tensor) -> list[Tensor]:
    """What modules of a network put out, by hooks of torch's: nothing of ours takes part."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda module, inputs, output: seen.__setitem__(name, output)

    hooks = [net.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    net(images)
    for hook in hooks:
        hook.remove()
    return [seen[name] for name in names]


@pytest.mark.parametrize("arch", CUTS)
def test_a_local_file_gives_the_maps_of_torchvision(arch: str, tmp_path: Path) -> None:
    net = reference(arch)
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    backbone = build(arch=arch, weights=str(tmp_path / "weights.pth")).eval()
    backbone.load_pretrained()
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = outputs_of(net, CUTS[arch], images)
        maps = backbone.from_c2(images)
        assert [x.shape[1] for x in maps] == [backbone.c2_channels, *backbone.out_channels]
        for ours, theirs in zip(maps, expected, strict=True):
            # Frozen norms multiply in another order: float32 rounding over up to 80 layers.
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
        for two, one in zip(backbone(images), maps[1:], strict=True):
            assert torch.equal(two, one)


@pytest.mark.parametrize(("arch", "eps"), [("efficientnet_b0", 1e-5), ("efficientnet_b5", 1e-3)])
def test_the_eps_of_an_architecture_is_kept(arch: str, eps: float) -> None:
    kept = {m.eps for m in build(arch=arch, weights="w.pth").modules() if hasattr(m, "eps")}
    assert kept == {eps}
    changed = build(arch=arch, weights="w.pth", norm_eps=0.5)
    assert {m.eps for m in changed.modules() if hasattr(m, "eps")} == {0.5}


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, GroupNorm),
        ({"weights": "w.pth"}, FrozenBatchNorm),
        ({"weights": "w.pth", "norm": "batch"}, nn.BatchNorm2d),
    ],
)
def test_norms_are_of_the_kind_that_is_asked_for(options: dict[str, Any], kind: type) -> None:
    kinds = (nn.BatchNorm2d, FrozenBatchNorm, nn.GroupNorm)
    norms = {type(m) for m in build(**options).modules() if isinstance(m, kinds)}
    assert norms == {kind}


def test_convnext_keeps_its_norms_and_says_so() -> None:
    with pytest.raises(ConfigError, match=r"^backbone\.norm: group .*keeps its layer norm"):
        build(arch="convnext_tiny", norm="group")
    with pytest.raises(ConfigError, match=r"^backbone\.norm_eps: 0\.001 .*null is allowed"):
        build(arch="convnext_tiny", norm_eps=1e-3)


def test_a_name_that_is_not_taken_names_the_nearest_and_all() -> None:
    with pytest.raises(ConfigError, match=r"^backbone\.arch: efficientnet_b9 .*efficientnet_b0"):
        build(arch="efficientnet_b9")


@pytest.mark.parametrize("arch", CUTS)
@pytest.mark.parametrize("frozen", ["none", "some", "all"])
def test_frozen_stages_get_no_gradient_and_all_others_do(arch: str, frozen: str) -> None:
    stages = build(arch=arch).stages
    count = {"none": 0, "some": 2, "all": len(stages)}[frozen]
    backbone = build(arch=arch, frozen_stages=count).train()
    if frozen != "all":
        sum(x.square().mean() for x in backbone(torch.randn(1, 3, 64, 64))).backward()  # type: ignore[union-attr]
    modules = {name for names in stages[:count] for name in names}
    for name, parameter in backbone.named_parameters():
        is_frozen = any(name.startswith(f"{module}.") for module in modules)
        assert parameter.requires_grad != is_frozen, name
        assert (parameter.grad is not None) != is_frozen, name
    assert not any(backbone.get_submodule(name).training for name in modules)


def test_two_passes_in_training_are_equal_for_depth_is_not_drawn() -> None:
    images = torch.randn(1, 3, 64, 64)
    for arch in ("efficientnet_b0", "convnext_tiny"):
        backbone = build(arch=arch).train()
        with torch.no_grad():
            first, second = backbone(images)[-1], backbone(images)[-1]
        assert torch.equal(first, second)


@pytest.fixture
def imagenet() -> dict[str, Tensor]:
    """The tensors of torchvision's file, where it is there."""
    if not WEIGHTS.is_file():
        pytest.skip(f"{WEIGHTS} is not there: torchvision's ImageNet weights of MobileNetV2")
    return torch.load(WEIGHTS, weights_only=True)


def test_the_weights_of_imagenet_load_whole(imagenet: dict[str, Tensor]) -> None:
    backbone = build(weights=str(WEIGHTS), norm="batch")
    backbone.load_pretrained()
    state = backbone.state_dict()
    rest = imagenet.keys() - state.keys()
    assert rest == {"classifier.1.weight", "classifier.1.bias"}
    assert state.keys() <= imagenet.keys()
    assert all(torch.equal(value, imagenet[key]) for key, value in state.items())


@pytest.mark.parametrize("norm", ["batch", "frozen_batch", "fixed_batch"])
def test_with_the_weights_of_imagenet_photographs_are_told_apart(
    imagenet: dict[str, Tensor], norm: str
) -> None:
    if not PHOTOGRAPHS.is_dir():
        pytest.skip(f"{PHOTOGRAPHS} is not there: photographs of COCO")
    backbone = build(weights=str(WEIGHTS), norm=norm).eval()
    backbone.load_pretrained()
    mean, std = (torch.tensor(x)[:, None, None] for x in (PIXEL_MEAN, PIXEL_STD))
    for file, shown in SHOWN.items():
        # As torchvision scores it: the shorter side to 256, then 224 x 224 of the middle.
        image = MobileNet_V2_Weights.IMAGENET1K_V1.transforms()(
            Image.open(PHOTOGRAPHS / file).convert("RGB")
        )
        pixels = image * torch.tensor([0.229, 0.224, 0.225])[:, None, None]
        pixels = (pixels + torch.tensor([0.485, 0.456, 0.406])[:, None, None]) * 255
        with torch.no_grad():
            c5 = backbone(((pixels - mean) / std)[None])[-1]
        pooled = c5.mean((2, 3))
        scores = pooled @ imagenet["classifier.1.weight"].T + imagenet["classifier.1.bias"]
        assert MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"][scores.argmax()] == shown
