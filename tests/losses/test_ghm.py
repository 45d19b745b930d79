"""Gradient harmonising: weights by hand, a loop over entries, and what is kept between steps."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from detector.config.registry import LOSSES
from detector.config.schema import Plug
from detector.errors import ConfigError
from detector.losses.cross_entropy import CrossEntropyLoss
from detector.losses.ghm import GHMLoss
from detector.structures import BACKGROUND, IGNORE, Matches, Predictions
from tests.by_hand import gradient, match, predict, random_logits

LABELS = [[0, BACKGROUND, IGNORE, 2], [BACKGROUND, 1, 1, BACKGROUND]]


def probabilities(*p: float) -> Tensor:
    """(1, A, 1) logits of these probabilities of the only class."""
    return torch.tensor(p, dtype=torch.float64).logit()[None, :, None]


def background(predictions: Predictions) -> Matches:
    return match(predictions, [[BACKGROUND] * predictions.logits.shape[1]])


def learn(loss: GHMLoss, *batches: tuple[Predictions, Matches]) -> None:
    """One accepted step of these micro-batches."""
    counts = [loss.statistics(*batch)["counts"] for batch in batches]
    loss.update({"counts": torch.stack(counts).sum(0)})


def test_two_bins_have_the_same_say_whatever_they_hold() -> None:
    # Three entries of small gradient and one of large: weights 1 / (3/4 x 2) and 1 / (1/4 x 2).
    predictions = predict(probabilities(0.1, 0.2, 0.3, 0.9))
    loss = GHMLoss(1, bins=2)(predictions, background(predictions))["class"][0, :, 0]
    weights = [2 / 3, 2 / 3, 2 / 3, 2.0]
    expected = [
        -w * math.log(1 - p) / 4 for w, p in zip(weights, (0.1, 0.2, 0.3, 0.9), strict=True)
    ]
    assert loss.tolist() == pytest.approx(expected, abs=1e-9)


def test_the_past_is_blended_in_by_the_momentum_with_the_start_corrected() -> None:
    loss = GHMLoss(1, bins=2, momentum=0.75)
    past = predict(probabilities(0.1, 0.9))  # shares 1/2 and 1/2
    learn(loss, (past, background(past)))
    predictions = predict(probabilities(0.1, 0.2, 0.3, 0.9))  # shares 3/4 and 1/4
    values = loss(predictions, background(predictions))["class"][0, :, 0]
    # (0.25 x own + 0.75 x 0.25 x past) / (1 - 0.75^2)
    low = (0.25 * 0.75 + 0.1875 * 0.5) / 0.4375
    high = (0.25 * 0.25 + 0.1875 * 0.5) / 0.4375
    assert low + high == pytest.approx(1)
    expected = [-math.log(1 - p) / (2 * low) / 4 for p in (0.1, 0.2, 0.3)]
    expected.append(-math.log(1 - 0.9) / (2 * high) / 4)
    assert values.tolist() == pytest.approx(expected, abs=1e-9)


def test_values_and_gradients_equal_a_loop_over_the_entries_after_three_steps() -> None:
    loss, m = GHMLoss(3, bins=7, momentum=0.6), 0.6
    history = []
    for step in range(3):
        past = predict(random_logits(2, 4, 3, seed=step + 1))
        matches = match(past, LABELS)
        learn(loss, (past, matches))
        history.append(loop_shares(past, [0, 1], 7))
    predictions = predict(random_logits(2, 4, 3))
    values = loss(predictions, match(predictions, LABELS))["class"]
    slopes = gradient(values.sum(), predictions.logits)
    for i in range(2):
        own = loop_shares(predictions, [i], 7)
        blend = [
            ((1 - m) * own[b] + sum((1 - m) * m ** (3 - t) * history[t][b] for t in range(3)))
            / (1 - m**4)
            for b in range(7)
        ]
        filled = sum(share > 0 for share in own)
        entries = loop_entries(predictions, i)
        for (a, k), (p, y) in entries.items():
            weight = 1 / (blend[min(int(abs(p - y) * 7), 6)] * filled)
            entropy = -math.log(p if y else 1 - p)
            assert values[i, a, k].item() == pytest.approx(
                weight * entropy / len(entries), abs=1e-9
            )
            assert slopes[i, a, k].item() == pytest.approx(
                weight * (p - y) / len(entries), abs=1e-9
            )


def loop_entries(predictions: Predictions, image: int) -> dict[tuple[int, int], tuple[float, int]]:
    """(anchor, class) -> (p, y) of the entries that count, labelled by LABELS."""
    return {
        (a, k): (1 / (1 + math.exp(-predictions.logits[image, a, k].item())), int(label == k))
        for a, label in enumerate(LABELS[image])
        for k in range(3)
        if label != IGNORE
    }


def loop_shares(predictions: Predictions, images: list[int], bins: int) -> list[float]:
    entries = [e for i in images for e in loop_entries(predictions, i).values()]
    counts = [0] * bins
    for p, y in entries:
        counts[min(int(abs(p - y) * bins), bins - 1)] += 1
    return [count / len(entries) for count in counts]


def test_without_the_correction_of_the_start_the_first_weights_would_be_four_times_as_large() -> (
    None
):
    # The published code keeps acc = m acc + (1 - m) n from acc = 0 and weighs by N / (acc B): at
    # momentum 0.75 its first step has 4 times the gradient of the following ones.
    predictions = predict(probabilities(0.1, 0.2, 0.3, 0.9))
    matches = background(predictions)
    loss = GHMLoss(1, bins=2, momentum=0.75)
    first = loss(predictions, matches)["class"]
    published = sum(
        -math.log(1 - p) * 4 / (0.25 * n * 2) / 4
        for p, n in ((0.1, 3), (0.2, 3), (0.3, 3), (0.9, 1))
    )
    assert published / first.sum().item() == pytest.approx(4, rel=1e-9)
    # The same data again and again: the weights stay what they are.
    for _ in range(3):
        learn(loss, (predictions, matches))
        torch.testing.assert_close(loss(predictions, matches)["class"], first, rtol=1e-12, atol=0)


def test_momentum_0_forgets_the_past() -> None:
    past, now = predict(random_logits(1, 4, 3, seed=1)), predict(random_logits(1, 4, 3))
    matches = match(now, LABELS[:1])
    loss = GHMLoss(3, momentum=0.0)
    before = loss(now, matches)["class"]
    learn(loss, (past, match(past, LABELS[:1])))
    assert torch.equal(loss(now, matches)["class"], before)


def test_one_bin_is_the_mean_cross_entropy_of_the_image() -> None:
    predictions = predict(random_logits(2, 4, 3))
    matches = match(predictions, LABELS)
    loss = GHMLoss(3, bins=1)
    learn(loss, (predictions, matches))
    plain = CrossEntropyLoss(3)(predictions, matches)["class"]
    entries = torch.tensor([9.0, 12.0], dtype=torch.float64)[:, None, None]
    # Rounding only.
    torch.testing.assert_close(
        loss(predictions, matches)["class"], plain / entries, rtol=1e-12, atol=0
    )


@given(seed=st.integers(0, 1000), bins=st.integers(1, 40), scale=st.floats(0, 8))
def test_the_weights_of_an_images_entries_average_to_one_at_first(
    seed: int, bins: int, scale: float
) -> None:
    predictions = predict(random_logits(2, 4, 3, seed=seed, scale=scale))
    matches = match(predictions, LABELS)
    weighted = GHMLoss(3, bins=bins)(predictions, matches)["class"]
    plain = CrossEntropyLoss(3)(predictions, matches)["class"]
    factors = torch.where(plain > 0, weighted / plain, 0).flatten(1).sum(1)
    assert factors.tolist() == pytest.approx([1.0, 1.0], rel=1e-9)


def test_a_bin_that_fills_up_all_at_once_gets_no_boundless_weight() -> None:
    # All entries were in the lowest bin, and now they are in another: by the past alone each would
    # weigh infinitely much. Their own part bounds the loss to 1 / (1 - m) = 4 times the plain mean.
    past, now = predict(probabilities(*[0.01] * 50)), predict(probabilities(*[0.3] * 50))
    loss = GHMLoss(1, momentum=0.75)
    for _ in range(40):
        learn(loss, (past, background(past)))
    total = loss(now, background(now))["class"].sum().item()
    assert total == pytest.approx(-4 * math.log(0.7), rel=1e-3)  # 0.75^40 is 1e-5


def test_splitting_a_step_changes_neither_the_loss_nor_what_is_learnt() -> None:
    whole, parts = GHMLoss(3), GHMLoss(3)
    predictions = predict(random_logits(2, 4, 3))
    halves = []
    for i in range(2):
        half = predict(predictions.logits[i : i + 1])
        halves.append((half, match(half, LABELS[i : i + 1])))
    for _ in range(3):
        together = whole(predictions, match(predictions, LABELS))["class"]
        apart = torch.cat([parts(*half)["class"] for half in halves])
        assert torch.equal(together, apart)
        learn(whole, (predictions, match(predictions, LABELS)))
        learn(parts, *halves)
        assert torch.equal(whole.shares, parts.shares)


def test_a_step_in_which_nothing_counts_teaches_nothing() -> None:
    loss = GHMLoss(3)
    predictions = predict(random_logits(1, 2, 3))
    learn(loss, (predictions, match(predictions, [[0, BACKGROUND]])))
    before = {key: value.clone() for key, value in loss.state_dict().items()}
    learn(loss, (predictions, match(predictions, [[IGNORE, IGNORE]])))
    assert all(torch.equal(loss.state_dict()[key], before[key]) for key in before)
    assert not loss(predictions, match(predictions, [[IGNORE, IGNORE]]))["class"].any()


def test_a_saved_state_goes_on_to_the_bit() -> None:
    loss, resumed = GHMLoss(3), GHMLoss(3)
    predictions = predict(random_logits(2, 4, 3))
    matches = match(predictions, LABELS)
    learn(loss, (predictions, matches))
    resumed.load_state_dict(loss.state_dict())
    assert torch.equal(loss(predictions, matches)["class"], resumed(predictions, matches)["class"])
    assert loss.shares.sum().item() == pytest.approx(0.25)  # of one step at momentum 0.75


def test_the_order_of_anchors_does_not_matter() -> None:
    predictions = predict(random_logits(2, 4, 3))
    order = [2, 0, 3, 1]
    moved = predict(predictions.logits[:, order])
    loss = GHMLoss(3)
    learn(loss, (predictions, match(predictions, LABELS)))
    values = loss(predictions, match(predictions, LABELS))["class"]
    shuffled = loss(moved, match(moved, [[row[i] for i in order] for row in LABELS]))["class"]
    assert torch.equal(shuffled, values[:, order])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bins": 0}, "loss.bins: 0 given, at least 1 is needed"),
        ({"momentum": 1.0}, "loss.momentum: 1.0 given, 0 to below 1 is allowed"),
    ],
)
def test_options_out_of_range_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        LOSSES.build(Plug("ghm", options), 3)
    assert str(error.value) == message
