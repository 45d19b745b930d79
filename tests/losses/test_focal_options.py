"""The options of focal loss: asymmetric gammas, clip, Poly-1, a modulator without a slope."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detector.config.registry import LOSSES
from detector.config.schema import Plug
from detector.errors import ConfigError
from detector.losses.focal import FocalLoss, sigmoid_focal
from detector.structures import BACKGROUND, IGNORE
from tests.by_hand import gradient, match, predict, random_logits

LABELS = [[0, BACKGROUND, IGNORE, 2], [BACKGROUND, 1, 1, BACKGROUND]]
ASYMMETRIC = {"alpha": None, "gamma": 0.0, "gamma_negative": 4.0, "clip": 0.05}
OPTIONS: list[dict[str, Any]] = [
    ASYMMETRIC,
    {"alpha": None, "gamma": 1.0, "gamma_negative": 0.0, "clip": 0.2},
    {"alpha": 0.25, "gamma": 2.0, "clip": 0.3},
    {"alpha": 0.4, "gamma": 0.5, "gamma_negative": 0.3, "clip": 0.01},
    {"alpha": None, "gamma": 2.0, "poly_epsilon": 1.0},
    {"alpha": 0.25, "gamma": 2.0, "poly_epsilon": 1.0},
    {"alpha": 0.25, "gamma": 2.0, "poly_epsilon": -1.0, "is_poly_weighted": True},
    {"alpha": 0.3, "gamma": 0.0, "gamma_negative": 3.0, "clip": 0.1, "poly_epsilon": 0.7},
    {"alpha": 0.25, "gamma": 2.0, "detach_modulator": True},
    {"alpha": None, "gamma": 0.5, "gamma_negative": 3.0, "clip": 0.1, "detach_modulator": True},
    {"alpha": 0.3, "gamma": 2.0, "poly_epsilon": 0.7, "detach_modulator": True},
]


def by_hand(x: float, truth: bool, **options: Any) -> tuple[float, float]:
    """Value and slope for the logit, with the formulas of the papers; no logarithm of 0 or 1."""
    p = 1 / (1 + math.exp(-x))
    sign, gamma, alpha = (1, options["gamma"], options["alpha"])
    miss = 1 - p
    if not truth:
        sign, gamma = -1, options.get("gamma_negative", options["gamma"])
        miss = max(p - options.get("clip", 0.0), 0.0)
    if miss == 0:
        return 0.0, 0.0
    weight = 1.0 if alpha is None else alpha if truth else 1 - alpha
    epsilon = options.get("poly_epsilon", 0.0)
    epsilon *= weight if options.get("is_poly_weighted") else 1.0
    value = -weight * miss**gamma * math.log(1 - miss) + epsilon * miss ** (gamma + 1)
    # The slope for `miss`, which falls by p (1 - p) with the signed logit.
    own = 0.0 if options.get("detach_modulator") else gamma
    slope = weight * (miss**gamma / (1 - miss) - own * miss ** (gamma - 1) * math.log(1 - miss))
    slope += epsilon * (gamma + 1) * miss**gamma
    return value, -sign * p * (1 - p) * slope


@pytest.mark.parametrize("options", OPTIONS)
def test_values_and_gradients_equal_the_closed_forms(options: dict[str, Any]) -> None:
    predictions = predict(random_logits(2, 4, 3))
    loss = FocalLoss(3, **options)(predictions, match(predictions, LABELS))["class"]
    slopes = gradient(loss.sum(), predictions.logits)
    for i, a, k in torch.cartesian_prod(torch.arange(2), torch.arange(4), torch.arange(3)).tolist():
        x, truth = predictions.logits[i, a, k].item(), LABELS[i][a] == k
        value, slope = by_hand(x, truth, **options) if LABELS[i][a] != IGNORE else (0.0, 0.0)
        assert loss[i, a, k].item() == pytest.approx(value, abs=1e-9)
        assert slopes[i, a, k].item() == pytest.approx(slope, abs=1e-9)


def test_the_asymmetric_loss_at_p_one_half_is_45_hundredths_to_the_fourth_times_its_log() -> None:
    loss = sigmoid_focal(
        torch.zeros(2, dtype=torch.float64), torch.tensor([True, False]), **ASYMMETRIC
    )
    expected = [math.log(2), -(0.45**4) * math.log(0.55)]
    assert loss.tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_equal_gammas_without_clip_are_focal_loss(gamma: float) -> None:
    logits, truth = random_logits(100), random_logits(100, seed=1) > 0
    plain = sigmoid_focal(logits, truth, alpha=None, gamma=gamma)
    both = sigmoid_focal(logits, truth, alpha=None, gamma=gamma, gamma_negative=gamma)
    assert torch.equal(both, plain)


def test_a_vanishing_clip_is_no_clip() -> None:
    logits, truth = random_logits(100), random_logits(100, seed=1) > 0
    plain = sigmoid_focal(logits, truth, alpha=None, gamma=2.0)
    tiny = sigmoid_focal(logits, truth, alpha=None, gamma=2.0, clip=1e-12)
    assert logits.max() < 9
    # It changes by the clip times its slope for p, about 1 / (1 - p), which is e^9 = 8,100 at most.
    torch.testing.assert_close(tiny, plain, rtol=0, atol=1e-8)


def test_clip_changes_background_alone() -> None:
    logits = random_logits(100)
    yes = torch.ones(100, dtype=torch.bool)
    plain = sigmoid_focal(logits, yes, alpha=0.25, gamma=2.0)
    assert torch.equal(sigmoid_focal(logits, yes, alpha=0.25, gamma=2.0, clip=0.3), plain)


@pytest.mark.parametrize("poly_epsilon", [0.0, 1.0])
def test_background_below_the_clip_has_exactly_no_value_and_no_gradient(
    poly_epsilon: float,
) -> None:
    logits = torch.tensor([0.049, 0.051], dtype=torch.float64).logit().requires_grad_()
    loss = sigmoid_focal(
        logits, torch.zeros(2, dtype=torch.bool), **ASYMMETRIC, poly_epsilon=poly_epsilon
    )
    slopes = gradient(loss.sum(), logits)
    assert (loss[0].item(), slopes[0].item()) == (0.0, 0.0)
    assert (loss[1].item(), slopes[1].item()) > (0.0, 0.0)


@pytest.mark.parametrize(("prior", "learns"), [(0.01, False), (0.06, True)])
def test_with_a_prior_below_the_clip_no_background_learns_at_first(
    prior: float, learns: bool
) -> None:
    loss = FocalLoss(3, **ASYMMETRIC)
    predictions = predict(loss.layout.initial_bias(prior).expand(1, 4, -1))
    matches = match(predictions, [[0, BACKGROUND, BACKGROUND, BACKGROUND]])
    slopes = gradient(loss(predictions, matches)["class"].sum(), predictions.logits)
    assert slopes[0, 0, 0] < 0  # the positive does
    assert bool((slopes[0, 1:] > 0).any()) is learns


def test_poly_epsilon_adds_a_quarter_at_p_one_half_and_gamma_1() -> None:
    logits = torch.zeros(2, dtype=torch.float64)
    truth = torch.tensor([True, False])
    options = {"alpha": 0.4, "gamma": 1.0}
    plain = sigmoid_focal(logits, truth, **options)
    unweighted = sigmoid_focal(logits, truth, **options, poly_epsilon=1.0)
    weighted = sigmoid_focal(logits, truth, **options, poly_epsilon=1.0, is_poly_weighted=True)
    assert (unweighted - plain).tolist() == pytest.approx([0.25, 0.25], rel=1e-12)
    assert (weighted - plain).tolist() == pytest.approx([0.1, 0.15], rel=1e-12)


def test_poly_epsilon_minus_1_takes_the_leading_term_of_the_series_away() -> None:
    # -log p = q + q^2/2 + q^3/3 + ...: at q = 0.001, gamma 2 leaves q^4/2 + q^5/3.
    logits = torch.tensor([0.999], dtype=torch.float64).logit()
    loss = sigmoid_focal(logits, torch.tensor([True]), alpha=None, gamma=2.0, poly_epsilon=-1.0)
    # A difference of numbers 2,000 times as large, in float64; the series ends at q^5.
    assert loss.item() == pytest.approx(0.001**4 / 2 + 0.001**5 / 3, rel=1e-6)


def test_a_detached_modulator_keeps_the_value_and_a_third_of_the_slope_of_the_easy() -> None:
    options = {"alpha": None, "gamma": 2.0}
    logits = torch.tensor([-12.0], dtype=torch.float64, requires_grad=True)
    no = torch.tensor([False])
    ours = sigmoid_focal(logits, no, **options)
    fixed = sigmoid_focal(logits, no, **options, detach_modulator=True)
    assert torch.equal(ours, fixed)
    ratio = gradient(ours.sum(), logits) / gradient(fixed.sum(), logits)
    # 1 + gamma at p = 0; p is 6e-6.
    assert ratio.item() == pytest.approx(3.0, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("gamma", [0.0, 0.25, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("detach", [False, True])
def test_extreme_logits_keep_value_and_gradient_finite(
    dtype: torch.dtype, gamma: float, detach: bool
) -> None:
    values = torch.tensor([[[x, x] for x in (200.0, -200.0, 40.0, -40.0, -3.0, 0.0)]], dtype=dtype)
    predictions = predict(values)
    matches = match(predictions, [[0] * 6])
    for clip in (0.0, 1e-9, 0.05):  # also what a ramp from 0 begins with
        options = {"gamma_negative": gamma, "clip": clip, "poly_epsilon": 1.0}
        focal = FocalLoss(2, gamma=gamma, detach_modulator=detach, **options)
        loss = focal(predictions, matches)["class"]
        assert torch.isfinite(loss).all()
        assert torch.isfinite(gradient(loss.sum(), predictions.logits)).all()


@given(
    low=st.floats(-30, 30),
    step=st.floats(0.01, 5),
    truth=st.booleans(),
    gamma=st.floats(0, 6),
    gamma_negative=st.none() | st.floats(0, 6),
    clip=st.just(0.0) | st.floats(1e-3, 0.5),
    poly_epsilon=st.floats(-1, 3),
)
def test_the_loss_is_not_negative_and_falls_as_the_logit_nears_the_truth(
    low: float,
    step: float,
    truth: bool,
    gamma: float,
    gamma_negative: float | None,
    clip: float,
    poly_epsilon: float,
) -> None:
    logits = torch.tensor([low, low + step], dtype=torch.float64, requires_grad=True)
    loss = sigmoid_focal(
        logits,
        torch.tensor([truth, truth]),
        alpha=None,
        gamma=gamma,
        gamma_negative=gamma_negative,
        clip=clip,
        poly_epsilon=poly_epsilon,
    )
    slopes = gradient(loss.sum(), logits)
    wrong, right = loss.tolist() if truth else loss.tolist()[::-1]
    # Near epsilon -1 the loss is a difference of numbers of order one: float64 rounding.
    assert right >= -1e-12
    assert wrong >= right - 1e-12
    assert bool((slopes <= 1e-12).all() if truth else (slopes >= -1e-12).all())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma_negative": -1.0}, "loss.gamma_negative: -1.0 given, at least 0 or null is needed"),
        ({"clip": 1.0}, "loss.clip: 1.0 given, 0 to below 1 is allowed"),
        (
            {"poly_epsilon": -1.0},
            "loss.poly_epsilon: -1.0 given, at least -0.25 is needed with alpha 0.25 and "
            "is_poly_weighted false",
        ),
        (
            {"poly_epsilon": -1.5, "is_poly_weighted": True},
            "loss.poly_epsilon: -1.5 given, at least -1.0 is needed with alpha 0.25 and "
            "is_poly_weighted true",
        ),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        LOSSES.build(Plug("focal", options), 3)
    assert str(error.value) == message
