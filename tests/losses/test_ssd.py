"""SSD's loss: which anchors it chooses, and what it charges them."""

from __future__ import annotations

import math

import pytest
import torch

from detector.config.registry import LOSSES
from detector.config.schema import Plug
from detector.errors import ConfigError
from detector.losses.mining import hardest
from detector.losses.ssd import SSDLoss
from detector.structures import BACKGROUND, IGNORE
from tests.by_hand import gradient, match, predict, random_logits


def loop_loss(logits: list[float], label: int) -> float:
    """-log of the softmax probability of a class, or of background in first place."""
    return math.log(sum(math.exp(x) for x in logits)) - logits[label + 1]


def test_values_equal_a_loop_that_sorts_the_negatives_of_each_image() -> None:
    generator = torch.Generator().manual_seed(4)
    draw = torch.rand(3, 40, generator=generator)
    labels = torch.where(draw < 0.1, 1, BACKGROUND)
    labels = torch.where(draw > 0.9, IGNORE, labels)
    labels[2] = BACKGROUND
    predictions = predict(random_logits(3, 40, 3))
    loss = SSDLoss(2)(predictions, match(predictions, labels.tolist()))["class"]
    for i in range(3):
        rows, given = predictions.logits[i].tolist(), labels[i].tolist()
        positives = [a for a in range(40) if given[a] >= 0]
        negatives = [a for a in range(40) if given[a] == BACKGROUND]
        negatives.sort(key=lambda a: -loop_loss(rows[a], BACKGROUND))
        chosen = positives + negatives[: 3 * len(positives)]
        expected = [loop_loss(rows[a], given[a]) if a in chosen else 0.0 for a in range(40)]
        assert loss[i].tolist() == pytest.approx(expected, abs=1e-9)
        assert int((loss[i] > 0).sum()) == 4 * len(positives)


def test_the_gradient_is_softmax_minus_truth_on_chosen_anchors_and_0_elsewhere() -> None:
    # One positive, so the three backgrounds least sure of background (class 0) are chosen.
    sure = torch.tensor([0.0, 5.0, 1.0, 3.0, 2.0, 4.0], dtype=torch.float64)
    predictions = predict(torch.stack([sure, torch.zeros(6), torch.zeros(6)], -1)[None])
    matches = match(predictions, [[1] + [BACKGROUND] * 5])
    slopes = gradient(SSDLoss(2)(predictions, matches)["class"].sum(), predictions.logits)
    for a, x in enumerate(sure.tolist()):
        total = math.exp(x) + 2
        p = [math.exp(x) / total, 1 / total, 1 / total]
        truth = [0, 0, 1] if a == 0 else [1, 0, 0]
        chosen = a in (0, 2, 3, 4)
        expected = [(q - t) if chosen else 0.0 for q, t in zip(p, truth, strict=True)]
        assert slopes[0, a].tolist() == pytest.approx(expected, abs=1e-9)


def test_positives_count_once_where_the_quota_exceeds_the_negatives() -> None:
    predictions = predict(random_logits(1, 5, 3))
    labels = [0, 1, 0, BACKGROUND, IGNORE]
    loss = SSDLoss(2)(predictions, match(predictions, [labels]))["class"][0]
    rows = predictions.logits[0].tolist()
    expected = [loop_loss(row, label) for row, label in zip(rows[:4], labels[:4], strict=True)]
    assert loss.tolist() == pytest.approx([*expected, 0.0], abs=1e-9)


def test_an_image_without_objects_has_no_loss_beside_one_with_many() -> None:
    predictions = predict(random_logits(2, 6, 3))
    matches = match(predictions, [[0, 1, 0, BACKGROUND, BACKGROUND, 1], [BACKGROUND] * 6])
    loss = SSDLoss(2)(predictions, matches)["class"]
    slopes = gradient(loss.sum(), predictions.logits)
    assert loss[0].all()
    assert not loss[1].any()
    assert not slopes[1].any()


def test_neutral_anchors_are_not_chosen_however_hard() -> None:
    logits = torch.zeros(1, 5, 2, dtype=torch.float64)
    logits[0, 1, 1] = 50.0
    predictions = predict(logits)
    matches = match(predictions, [[0, IGNORE, BACKGROUND, BACKGROUND, BACKGROUND]])
    loss = SSDLoss(1)(predictions, matches)["class"][0]
    assert loss.tolist() == pytest.approx([math.log(2), 0.0] + 3 * [math.log(2)], abs=1e-9)


@pytest.mark.parametrize(("ratio", "chosen"), [(0.0, 0), (0.5, 1), (1.0, 3), (1.5, 4), (99.0, 7)])
def test_the_quota_is_rounded_down(ratio: float, chosen: int) -> None:
    predictions = predict(random_logits(1, 10, 3))
    matches = match(predictions, [[0, 1, 0] + [BACKGROUND] * 7])
    loss = SSDLoss(2, negatives_per_positive=ratio)(predictions, matches)["class"]
    assert int((loss[matches.background] > 0).sum()) == chosen


def test_of_equal_losses_the_first_anchor_is_the_harder() -> None:
    losses = torch.tensor([[1.0, 2.0, 1.0, 2.0, 1.0]])
    candidates = torch.tensor([[True, True, True, True, True]])
    chosen = [hardest(losses, candidates, torch.tensor([n]))[0].tolist() for n in (1, 3)]
    assert chosen == [[False, True, False, False, False], [True, True, False, True, False]]


def test_hardest_takes_all_candidates_where_there_are_too_few() -> None:
    candidates = torch.tensor([[True, False, True], [False, False, False]])
    assert torch.equal(hardest(torch.zeros(2, 3), candidates, torch.tensor([9, 9])), candidates)


def test_a_negative_ratio_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^loss\.negatives_per_positive: -1\.0 given"):
        LOSSES.build(Plug("ssd", {"negatives_per_positive": -1.0}), 3)
