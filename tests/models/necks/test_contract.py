"""What every registered neck must hold; a new one is tested here without an edit."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from detector.config.model import AnchorConfig, FPNConfig, HeadConfig, ModelConfig
from detector.config.registry import NECKS
from detector.config.schema import Plug
from detector.errors import ConfigError
from detector.layouts import Sigmoid
from detector.models.detector import Detector, build_detector
from detector.models.necks.base import Neck
from detector.structures import Batch

LEVELS = [(2, 7), (3, 7), (3, 5), (4, 6), (2, 5), (5, 7)]


@pytest.fixture(params=NECKS.names)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def build(name: str, levels: tuple[int, int] = (3, 7), **options: object) -> Neck:
    torch.manual_seed(0)
    channels = [4 * 2**level for level in range(levels[0], 6)]
    return NECKS.build(Plug(name, options), channels, FPNConfig(channels=8), levels)


def features(first: int, height: int = 96, width: int = 160, images: int = 2) -> list[Tensor]:
    """Maps of a backbone from a level to C5, for images of that size in pixels."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(images, 4 * 2**level, height >> level, width >> level, generator=generator)
        for level in range(first, 6)
    ]


def sizes(maps: Sequence[Tensor]) -> list[tuple[int, ...]]:
    return [tuple(x.shape) for x in maps]


def halved(pixels: int, level: int) -> int:
    """The cells of a level: each stage rounds up."""
    for _ in range(level):
        pixels = -(-pixels // 2)
    return pixels


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("extra", ["convolution", "pooling"])
def test_levels_have_the_sizes_of_their_strides(
    name: str, levels: tuple[int, int], extra: str
) -> None:
    pyramid = build(name, levels, extra=extra)(features(levels[0]))
    expected = [(2, 8, halved(96, i), halved(160, i)) for i in range(levels[0], levels[1] + 1)]
    assert sizes(pyramid) == expected


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("norm", ["none", "group", "batch"])
def test_a_gradient_reaches_every_weight_and_every_map(
    name: str, levels: tuple[int, int], norm: str
) -> None:
    neck = build(name, levels, norm=norm)
    maps = [x.requires_grad_() for x in features(levels[0])]
    torch.stack([p.square().mean() for p in neck(maps)]).sum().backward()
    for key, parameter in neck.named_parameters():
        assert parameter.grad is not None, key
        assert bool(parameter.grad.isfinite().all()), key
    assert all(x.grad is not None and bool(x.grad.abs().sum() > 0) for x in maps)


@pytest.mark.parametrize("norm", ["none", "group"])
def test_images_know_nothing_of_one_another(name: str, norm: str) -> None:
    neck = build(name, norm=norm).double()
    maps = [x.double() for x in features(3)]
    together, alone = neck(maps), neck([x[:1] for x in maps])
    for both, one in zip(together, alone, strict=True):
        # Float64: convolutions may sum in another order for another number of images.
        torch.testing.assert_close(both[:1], one, rtol=1e-10, atol=1e-12)


def test_bfloat16_stays_bfloat16(name: str) -> None:
    neck = build(name).bfloat16()
    pyramid = neck([x.bfloat16() for x in features(3)])
    assert {p.dtype for p in pyramid} == {torch.bfloat16}
    assert all(bool(p.isfinite().all()) for p in pyramid)


def test_no_channels_is_an_error(name: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.fpn\.channels: 0"):
        NECKS.get(name)((4, 8, 16), FPNConfig(channels=0))


def detector(name: str, levels: tuple[int, int], backbone: Plug | None = None) -> Detector:
    torch.manual_seed(0)
    model = ModelConfig(
        fpn=FPNConfig(channels=8),
        head=HeadConfig(channels=8, num_convs=1),
        anchors=AnchorConfig(levels=levels),
    )
    plug = backbone or Plug("resnet", {"arch": "resnet18"})
    return build_detector(plug, model, Sigmoid(3), 0.01, neck=Plug(name, {}))


@pytest.mark.parametrize("levels", LEVELS)
def test_a_detector_has_anchors_on_the_levels_of_its_neck(
    name: str, levels: tuple[int, int]
) -> None:
    model = detector(name, levels)
    images = torch.zeros(1, 3, 64, 96, dtype=torch.uint8)
    batch = Batch(images, torch.tensor([[64, 96]]), torch.ones(1, 2), (1,))
    predictions = model(batch)
    cells = [halved(64, i) * halved(96, i) for i in range(levels[0], levels[1] + 1)]
    assert predictions.anchors.level_sizes == tuple(9 * n for n in cells)
    assert predictions.logits.shape == (1, 9 * sum(cells), 3)
    assert torch.equal(model.anchors_for(batch).boxes, predictions.anchors.boxes)
    assert predictions.anchors.strides.unique().tolist() == [
        2**i for i in range(levels[0], levels[1] + 1)
    ]


def test_a_neck_changes_no_other_weight_at_the_start(name: str) -> None:
    """It is drawn after backbone and head, as it was when there was one neck alone."""
    own = detector(name, (3, 7)).state_dict()
    for other in NECKS.names:
        for key, value in detector(other, (3, 7)).state_dict().items():
            assert key.startswith("fpn.") or torch.equal(value, own[key]), key


def test_a_backbone_without_a_map_of_stride_4_cannot_begin_at_p2(name: str) -> None:
    pytest.importorskip("timm")
    plug = Plug("timm", {"arch": "hrnet_w18_small"})
    with pytest.raises(ConfigError, match=r"^model\.anchors\.levels: a first level of 2 given"):
        detector(name, (2, 7), plug)


@pytest.mark.parametrize("levels", [(1, 7), (6, 7), (3, 4), (3, 8)])
def test_levels_that_are_not_there_are_refused(levels: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=r"^levels: \[\d, \d\] given, a first one of 2 to 5"):
        AnchorConfig(levels=levels)
