"""Random sampling: how many of which kind, whose mean, and that the draw hangs on keys alone."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from detector.config.registry import LOSSES
from detector.config.schema import Plug
from detector.errors import ConfigError
from detector.losses.random_sampling import RandomSamplingLoss, draw, mix
from detector.structures import BACKGROUND, IGNORE, Matches, Predictions
from tests.by_hand import gradient, match, predict, random_logits

MASK = 2**64 - 1


def boxes(num: int) -> list[tuple[float, ...]]:
    """Anchors of 10 x 10 px in a row."""
    return [(10.0 * i, 0.0, 10.0 * i + 10, 10.0) for i in range(num)]


def setting(labels: list[list[int]], num_classes: int = 1) -> tuple[Predictions, Matches]:
    logits = random_logits(len(labels), len(labels[0]), num_classes)
    predictions = predict(logits, anchors=boxes(len(labels[0])))
    return predictions, match(predictions, labels)


def with_keys(matches: Matches, *keys: int) -> Matches:
    return replace(matches, targets=replace(matches.targets, keys=torch.tensor(keys)))


def loop_mix(value: int) -> int:
    """splitmix64 on unsigned numbers."""
    z = (value + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def test_the_mixing_gives_the_published_sequence_of_seed_0() -> None:
    # splitmix64 from state 0: the state grows by the constant that `mix` adds.
    states = torch.tensor([0, 0x9E3779B97F4A7C15 - 2**64])
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]
    assert [int(x) & MASK for x in mix(states)] == expected


@given(key=st.integers(0, 2**63 - 1), corner=st.integers(-500, 3000))
def test_a_draw_equals_a_loop_in_whole_numbers(key: int, corner: int) -> None:
    box = [corner, 1.5, corner + 7.25, 30.0]
    code = 0
    for value in box:
        code = loop_mix(code ^ (int(value * 1024) & MASK))
    expected = (loop_mix(loop_mix(key) ^ code) >> 11) / 2**53
    assert draw(torch.tensor([key]), torch.tensor([box])).item() == expected


def test_half_of_the_sample_are_positives_at_most_and_negatives_fill_the_rest() -> None:
    labels = [
        [0] * 6 + [BACKGROUND] * 12 + [IGNORE] * 2,  # more positives than half of 8
        [0] * 1 + [BACKGROUND] * 17 + [IGNORE] * 2,  # fewer
        [BACKGROUND] * 20,  # none
        [0] * 18 + [BACKGROUND] * 2,  # fewer negatives than wanted
    ]
    _, matches = setting(labels)
    selected = RandomSamplingLoss(1, num_sampled=8).select(matches)
    assert (selected & matches.foreground).sum(1).tolist() == [4, 1, 0, 4]
    assert (selected & matches.background).sum(1).tolist() == [4, 7, 8, 2]
    assert not (selected & ~matches.valid).any()


def test_the_loss_is_the_mean_cross_entropy_of_the_sample() -> None:
    predictions, matches = setting([[0, BACKGROUND, BACKGROUND, IGNORE]], num_classes=2)
    values = RandomSamplingLoss(2)(predictions, matches)["class"]
    slopes = gradient(values.sum(), predictions.logits)
    for a, k in torch.cartesian_prod(torch.arange(4), torch.arange(2)).tolist():
        p = 1 / (1 + math.exp(-predictions.logits[0, a, k].item()))
        truth = (a, k) == (0, 0)
        value = -math.log(p if truth else 1 - p) / 3 if a < 3 else 0.0
        slope = (p - truth) / 3 if a < 3 else 0.0
        assert values[0, a, k].item() == pytest.approx(value, abs=1e-9)
        assert slopes[0, a, k].item() == pytest.approx(slope, abs=1e-9)


def test_what_is_not_drawn_has_neither_value_nor_gradient() -> None:
    predictions, matches = setting([[0] * 5 + [BACKGROUND] * 15])
    loss = RandomSamplingLoss(1, num_sampled=4)
    values = loss(predictions, matches)["class"]
    slopes = gradient(values.sum(), predictions.logits)
    selected = loss.select(matches)[..., None]
    assert torch.equal(values > 0, selected)
    assert torch.equal(slopes != 0, selected)


def test_the_draw_of_an_image_hangs_on_its_key_and_not_on_its_place() -> None:
    row = [0] * 10 + [BACKGROUND] * 30
    _, matches = setting([row, row, row])
    loss = RandomSamplingLoss(1, num_sampled=8)
    first, second, third = loss.select(with_keys(matches, 5, 6, 5))
    assert torch.equal(first, third)
    assert not torch.equal(first, second)
    _, alone = setting([row])
    assert torch.equal(loss.select(with_keys(alone, 6))[0], second)


def test_more_padding_moves_places_in_the_list_but_no_draw() -> None:
    # The same anchors, with others in between as a wider padded image has them.
    few = torch.tensor(boxes(6))
    many = torch.tensor(boxes(12))
    keys = torch.tensor([1, 2])
    order = [7, 0, 1, 8, 2, 3, 9, 4, 5]
    places = [order.index(i) for i in range(6)]
    assert torch.equal(draw(keys, many[order])[:, places], draw(keys, few))


def test_every_anchor_is_drawn_as_often_as_another() -> None:
    keys = torch.arange(1000)
    labels = [[BACKGROUND] * 20]
    _, one = setting(labels)
    many = replace(
        one,
        labels=one.labels.expand(1000, -1),
        targets=replace(one.targets, keys=keys),
    )
    counts = RandomSamplingLoss(1, num_sampled=5).select(many).sum(0)
    # 1,000 draws at 1/4 have a deviation of 13.7; five of them.
    assert bool(((counts - 250).abs() < 69).all())
    together = RandomSamplingLoss(1, num_sampled=5).select(many).double()
    pairs = (together.T @ together - torch.diag(counts.double())).flatten()
    # Any two are drawn together with probability 5/20 x 4/19: 53 times, a deviation of 7.1.
    assert pairs[pairs > 0].min().item() > 53 - 5 * 7.1
    assert pairs.max().item() < 53 + 5 * 7.1


def test_the_global_random_state_is_neither_read_nor_moved() -> None:
    _, matches = setting([[0] * 10 + [BACKGROUND] * 30])
    loss = RandomSamplingLoss(1, num_sampled=8)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = loss.select(matches)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(loss.select(matches), first)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_draws_the_same_numbers() -> None:
    keys: Tensor = torch.tensor([0, 1, 2**63 - 1])
    anchors = 2000 * torch.rand(5000, 4, generator=torch.Generator().manual_seed(0)) - 500
    assert torch.equal(draw(keys.cuda(), anchors.cuda()).cpu(), draw(keys, anchors))


def test_a_score_has_no_posterior_in_closed_form() -> None:
    assert RandomSamplingLoss(3).link_inverse(torch.rand(5)) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_sampled": 0}, "loss.num_sampled: 0 given, at least 1 is needed"),
        ({"positive_fraction": 1.5}, "loss.positive_fraction: 1.5 given, 0 to 1 is allowed"),
    ],
)
def test_options_out_of_range_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        LOSSES.build(Plug("random_sampling", options), 3)
    assert str(error.value) == message
