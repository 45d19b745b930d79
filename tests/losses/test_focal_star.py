"""FL*: closed forms in plain Python, its limits and extremes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detector.config.registry import LOSSES
from detector.config.schema import Plug
from detector.errors import ConfigError
from detector.losses.cross_entropy import CrossEntropyLoss, sigmoid_cross_entropy
from detector.losses.focal_star import FocalStarLoss, sigmoid_focal_star
from detector.structures import BACKGROUND, IGNORE
from tests.by_hand import gradient, match, predict, random_logits

LABELS = [[0, BACKGROUND, IGNORE, 2], [BACKGROUND, 1, 1, BACKGROUND]]


def test_at_a_logit_of_0_the_two_of_the_paper_cost_0_157_and_0_173() -> None:
    # log(1 + 1/e) / 2 and log(2) / 4.
    zero, yes = torch.zeros(1, dtype=torch.float64), torch.tensor([True])
    shifted = sigmoid_focal_star(zero, yes, alpha=None, gamma=2.0, beta=1.0)
    steep = sigmoid_focal_star(zero, yes, alpha=None, gamma=4.0, beta=0.0)
    assert shifted.item() == pytest.approx(0.15663084, rel=1e-7)
    assert steep.item() == pytest.approx(0.17328680, rel=1e-7)


@pytest.mark.parametrize(("gamma", "beta"), [(1.0, 0.0), (2.0, 1.0), (4.0, 0.0), (0.5, -2.0)])
@pytest.mark.parametrize("alpha", [None, 0.25])
def test_values_and_gradients_equal_the_closed_forms(
    alpha: float | None, gamma: float, beta: float
) -> None:
    predictions = predict(random_logits(2, 4, 3))
    star = FocalStarLoss(3, alpha=alpha, gamma=gamma, beta=beta)
    loss = star(predictions, match(predictions, LABELS))["class"]
    slopes = gradient(loss.sum(), predictions.logits)
    for i, a, k in torch.cartesian_prod(torch.arange(2), torch.arange(4), torch.arange(3)).tolist():
        truth = LABELS[i][a] == k
        sign = 1 if truth else -1
        weight = 1.0 if alpha is None else alpha if truth else 1 - alpha
        weight = 0.0 if LABELS[i][a] == IGNORE else weight
        p = 1 / (1 + math.exp(-gamma * sign * predictions.logits[i, a, k].item() - beta))
        assert loss[i, a, k].item() == pytest.approx(-weight * math.log(p) / gamma, abs=1e-9)
        assert slopes[i, a, k].item() == pytest.approx(sign * weight * (p - 1), abs=1e-9)


def test_gamma_1_and_beta_0_without_alpha_is_cross_entropy() -> None:
    predictions = predict(random_logits(2, 4, 3))
    matches = match(predictions, LABELS)
    star = FocalStarLoss(3, alpha=None, gamma=1.0, beta=0.0)(predictions, matches)["class"]
    assert torch.equal(star, CrossEntropyLoss(3)(predictions, matches)["class"])


@given(x=st.floats(-200, 200), truth=st.booleans(), gamma=st.floats(0.25, 50))
def test_a_large_gamma_makes_a_hinge_at_0(x: float, truth: bool, gamma: float) -> None:
    logits = torch.tensor([x], dtype=torch.float64)
    loss = sigmoid_focal_star(logits, torch.tensor([truth]), alpha=None, gamma=gamma, beta=0.0)
    hinge = max(0.0, -x if truth else x)
    # log(1 + exp(-gamma x_t)) / gamma lies above the hinge by at most log(2) / gamma; rounding.
    assert hinge - 1e-12 <= loss.item() <= hinge + math.log(2) / gamma + 1e-12


def test_a_very_negative_beta_makes_it_linear_with_the_slope_of_alpha() -> None:
    logits = torch.linspace(-5, 5, 11, dtype=torch.float64, requires_grad=True)
    yes = torch.ones(11, dtype=torch.bool)
    loss = sigmoid_focal_star(logits, yes, alpha=0.25, gamma=2.0, beta=-60.0)
    # sigmoid(-50) = 2e-22 is what is left of the bend.
    assert gradient(loss.sum(), logits).tolist() == pytest.approx([-0.25] * 11, abs=1e-15)


@given(
    x=st.floats(-60, 60),
    step=st.floats(0.01, 5),
    truth=st.booleans(),
    gamma=st.floats(0.25, 6),
    beta=st.floats(-3, 3),
)
def test_it_falls_towards_the_truth_and_is_never_steeper_than_cross_entropy_can_be(
    x: float, step: float, truth: bool, gamma: float, beta: float
) -> None:
    logits = torch.tensor([x, x + step], dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([truth, truth])
    loss = sigmoid_focal_star(logits, targets, alpha=None, gamma=gamma, beta=beta)
    slopes = gradient(loss.sum(), logits)
    wrong, right = loss.tolist() if truth else loss.tolist()[::-1]
    assert wrong >= right >= 0
    assert bool(((slopes <= 0) if truth else (slopes >= 0)).all())
    assert bool((slopes.abs() <= 1).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("gamma", "beta"), [(0.25, 0.0), (2.0, 1.0), (4.0, 0.0), (5.0, -3.0)])
@pytest.mark.parametrize("magnitude", [40.0, 200.0])
def test_extreme_logits_keep_value_and_gradient_finite(
    dtype: torch.dtype, gamma: float, beta: float, magnitude: float
) -> None:
    logits = torch.tensor([magnitude, -magnitude], dtype=dtype, requires_grad=True)
    targets = torch.tensor([False, False])
    loss = sigmoid_focal_star(logits, targets, alpha=None, gamma=gamma, beta=beta)
    assert torch.isfinite(loss).all()
    assert torch.isfinite(gradient(loss.sum(), logits)).all()
    # Confidently wrong costs x - beta / gamma; bfloat16 keeps three digits.
    assert loss[0].item() == pytest.approx(magnitude - beta / gamma, rel=1e-2)


def test_it_spares_what_is_easy_as_focal_loss_does() -> None:
    """Background at the usual prior costs less than a hundredth of its cross entropy."""
    logits, no = torch.tensor([-math.log(99)], dtype=torch.float64), torch.tensor([False])
    plain = sigmoid_cross_entropy(logits, no)
    for gamma, beta in ((2.0, 1.0), (4.0, 0.0)):
        star = sigmoid_focal_star(logits, no, alpha=None, gamma=gamma, beta=beta)
        assert star / plain < 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": 0.0}, "loss.gamma: 0.0 given, above 0 is needed"),
        ({"alpha": -0.5}, "loss.alpha: -0.5 given, 0 to 1 or null is allowed"),
    ],
)
def test_options_out_of_range_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        LOSSES.build(Plug("focal_star", options), 3)
    assert str(error.value) == message
