"""torchvision's MobileNets: where their maps are taken, frozen stages, weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from detector.config.registry import BACKBONES
from detector.config.schema import Plug
from detector.errors import ConfigError
from detector.models.backbones.mobilenet import MobileNet
from detector.models.norm import FrozenBatchNorm, GroupNorm

CUTS = {"mobilenet_v3_small": (4, 9, 13), "mobilenet_v3_large": (7, 13, 17)}
"""Layers of torchvision's `features` before each halving, as its tables (1 and 2 of the paper)."""

CHANNELS = {"mobilenet_v3_small": (24, 48, 576), "mobilenet_v3_large": (40, 112, 960)}


def build(**options: Any) -> MobileNet:
    return BACKBONES.build(Plug("mobilenet", {"arch": "mobilenet_v3_small", **options}))


def reference(arch: str) -> Any:
    """torchvision's network in evaluation, with the statistics of a little data."""
    torch.manual_seed(0)
    net = torchvision.models.get_model(arch, weights=None)
    with torch.no_grad():
        net.train()(torch.randn(4, 3, 64, 64))
    return net.eval()


def norms(model: nn.Module) -> set[type[nn.Module]]:
    kinds = (nn.BatchNorm2d, FrozenBatchNorm, nn.GroupNorm)
    return {type(m) for m in model.modules() if isinstance(m, kinds)}


@pytest.mark.parametrize("arch", CUTS)
def test_a_local_file_gives_the_features_of_torchvision(arch: str, tmp_path: Path) -> None:
    net = reference(arch)
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    backbone = build(arch=arch, weights=str(tmp_path / "weights.pth"))
    backbone.load_pretrained()
    assert norms(backbone) == {FrozenBatchNorm}
    assert backbone.out_channels == CHANNELS[arch]
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        maps = backbone(images)
        for cut, ours in zip(CUTS[arch], maps, strict=True):
            # Frozen norms multiply in another order: float32 rounding over up to 60 layers.
            torch.testing.assert_close(ours, net.features[:cut](images), rtol=1e-3, atol=1e-4)


def test_without_weights_norms_are_of_groups() -> None:
    assert norms(build()) == {GroupNorm}


@pytest.mark.parametrize(("frozen", "first"), [(0, 0), (1, 1), (2, 2), (3, 4), (4, 9)])
def test_frozen_stages_end_where_a_map_is_halved(frozen: int, first: int) -> None:
    backbone = build(frozen_stages=frozen)
    sum(x.mean() for x in backbone(torch.randn(1, 3, 64, 64))).backward()  # type: ignore[union-attr]
    trained = [name for name, p in backbone.named_parameters() if p.grad is not None]
    assert trained[0].startswith(f"features.{first}.")
    assert len(backbone.stages) == 5


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    torch.save(reference("mobilenet_v3_large").state_dict(), tmp_path / "large.pth")
    with pytest.raises(ConfigError, match=r"for arch=mobilenet_v3_small: tensors do not fit"):
        build(weights=str(tmp_path / "large.pth")).load_pretrained()
