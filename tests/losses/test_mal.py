"""Matchability-aware loss: worked by hand, closed forms in plain Python, and what it is for."""

from __future__ import annotations

import math

import pytest
import torch

from detector.config.registry import LOSSES
from detector.config.schema import Plug
from detector.errors import ConfigError
from detector.losses.mal import MatchabilityAwareLoss, sigmoid_mal
from detector.losses.varifocal import VarifocalLoss
from detector.structures import BACKGROUND, IGNORE
from tests.by_hand import gradient, match, predict, random_logits

LN3 = math.log(3)
"""sigmoid(ln 3) = 3/4."""


def loop_value(x: float, q: float | None, gamma: float) -> float:
    """-q^g log p - (1 - q^g) log(1 - p) of a positive; -p^g log(1 - p) where q is None."""
    p = 1 / (1 + math.exp(-x))
    if q is None:
        return -(p**gamma) * math.log(1 - p)
    return -(q**gamma) * math.log(p) - (1 - q**gamma) * math.log(1 - p)


def loop_slope(x: float, q: float | None, gamma: float, detached: bool) -> float:
    """p - q^g; p^g (p - g (1 - p) log(1 - p)), or p^g p if detached."""
    p = 1 / (1 + math.exp(-x))
    if q is not None:
        return p - q**gamma
    own = 0.0 if detached else -gamma * (1 - p) * math.log(1 - p)
    return p**gamma * (p + own)


@pytest.mark.parametrize("detached", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.5, 2.0])
@pytest.mark.parametrize("quality", [None, 0.0, 0.1, 0.5, 1.0])
def test_values_and_gradients_equal_the_closed_forms(
    quality: float | None, gamma: float, detached: bool
) -> None:
    logits = random_logits(50).requires_grad_()
    loss = sigmoid_mal(
        logits,
        torch.full_like(logits, quality or 0.0),
        torch.full(logits.shape, quality is not None),
        gamma=gamma,
        detach_modulator=detached,
    )
    slopes = gradient(loss.sum(), logits)
    for x, value, slope in zip(logits.tolist(), loss.tolist(), slopes.tolist(), strict=True):
        assert value == pytest.approx(loop_value(x, quality, gamma), abs=1e-9)
        assert slope == pytest.approx(loop_slope(x, quality, gamma, detached), abs=1e-9)


def test_the_target_of_a_positive_is_the_power_of_its_iou() -> None:
    # Half the object is covered, so q = 1/2; scores 3/4 at the class and 1/4 at the other.
    predictions = predict(torch.tensor([[[LN3, -LN3]]], dtype=torch.float64))
    matches = match(predictions, [[0]], boxes={(0, 0): (0.0, 0.0, 64.0, 32.0)})
    loss = MatchabilityAwareLoss(2, gamma=2.0)(predictions, matches)["class"][0, 0]
    positive = -0.25 * math.log(3 / 4) - 0.75 * math.log(1 / 4)
    background = -((1 / 4) ** 2) * math.log(3 / 4)
    assert loss.tolist() == pytest.approx([positive, background], rel=1e-9)


def test_a_poor_box_with_a_high_score_is_dear_where_varifocal_spares_it() -> None:
    # IoU 1/8, score 0.95: the weight of varifocal is 1/8; the paper's figure 4.
    x = math.log(0.95 / 0.05)
    predictions = predict(torch.tensor([[[x]]], dtype=torch.float64))
    matches = match(predictions, [[0]], boxes={(0, 0): (0.0, 0.0, 256.0, 32.0)})
    ours = MatchabilityAwareLoss(1)(predictions, matches)["class"].sum()
    theirs = VarifocalLoss(1)(predictions, matches)["class"].sum()
    slopes = [gradient(total, predictions.logits).item() for total in (ours, theirs)]
    assert slopes[0] == pytest.approx(0.95 - 0.125**1.5)
    assert slopes[1] == pytest.approx(0.125 * (0.95 - 0.125))


def test_a_positive_whose_box_misses_its_object_is_to_say_nothing_with_full_weight() -> None:
    predictions = predict(torch.tensor([[[LN3]]], dtype=torch.float64))
    matches = match(predictions, [[0]], boxes={(0, 0): (100.0, 100.0, 120.0, 120.0)})
    loss = MatchabilityAwareLoss(1)(predictions, matches)["class"].item()
    assert loss == pytest.approx(math.log(4), rel=1e-9)  # varifocal: background, times 0.4


def test_labels_decide_and_the_box_is_not_pulled() -> None:
    predictions = predict(torch.tensor([[[LN3]] * 3], dtype=torch.float64))
    matches = match(predictions, [[0, BACKGROUND, IGNORE]])
    loss = MatchabilityAwareLoss(1)(predictions, matches)["class"]
    expected = [-math.log(3 / 4), (3 / 4) ** 1.5 * math.log(4), 0.0]
    assert loss[0, :, 0].tolist() == pytest.approx(expected, rel=1e-9)
    (pull,) = torch.autograd.grad(loss.sum(), predictions.deltas, allow_unused=True)  # type: ignore[arg-type]
    assert pull is None


def test_a_negative_gamma_is_refused() -> None:
    with pytest.raises(ConfigError) as error:
        LOSSES.build(Plug("mal", {"gamma": -1.0}), 3)
    assert str(error.value) == "loss.gamma: -1.0 given, at least 0 is needed"
