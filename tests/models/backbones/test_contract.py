"""What every registered backbone must hold; a new one is tested here without an edit."""

from __future__ import annotations

import pytest
import torch

from detector.config.registry import BACKBONES
from detector.config.schema import Plug
from detector.models.backbones.base import Backbone


@pytest.fixture(params=BACKBONES.names)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    torch.manual_seed(0)
    return BACKBONES.build(Plug(request.param, {}))


def test_three_maps_of_the_declared_channels_at_strides_8_16_32(backbone: Backbone) -> None:
    maps = backbone(torch.zeros(1, 3, 64, 96))
    sizes = [tuple(x.shape[1:]) for x in maps]
    assert sizes == [
        (c, 64 // s, 96 // s) for c, s in zip(backbone.out_channels, (8, 16, 32), strict=True)
    ]


def test_a_map_of_stride_4_is_there_where_its_channels_are_declared(backbone: Backbone) -> None:
    images = torch.randn(1, 3, 64, 96)
    if backbone.c2_channels is None:
        with pytest.raises(NotImplementedError):
            backbone.from_c2(images)
        return
    with torch.no_grad():
        c2, *rest = backbone.eval().from_c2(images)
        assert c2.shape == (1, backbone.c2_channels, 16, 24)
        assert all(torch.equal(x, y) for x, y in zip(rest, backbone(images), strict=True))


def test_every_tensor_that_trains_gets_a_gradient(backbone: Backbone) -> None:
    sum(x.square().mean() for x in backbone(torch.randn(1, 3, 64, 64))).backward()  # type: ignore[union-attr]
    trained = [p for p in backbone.parameters() if p.requires_grad]
    assert trained
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in trained)


def test_without_named_weights_there_is_nothing_to_load(backbone: Backbone) -> None:
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    backbone.load_pretrained()
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())
