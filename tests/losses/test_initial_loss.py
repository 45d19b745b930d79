"""The loss of an untrained head, foretold from the prior: most faults of wiring show here.

1,000 background anchors for each positive and 80 classes, as on COCO; figures are per positive.
"""

from __future__ import annotations

import math

import pytest
import torch

from detector.config.registry import LOSSES
from detector.config.schema import Plug
from detector.structures import BACKGROUND, Matches, Predictions
from tests.by_hand import gradient, match, predict

NUM_CLASSES = 80
NUM_ANCHORS = 1000


def untrained(name: str, options: dict, prior: float) -> tuple[Predictions, Matches, torch.Tensor]:
    loss = LOSSES.build(Plug(name, options), NUM_CLASSES)
    bias = loss.layout.initial_bias(prior).double()
    predictions = predict(bias.expand(1, NUM_ANCHORS, -1))
    matches = match(predictions, [[7] + [BACKGROUND] * (NUM_ANCHORS - 1)])
    return predictions, matches, loss(predictions, matches)["class"]


FOCAL_05 = {"gamma": 0.5, "alpha": 0.5}
ASYMMETRIC = {"alpha": None, "gamma": 0.0, "gamma_negative": 4.0, "clip": 0.05}


@pytest.mark.parametrize(
    ("name", "options", "prior", "yes", "no"),
    [
        ("cross_entropy", {}, 0.5, 0.69, 55451.08),
        ("cross_entropy", {}, 0.01, 4.6052, 804.02),
        ("cross_entropy", {}, 1e-5, 11.51, 0.80),
        ("balanced_cross_entropy", {}, 0.5, 0.52, 13862.8),
        ("balanced_cross_entropy", {}, 0.01, 3.4539, 201.00),
        ("balanced_cross_entropy", {}, 1e-5, 8.63, 0.20),
        ("focal", {}, 0.5, 0.04, 10397.1),
        ("focal", {}, 0.01, 1.1284, 0.0603),
        ("focal", {}, 1e-5, 2.88, 0.0),
        ("focal", FOCAL_05, 0.5, 0.25, 19604.9),
        ("focal", FOCAL_05, 0.01, 2.2910, 40.20),
        ("focal", ASYMMETRIC, 0.5, 0.69, 1961.18),  # 79,999 x 0.45^4 x ln(1 / 0.55)
        ("focal", ASYMMETRIC, 0.01, 4.6052, 0.0),
        ("focal", ASYMMETRIC, 1e-5, 11.51, 0.0),
    ],
)
def test_sigmoid_losses_begin_where_the_prior_puts_them(
    name: str, options: dict, prior: float, yes: float, no: float
) -> None:
    _, matches, loss = untrained(name, options, prior)
    truth = matches.one_hot(NUM_CLASSES)
    # The table gives two digits for small figures and two decimals for large ones.
    assert loss[truth].sum().item() == pytest.approx(yes, abs=0.006)
    assert loss[~truth].sum().item() == pytest.approx(no, rel=1e-5, abs=0.006)


def test_softmax_cross_entropy_begins_with_a_positive_of_log_8000_and_ten_of_background() -> None:
    _, matches, loss = untrained("softmax_cross_entropy", {}, 0.01)
    # ln(K / prior), and 999 ln(100 / 99) for all the background.
    assert loss[matches.foreground].sum().item() == pytest.approx(8.9872, abs=6e-5)
    assert loss[matches.background].sum().item() == pytest.approx(10.0403, abs=6e-5)


def test_softmax_cross_entropy_without_a_bias_begins_at_log_81_for_every_anchor() -> None:
    # All 81 equally probable: the prior of K / (K + 1) makes the bias 0.
    _, _, loss = untrained("softmax_cross_entropy", {}, 80 / 81)
    assert loss.sum().item() == pytest.approx(1000 * math.log(81), rel=1e-6)
    assert math.log(81) == pytest.approx(4.39, abs=0.005)


def test_ssd_begins_with_the_positive_and_three_backgrounds() -> None:
    _, matches, loss = untrained("ssd", {}, 0.01)
    # ln(K / prior) = ln 8000 and 3 ln(100 / 99).
    assert loss[matches.foreground].sum().item() == pytest.approx(math.log(8000), rel=1e-6)
    assert loss[matches.background].sum().item() == pytest.approx(3 * math.log(100 / 99), rel=1e-5)


def test_ohem_begins_with_the_mean_of_the_positive_and_127_backgrounds() -> None:
    _, _, loss = untrained("ohem", {}, 0.01)
    expected = (math.log(100) + (128 * 80 - 1) * math.log(100 / 99)) / 128
    assert loss.sum().item() == pytest.approx(expected, rel=1e-6)


def test_yolo_begins_at_the_prior_and_at_one_class_in_k() -> None:
    loss = LOSSES.build(Plug("yolo", {}), NUM_CLASSES)
    bias = loss.layout.initial_bias(0.01).double()
    predictions = predict(bias.expand(1, NUM_ANCHORS, -1))
    matches = match(predictions, [[7] + [BACKGROUND] * (NUM_ANCHORS - 1)])
    terms = {key: value.sum().item() for key, value in loss(predictions, matches).items()}
    p = 1 / NUM_CLASSES  # at the initial bias log(1 / (K - 1))
    assert terms["object"] == pytest.approx(0.99**2, rel=1e-6)  # the anchor is the object: IoU 1
    assert terms["no_object"] == pytest.approx(999 * 0.5 * 0.01**2, rel=1e-6)
    assert terms["class"] == pytest.approx((1 - p) ** 2 + 79 * p**2, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "share"),
    [
        ("cross_entropy", {}, 0.9988),
        ("balanced_cross_entropy", {}, 0.9963),
        ("focal", FOCAL_05, 0.9917),
        ("focal", {}, 0.4036),
        ("focal", ASYMMETRIC, 0.0),
    ],
)
def test_background_has_the_foretold_share_of_the_first_gradient(
    name: str, options: dict, share: float
) -> None:
    predictions, matches, loss = untrained(name, options, 0.01)
    slopes = gradient(loss.sum(), predictions.logits).abs()
    no = slopes[~matches.one_hot(NUM_CLASSES)].sum().item()
    assert no / slopes.sum().item() == pytest.approx(share, abs=6e-5)
