"""Focal loss: the paper's numbers, closed forms in plain Python, and its extremes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import sigmoid_focal_loss

from detector.config.registry import LOSSES
from detector.config.schema import Plug
from detector.errors import ConfigError
from detector.losses.cross_entropy import CrossEntropyLoss
from detector.losses.focal import FocalLoss, sigmoid_focal
from detector.structures import BACKGROUND, IGNORE
from tests.by_hand import gradient, match, predict, random_logits

LABELS = [[0, BACKGROUND, IGNORE, 2], [BACKGROUND, 1, 1, BACKGROUND]]
GAMMAS = [0.0, 0.25, 0.5, 1.0, 2.0, 5.0]


def loop_value(x: float, truth: bool, alpha: float | None, gamma: float) -> float:
    """-alpha_t (1 - p_t)^gamma log p_t."""
    p = 1 / (1 + math.exp(-x))
    p_t = p if truth else 1 - p
    alpha_t = 1.0 if alpha is None else alpha if truth else 1 - alpha
    return -alpha_t * (1 - p_t) ** gamma * math.log(p_t)


def loop_slope(x: float, truth: bool, alpha: float | None, gamma: float) -> float:
    """alpha_t s (1 - p_t)^gamma (gamma p_t log p_t + p_t - 1), s the sign of the truth."""
    p = 1 / (1 + math.exp(-x))
    p_t, sign = (p, 1) if truth else (1 - p, -1)
    alpha_t = 1.0 if alpha is None else alpha if truth else 1 - alpha
    return alpha_t * sign * (1 - p_t) ** gamma * (gamma * p_t * math.log(p_t) + p_t - 1)


def test_at_prior_001_a_positive_costs_1_128_and_a_negative_next_to_nothing() -> None:
    # 0.25 x 0.99^2 x ln 100 and 0.75 x 0.01^2 x ln(100 / 99).
    x = -math.log(99)
    logits = torch.tensor([x, x], dtype=torch.float64)
    loss = sigmoid_focal(logits, torch.tensor([True, False]), alpha=0.25, gamma=2.0)
    assert loss.tolist() == pytest.approx([1.12838182, 7.5377519e-07], rel=1e-7)


def test_gamma_2_divides_the_loss_by_100_at_p_09_and_by_4_at_most_where_wrong() -> None:
    logits = torch.tensor([math.log(9), 0.0, -math.log(9)], dtype=torch.float64)
    yes = torch.ones(3, dtype=torch.bool)
    plain = sigmoid_focal(logits, yes, alpha=None, gamma=0.0)
    focal = sigmoid_focal(logits, yes, alpha=None, gamma=2.0)
    assert (plain / focal).tolist() == pytest.approx([100.0, 4.0, 1 / 0.81], rel=1e-9)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("alpha", [None, 0.0, 0.1, 1.0])
def test_values_and_gradients_equal_the_closed_forms(alpha: float | None, gamma: float) -> None:
    predictions = predict(random_logits(2, 4, 3))
    loss = FocalLoss(3, alpha=alpha, gamma=gamma)(predictions, match(predictions, LABELS))["class"]
    slopes = gradient(loss.sum(), predictions.logits)
    for i, a, k in torch.cartesian_prod(torch.arange(2), torch.arange(4), torch.arange(3)).tolist():
        x, truth = predictions.logits[i, a, k].item(), LABELS[i][a] == k
        counts = LABELS[i][a] != IGNORE
        value = loop_value(x, truth, alpha, gamma) if counts else 0.0
        slope = loop_slope(x, truth, alpha, gamma) if counts else 0.0
        assert loss[i, a, k].item() == pytest.approx(value, abs=1e-9)
        assert slopes[i, a, k].item() == pytest.approx(slope, abs=1e-9)


def test_gamma_0_without_alpha_is_cross_entropy() -> None:
    predictions = predict(random_logits(2, 4, 3))
    matches = match(predictions, LABELS)
    focal = FocalLoss(3, alpha=None, gamma=0.0)(predictions, matches)["class"]
    assert torch.equal(focal, CrossEntropyLoss(3)(predictions, matches)["class"])


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("alpha", [None, 0.25])
def test_values_agree_with_torchvision(alpha: float | None, gamma: float) -> None:
    logits = random_logits(4, 50, 3)
    truth = random_logits(4, 50, 3, seed=1) > 2
    for x, rtol in ((logits, 1e-6), (logits.float(), 1e-5)):
        ours = sigmoid_focal(x, truth, alpha=alpha, gamma=gamma)
        theirs = sigmoid_focal_loss(x, truth.to(x.dtype), -1 if alpha is None else alpha, gamma)
        # The two round differently in the power, which shows in float32.
        torch.testing.assert_close(ours, theirs, rtol=rtol, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("magnitude", [40.0, 200.0])
def test_extreme_logits_keep_value_and_gradient_finite(
    dtype: torch.dtype, gamma: float, magnitude: float
) -> None:
    logits = torch.tensor([[[magnitude, -magnitude], [-magnitude, magnitude]]], dtype=dtype)
    predictions = predict(logits)
    matches = match(predictions, [[0, BACKGROUND]])
    loss = FocalLoss(2, gamma=gamma)(predictions, matches)["class"]
    assert torch.isfinite(loss).all()
    assert torch.isfinite(gradient(loss.sum(), predictions.logits)).all()
    # Confidently wrong on the second anchor's second class: (1 - p_t)^gamma is 1 there.
    assert loss[0, 1, 1].item() == pytest.approx(0.75 * magnitude, rel=1e-6)


@given(
    x=st.floats(-200, 200),
    truth=st.booleans(),
    gamma=st.floats(0, 8),
    alpha=st.none() | st.floats(0, 1),
)
def test_loss_lies_between_0_and_cross_entropy_and_its_gradient_is_bounded(
    x: float, truth: bool, gamma: float, alpha: float | None
) -> None:
    logits = torch.tensor([x], requires_grad=True)
    target = torch.tensor([truth])
    loss = sigmoid_focal(logits, target, alpha=alpha, gamma=gamma)
    plain = sigmoid_focal(logits.detach(), target, alpha=None, gamma=0.0)
    assert 0 <= loss.item() <= plain.item()
    slope = float(gradient(loss.sum(), logits))
    # |gamma p_t log p_t + p_t - 1| is at most 1 + gamma / e.
    assert abs(slope) <= 1 + gamma / math.e + 1e-6
    assert slope <= 0 if truth else slope >= 0


def test_a_neutral_anchor_has_neither_value_nor_gradient() -> None:
    predictions = predict(torch.full((1, 2, 3), 9.0))
    loss = FocalLoss(3)(predictions, match(predictions, [[IGNORE, BACKGROUND]]))["class"]
    slopes = gradient(loss.sum(), predictions.logits)
    assert not loss[0, 0].any()
    assert not slopes[0, 0].any()
    assert slopes[0, 1].all()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("gamma", -1.0, "loss.gamma: -1.0 given, at least 0 is needed"),
        ("alpha", 1.5, "loss.alpha: 1.5 given, 0 to 1 or null is allowed"),
    ],
)
def test_options_out_of_range_are_refused(option: str, value: float, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        LOSSES.build(Plug("focal", {option: value}), 3)
    assert str(error.value) == message
