"""OHEM: which anchors it chooses, worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from detector.config.registry import LOSSES
from detector.config.schema import Plug
from detector.errors import ConfigError
from detector.losses.mining import without_overlaps
from detector.losses.ohem import OHEMLoss
from detector.structures import BACKGROUND, IGNORE
from tests.by_hand import gradient, match, predict, random_logits


def probabilities(*p: float) -> Tensor:
    """(1, A, 1) logits of these probabilities of the only class."""
    return torch.tensor(p, dtype=torch.float64).logit()[None, :, None]


def side_by_side(*left: float) -> list[tuple[float, ...]]:
    """Anchors of 10 x 10 px at these left edges."""
    return [(x, 0.0, x + 10, 10.0) for x in left]


def test_the_mean_is_over_the_hardest_of_positives_and_negatives_alike() -> None:
    # Losses ln of: 1/.5 = 2, 1/(1-.75) = 4, 1/(1-.9) = 10, 1/.95, 1/(1-.01); the neutral is out.
    predictions = predict(probabilities(0.5, 0.75, 0.9, 0.95, 0.01, 0.999))
    labels = [0, BACKGROUND, BACKGROUND, 0, BACKGROUND, IGNORE]
    loss = OHEMLoss(1, num_hard=3)(predictions, match(predictions, [labels]))["class"][0]
    expected = [math.log(2) / 3, math.log(4) / 3, math.log(10) / 3, 0.0, 0.0, 0.0]
    assert loss.tolist() == pytest.approx(expected, abs=1e-9)


def test_the_gradient_is_that_of_the_mean_on_chosen_anchors_and_0_elsewhere() -> None:
    predictions = predict(probabilities(0.5, 0.75, 0.9, 0.95))
    matches = match(predictions, [[0, BACKGROUND, BACKGROUND, 0]])
    total = OHEMLoss(1, num_hard=2)(predictions, matches)["class"].sum()
    slopes = gradient(total, predictions.logits)[0, :, 0]
    assert slopes.tolist() == pytest.approx([0.0, 0.75 / 2, 0.9 / 2, 0.0], abs=1e-9)


def test_an_anchor_is_ranked_and_charged_by_the_sum_over_its_classes() -> None:
    # Twice ln 2 beats once ln 3 (plus next to nothing).
    logits = torch.tensor([[[math.log(2), -40.0], [0.0, 0.0]]], dtype=torch.float64)
    predictions = predict(logits)
    matches = match(predictions, [[BACKGROUND, BACKGROUND]])
    loss = OHEMLoss(2, num_hard=1)(predictions, matches)["class"][0]
    assert loss.tolist() == pytest.approx([0.0, 2 * math.log(2)], abs=1e-9)


def test_fewer_anchors_than_asked_for_are_averaged_over_their_own_number() -> None:
    predictions = predict(probabilities(0.5, 0.5, 0.9))
    matches = match(predictions, [[0, BACKGROUND, IGNORE]])
    loss = OHEMLoss(1, num_hard=128)(predictions, matches)["class"]
    assert loss.sum().item() == pytest.approx(math.log(2), abs=1e-9)


def test_images_choose_by_themselves() -> None:
    # Every anchor of the second image is easier than any of the first.
    logits = torch.cat([probabilities(0.9, 0.8, 0.7), probabilities(0.3, 0.2, 0.1)])
    predictions = predict(logits)
    matches = match(predictions, [[BACKGROUND] * 3, [BACKGROUND] * 3])
    loss = OHEMLoss(1, num_hard=1)(predictions, matches)["class"]
    expected = [[math.log(10), 0.0, 0.0], [math.log(1 / 0.7), 0.0, 0.0]]
    for row, wanted in zip(loss.tolist(), expected, strict=True):
        assert row == pytest.approx(wanted, abs=1e-9)


def test_suppression_goes_by_falling_loss_not_by_place() -> None:
    # Neighbours shifted by 2 px have IoU 80 / 120 = 2/3, by 4 px 60 / 140 = 3/7. The middle is the
    # hardest and takes out both sides; were the first served first, the last would stay too.
    predictions = predict(probabilities(0.6, 0.9, 0.8, 0.55), anchors=side_by_side(0, 2, 4, 50))
    matches = match(predictions, [[BACKGROUND] * 4])
    loss = OHEMLoss(1, num_hard=3, nms_iou=0.5)(predictions, matches)["class"][0]
    expected = [0.0, math.log(10) / 2, 0.0, math.log(1 / 0.45) / 2]
    assert loss.tolist() == pytest.approx(expected, abs=1e-9)
    loss = OHEMLoss(1, num_hard=3, nms_iou=0.7)(predictions, matches)["class"][0]
    assert [bool(x) for x in loss] == [True, True, True, False]


def test_a_suppressed_anchor_suppresses_nothing() -> None:
    # In falling loss: 4, 2, 0. The second falls to the first; the third overlaps only the second.
    boxes = torch.tensor(side_by_side(0, 3, 6))[None]
    everyone = torch.ones(1, 3, dtype=torch.bool)
    kept = without_overlaps(torch.tensor([[1.0, 2.0, 3.0]]), boxes, everyone, 0.5)
    assert kept.tolist() == [[True, False, True]]


def test_predicted_boxes_are_suppressed_not_anchors() -> None:
    deltas = torch.zeros(1, 2, 4, dtype=torch.float64)
    deltas[0, 1, 0] = -5.0  # the second anchor's box lies on the first
    anchors = side_by_side(0, 50)
    logits = probabilities(0.9, 0.8)
    matches = match(predict(logits, anchors=anchors), [[BACKGROUND, BACKGROUND]])
    loss = OHEMLoss(1, nms_iou=0.5)
    apart = loss(predict(logits, anchors=anchors), matches)["class"][0]
    together = loss(predict(logits, anchors=anchors, deltas=deltas), matches)["class"][0]
    assert [bool(x) for x in apart] == [True, True]
    assert [bool(x) for x in together] == [True, False]


def test_neutral_anchors_suppress_nothing() -> None:
    predictions = predict(probabilities(0.99, 0.8))  # on the same place
    matches = match(predictions, [[IGNORE, BACKGROUND]])
    loss = OHEMLoss(1, nms_iou=0.5)(predictions, matches)["class"][0]
    assert loss.tolist() == pytest.approx([0.0, math.log(5)], abs=1e-9)


def test_one_to_three_fills_a_quarter_with_the_hardest_positives() -> None:
    # 8 anchors of which 2 positives: of three positives the easiest goes; then 6 negatives.
    p = (0.1, 0.9, 0.2, *(0.1 * k for k in range(1, 9)))
    predictions = predict(probabilities(*p))
    matches = match(predictions, [[0, 0, 0] + [BACKGROUND] * 8])
    loss = OHEMLoss(1, num_hard=8, negatives_per_positive=3.0)(predictions, matches)["class"][0]
    negatives = [-math.log(1 - 0.1 * k) / 8 if k > 2 else 0.0 for k in range(1, 9)]
    expected = [-math.log(0.1) / 8, 0.0, -math.log(0.2) / 8, *negatives]
    assert loss.tolist() == pytest.approx(expected, abs=1e-9)


def test_one_to_three_takes_its_positives_from_what_suppression_leaves() -> None:
    # The positive in second place lies under the first; the one in third is far away.
    anchors = side_by_side(0, 2, 50, 100)
    predictions = predict(probabilities(0.1, 0.2, 0.3, 0.9), anchors=anchors)
    matches = match(predictions, [[0, 0, 0, BACKGROUND]])
    loss = OHEMLoss(1, negatives_per_positive=3.0, nms_iou=0.5)(predictions, matches)["class"]
    assert [bool(x) for x in loss[0]] == [True, False, True, True]


def test_one_to_three_takes_three_negatives_for_a_lone_positive_and_none_for_none() -> None:
    predictions = predict(random_logits(2, 20, 1))
    matches = match(predictions, [[0] + [BACKGROUND] * 19, [BACKGROUND] * 20])
    loss = OHEMLoss(1, negatives_per_positive=3.0)(predictions, matches)["class"]
    slopes = gradient(loss.sum(), predictions.logits)
    assert bool(loss[0, 0] > 0)
    assert [int((row > 0).sum()) for row in loss] == [4, 0]
    assert not slopes[1].any()


def test_plain_mining_teaches_an_image_without_objects_its_background() -> None:
    predictions = predict(random_logits(1, 20, 1))
    loss = OHEMLoss(1, num_hard=5)(predictions, match(predictions, [[BACKGROUND] * 20]))["class"]
    assert int((loss > 0).sum()) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_hard": 0}, "loss.num_hard: 0 given, at least 1 is needed"),
        (
            {"num_hard": 4, "negatives_per_positive": 4.0},
            "loss.negatives_per_positive: 4.0 given, 0 to num_hard - 1 = 3 or null is allowed",
        ),
        ({"nms_iou": 0.0}, "loss.nms_iou: 0.0 given, above 0 and at most 1 or null is allowed"),
    ],
)
def test_options_out_of_range_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        LOSSES.build(Plug("ohem", options), 3)
    assert str(error.value) == message
