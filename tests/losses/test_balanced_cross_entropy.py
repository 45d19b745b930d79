"""Balanced cross entropy: values and gradients against plain Python."""

from __future__ import annotations

import math

import pytest
import torch

from detector.config.registry import LOSSES
from detector.config.schema import Plug
from detector.errors import ConfigError
from detector.losses.balanced_cross_entropy import BalancedCrossEntropyLoss
from detector.losses.cross_entropy import CrossEntropyLoss
from detector.structures import BACKGROUND, IGNORE
from tests.by_hand import gradient, match, predict, random_logits

LABELS = [[0, BACKGROUND, IGNORE, 1], [BACKGROUND, 1, 1, BACKGROUND]]


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.75, 1.0])
def test_values_and_gradients_equal_a_loop_over_anchors_and_classes(alpha: float) -> None:
    predictions = predict(random_logits(2, 4, 2))
    loss = BalancedCrossEntropyLoss(2, alpha=alpha)(predictions, match(predictions, LABELS))
    slopes = gradient(loss["class"].sum(), predictions.logits)
    for i, a, k in torch.cartesian_prod(torch.arange(2), torch.arange(4), torch.arange(2)).tolist():
        p = 1 / (1 + math.exp(-predictions.logits[i, a, k].item()))
        if LABELS[i][a] == IGNORE:
            expected, slope = 0.0, 0.0
        elif LABELS[i][a] == k:
            expected, slope = -alpha * math.log(p), alpha * (p - 1)
        else:
            expected, slope = -(1 - alpha) * math.log(1 - p), (1 - alpha) * p
        assert loss["class"][i, a, k].item() == pytest.approx(expected, abs=1e-9)
        assert slopes[i, a, k].item() == pytest.approx(slope, abs=1e-9)


def test_alpha_one_half_is_half_the_cross_entropy() -> None:
    predictions = predict(random_logits(2, 4, 2))
    matches = match(predictions, LABELS)
    half = BalancedCrossEntropyLoss(2, alpha=0.5)(predictions, matches)["class"]
    # Halving is exact in binary.
    assert torch.equal(2 * half, CrossEntropyLoss(2)(predictions, matches)["class"])


def test_the_default_weighs_a_yes_three_times_a_no() -> None:
    predictions = predict(torch.zeros(1, 1, 2, dtype=torch.float64))
    loss = BalancedCrossEntropyLoss(2)(predictions, match(predictions, [[0]]))["class"][0, 0]
    assert loss.tolist() == pytest.approx([0.75 * math.log(2), 0.25 * math.log(2)], rel=1e-12)


@pytest.mark.parametrize("alpha", [-0.1, 1.5])
def test_an_alpha_outside_0_to_1_is_refused(alpha: float) -> None:
    with pytest.raises(ConfigError, match=rf"^loss\.alpha: {alpha} given, 0 to 1 is allowed$"):
        LOSSES.build(Plug("balanced_cross_entropy", {"alpha": alpha}), 2)
