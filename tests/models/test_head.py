"""The head: order of its outputs, initial values, options."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import nn

from detector.config.model import HeadConfig
from detector.errors import ConfigError
from detector.layouts import Softmax
from detector.models.head import Head, flatten_levels

BIAS = torch.tensor([-1.0, 0.5, 2.0])


def make_head(**options: object) -> Head:
    torch.manual_seed(0)
    num_levels = options.pop("num_levels", 5)
    config = HeadConfig(**{"channels": 16, "num_convs": 2, **options})  # type: ignore[arg-type]
    return Head(8, 2, 3, BIAS, config, num_levels)  # type: ignore[arg-type]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_outputs_are_ordered_by_level_row_column_anchor(memory_format: torch.memory_format) -> None:
    # Each value tells where it was: level, anchor, output, row, column as decimal digits.
    maps = []
    for level, (height, width) in enumerate([(3, 4), (1, 2)]):
        digits = torch.zeros(1, 6, height, width)
        for channel in range(6):
            for y in range(height):
                for x in range(width):
                    anchor, output = divmod(channel, 3)
                    value = 10000 * level + 1000 * y + 100 * x + 10 * anchor + output
                    digits[0, channel, y, x] = value
        maps.append(digits.contiguous(memory_format=memory_format))
    wanted = [
        [10000 * level + 1000 * y + 100 * x + 10 * anchor + output for output in range(3)]
        for level, (height, width) in enumerate([(3, 4), (1, 2)])
        for y in range(height)
        for x in range(width)
        for anchor in range(2)
    ]
    assert flatten_levels(maps, 3)[0].tolist() == wanted


@pytest.mark.parametrize("norm", ["none", "group"])
def test_class_outputs_begin_near_the_bias_and_deltas_near_0(
    norm: Literal["none", "group"],
) -> None:
    logits, deltas = make_head(norm=norm)([torch.zeros(2, 8, 4, 4)])
    assert logits.shape == (2, 32, 3)
    assert deltas.shape == (2, 32, 4)
    assert torch.equal(logits, BIAS.expand(2, 32, 3))
    assert not deltas.any()


def test_the_bias_of_a_layout_becomes_the_prior() -> None:
    layout = Softmax(5)
    config = HeadConfig(channels=8, num_convs=1)
    head = Head(8, 9, layout.num_outputs, layout.initial_bias(0.02), config)
    logits, _ = head([torch.zeros(1, 8, 2, 2)])
    foreground = layout.foreground(logits)
    # float32 rounding of a softmax.
    torch.testing.assert_close(foreground, torch.full_like(foreground, 0.02), rtol=1e-5, atol=0)


def test_weights_begin_with_a_deviation_of_a_hundredth() -> None:
    convs = [m for m in make_head(channels=64).modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == 6
    for conv in convs:
        # More than 1,700 weights each: the estimate is good to about 2 %, 10 % is out of reach.
        assert conv.weight.std().item() == pytest.approx(0.01, rel=0.1)


def test_levels_are_treated_alike() -> None:
    generator = torch.Generator().manual_seed(0)
    fine, coarse = (torch.randn(1, 8, n, n, generator=generator) for n in (4, 2))
    head = make_head(norm="group")
    together = head([fine, coarse])
    alone = head([fine])
    for both, one in zip(together, alone, strict=True):
        assert torch.equal(both[:, : one.shape[1]], one)


def test_batch_norm_has_statistics_of_its_own_for_each_level_and_shared_convolutions() -> None:
    head = make_head(norm="batch", num_levels=2)
    fine, coarse = 5 + torch.randn(2, 8, 6, 6), 100 * torch.randn(2, 8, 3, 3) - 50
    for tower in (head.class_tower, head.box_tower):
        x = tower[0](fine)
        other = tower[0](coarse)
        tower(fine, 0)
        tower(coarse, 1)
        norms = tower[1]
        assert isinstance(norms, nn.ModuleList)
        for norm, seen in zip(norms, (x, other), strict=True):
            # One step of the running mean from 0 with momentum 0.1, in float32.
            torch.testing.assert_close(norm.running_mean, 0.1 * seen.mean((0, 2, 3)))
    assert sum(isinstance(m, nn.Conv2d) for m in head.modules()) == 6
    logits, deltas = head([fine, coarse])
    assert (logits.shape, deltas.shape) == ((2, 90, 3), (2, 90, 4))


def test_without_convolutions_the_outputs_read_the_pyramid() -> None:
    head = make_head(num_convs=0)
    assert head.class_outputs.in_channels == 8
    assert head([torch.zeros(1, 8, 2, 2)])[0].shape == (1, 8, 3)


def test_the_two_towers_share_nothing() -> None:
    head = make_head()
    head([torch.randn(1, 8, 4, 4)])[0].sum().backward()
    assert all(p.grad is None for p in head.box_tower.parameters())
    assert all(p.grad is not None for p in head.class_tower.parameters())


@pytest.mark.parametrize(("key", "value"), [("channels", 0), ("num_convs", -1)])
def test_values_without_a_meaning_name_their_key(key: str, value: int) -> None:
    with pytest.raises(ConfigError, match=rf"model\.head\.{key}: {value}"):
        make_head(**{key: value})
