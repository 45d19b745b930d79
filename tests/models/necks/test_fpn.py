"""The pyramid: shapes, sources, initial values, and its sums by hand."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from detector.config.model import FPNConfig
from detector.errors import ConfigError
from detector.models.necks.base import HalvingConv
from detector.models.necks.fpn import FPN


def features(height: int = 8, width: int = 12) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, 4 * 2**i, height >> i, width >> i, generator=generator) for i in range(3)
    ]


def as_identity(conv: nn.Module) -> None:
    """Makes a convolution of equal widths pass its input on."""
    assert isinstance(conv, nn.Conv2d)
    nn.init.dirac_(conv.weight)


@pytest.mark.parametrize("source", ["c5", "p5"])
def test_five_levels_each_half_as_large(source: Literal["c5", "p5"]) -> None:
    pyramid = FPN((4, 8, 16), FPNConfig(channels=6, p6_source=source))(features())
    sizes = [(8, 12), (4, 6), (2, 3), (1, 2), (1, 1)]
    assert [tuple(p.shape) for p in pyramid] == [(2, 6, h, w) for h, w in sizes]


def test_each_level_is_the_sum_of_its_map_and_the_coarser_one_enlarged() -> None:
    fpn = FPN((1, 1, 1), FPNConfig(channels=1))
    for conv in (*fpn.lateral, *fpn.output):
        as_identity(conv)
    c3, c4, c5 = (
        torch.zeros(1, 1, 4, 4),
        torch.tensor([[[[1.0, 2], [3, 4]]]]),
        torch.full((1, 1, 1, 1), 10.0),
    )
    p3, p4, p5, *_ = fpn([c3, c4, c5])
    assert p5.flatten().tolist() == [10]
    assert p4.flatten().tolist() == [11, 12, 13, 14]
    assert p3[0, 0].tolist() == [[11, 11, 12, 12]] * 2 + [[13, 13, 14, 14]] * 2


def test_a_finer_map_of_odd_size_is_met_exactly() -> None:
    maps = [torch.zeros(1, 1, 5, 7), torch.zeros(1, 1, 3, 4), torch.ones(1, 1, 2, 2)]
    assert FPN((1, 1, 1), FPNConfig(channels=2))(maps)[0].shape == (1, 2, 5, 7)


@pytest.mark.parametrize(("source", "changes"), [("c5", False), ("p5", True)])
def test_p6_comes_from_the_map_that_the_config_names(
    source: Literal["c5", "p5"], changes: bool
) -> None:
    torch.manual_seed(0)
    fpn = FPN((4, 8, 16), FPNConfig(channels=6, p6_source=source))
    before = fpn(features())[3]
    nn.init.zeros_(fpn.output[2].weight)  # type: ignore[arg-type]
    assert torch.equal(before, fpn(features())[3]) != changes


def test_p7_sees_only_what_is_positive_in_p6() -> None:
    fpn = FPN((4, 8, 16), FPNConfig(channels=6))
    nn.init.zeros_(fpn.p6.weight)
    nn.init.constant_(fpn.p6.bias, -3.0)  # type: ignore[arg-type]
    *_, p6, p7 = fpn(features())
    assert bool((p6 == -3).all())
    assert not p7.any()


def test_coarser_levels_by_pooling_are_every_second_cell() -> None:
    neck = FPN((4, 8, 16), FPNConfig(channels=6), extra="pooling")
    *_, p5, p6, p7 = neck(features(32, 48))
    assert torch.equal(p6, p5[..., ::2, ::2])
    assert torch.equal(p7, p6[..., ::2, ::2])
    assert not [name for name, _ in neck.named_parameters() if name.startswith(("p6", "p7"))]


def test_a_norm_stands_after_each_convolution_and_each_level_has_its_own() -> None:
    neck = FPN((4, 8, 16), FPNConfig(channels=6), norm="batch")
    norms = [m for m in neck.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == len({id(m) for m in norms}) == 6
    assert [name for name, _ in neck.named_parameters() if name.endswith("0.bias")] == []
    p3 = neck.output[0](torch.randn(2, 6, 8, 8))
    # A batch norm in training: mean 0 and variance 1 of each channel, up to its epsilon.
    assert p3.mean((0, 2, 3)).abs().max() < 1e-5
    assert (p3.var((0, 2, 3), unbiased=False) - 1).abs().max() < 1e-3


def test_weights_begin_uniform_within_their_fan_and_biases_at_0() -> None:
    torch.manual_seed(0)
    for name, value in FPN((4, 8, 16), FPNConfig(channels=32)).named_parameters():
        if name.endswith("bias"):
            assert not value.any()
        else:
            # kaiming_uniform with a = 1: the bound is sqrt(6 / (2 * fan_in)).
            bound = (3 / value[0].numel()) ** 0.5
            assert bound * 0.9 < value.abs().max().item() <= bound


def test_no_channels_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"model\.fpn\.channels: 0"):
        FPN((4, 8, 16), FPNConfig(channels=0))


@pytest.mark.parametrize("height", [1, 2, 5])
def test_the_gradient_of_a_map_of_one_column_is_right_in_bfloat16(height: int) -> None:
    generator = torch.Generator().manual_seed(0)
    conv = HalvingConv(32, 32).to(memory_format=torch.channels_last)
    x = torch.randn(4, 32, height, 1, generator=generator).to(memory_format=torch.channels_last)
    weight = conv.weight.detach().double().requires_grad_()
    expected = nn.functional.conv2d(x.double(), weight, stride=2, padding=1)
    slope = torch.randn(expected.shape, generator=generator)
    (wanted,) = torch.autograd.grad(expected, weight, slope.double())
    for _ in range(20):  # a wrong gradient is wrong in about half of the calls
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = conv(x)
        (found,) = torch.autograd.grad(out, conv.weight, slope.to(out.dtype))
        # A bfloat16 has 8 bits; sums are of at most 4 x 5 products.
        torch.testing.assert_close(found.double(), wanted, rtol=0.02, atol=0.02)
