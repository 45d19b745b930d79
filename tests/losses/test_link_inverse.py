"""From the best score to the posterior, against brute-force minimisation of the expected loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy.optimize import minimize_scalar

from detector.config.registry import LOSSES
from detector.config.schema import Plug
from tests.losses.test_focal_options import by_hand

POSTERIORS = [0.001, 0.02, 0.3, 0.5, 0.9, 0.99]
Value = Callable[[float, bool], float]


def focal(**options: Any) -> Value:
    return lambda x, truth: by_hand(x, truth, **options)[0]


def focal_star(alpha: float, gamma: float, beta: float) -> Value:
    def value(x: float, truth: bool) -> float:
        signed, weight = (x, alpha) if truth else (-x, 1 - alpha)
        return weight * math.log1p(math.exp(-gamma * signed - beta)) / gamma

    return value


CASES: list[tuple[str, dict[str, Any], Value]] = [
    ("cross_entropy", {}, focal(alpha=None, gamma=0.0)),
    ("balanced_cross_entropy", {}, focal(alpha=0.75, gamma=0.0)),
    ("balanced_cross_entropy", {"alpha": 0.1}, focal(alpha=0.1, gamma=0.0)),
    ("focal", {}, focal(alpha=0.25, gamma=2.0)),
    ("focal_star", {}, focal_star(0.25, 2.0, 1.0)),
    ("focal_star", {"alpha": 0.4, "gamma": 4.0, "beta": 0.0}, focal_star(0.4, 4.0, 0.0)),
    ("softmax_cross_entropy", {}, focal(alpha=None, gamma=0.0)),
    ("softmax_focal", {}, focal(alpha=0.25, gamma=2.0)),
    *[
        ("focal", options, focal(**options))
        for options in (
            {"alpha": None, "gamma": 2.0},
            {"alpha": 0.5, "gamma": 0.5},
            {"alpha": 0.25, "gamma": 5.0},
            {"alpha": None, "gamma": 0.0, "gamma_negative": 4.0},
            {"alpha": 0.25, "gamma": 2.0, "poly_epsilon": 1.0},
            {"alpha": 0.25, "gamma": 2.0, "poly_epsilon": 1.0, "is_poly_weighted": True},
            {"alpha": None, "gamma": 1.0, "gamma_negative": 2.0, "poly_epsilon": -0.5},
        )
    ],
]


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize(("name", "options", "value"), CASES)
def test_the_best_score_is_turned_back_into_the_posterior(
    name: str, options: dict[str, Any], value: Value, posterior: float
) -> None:
    def expected(x: float) -> float:
        return posterior * value(x, True) + (1 - posterior) * value(x, False)

    best = minimize_scalar(expected, bounds=(-20, 20), method="bounded", options={"xatol": 1e-12})
    score = torch.tensor([best.x], dtype=torch.float64).sigmoid()
    # A minimum is flat: its place is found to the root of float64's precision.
    assert LOSSES.build(Plug(name, options), 1).link_inverse(score).item() == pytest.approx(
        posterior, abs=1e-6
    )


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("poly_epsilon", [0.0, 1.0])
def test_with_a_detached_modulator_it_is_where_the_applied_slopes_cancel(
    posterior: float, poly_epsilon: float
) -> None:
    options = {"alpha": 0.25, "gamma": 2.0, "detach_modulator": True, "poly_epsilon": poly_epsilon}

    def force(x: float) -> float:
        pull = [by_hand(x, truth, **options)[1] for truth in (True, False)]
        return posterior * pull[0] + (1 - posterior) * pull[1]

    low, high = -30.0, 30.0
    for _ in range(100):  # the slopes' sum rises with the logit
        middle = (low + high) / 2
        low, high = (middle, high) if force(middle) < 0 else (low, middle)
    score = torch.tensor([low], dtype=torch.float64).sigmoid()
    link = LOSSES.build(Plug("focal", options), 1).link_inverse
    assert link(score).item() == pytest.approx(posterior, abs=1e-9)


def test_of_the_default_focal_loss_a_half_means_three_quarters_and_six_tenths_nine() -> None:
    scores = torch.tensor([0.34, 0.40, 0.5, 0.60], dtype=torch.float64)
    # The score equals its posterior about 0.34; both round figures of the others have two digits.
    posteriors = LOSSES.build(Plug("focal", {}), 1).link_inverse(scores)
    assert posteriors.tolist() == pytest.approx([0.34, 0.50, 0.75, 0.90], abs=0.005)
    assert posteriors[2].item() == pytest.approx(0.75, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("name", "options", "value"), CASES)
def test_it_rises_from_0_to_1_without_a_break(
    name: str, options: dict[str, Any], value: Value, dtype: torch.dtype
) -> None:
    link = LOSSES.build(Plug(name, options), 1).link_inverse
    ends = torch.tensor([0.0, 1e-30, 1 - 2**-24, 1.0], dtype=dtype)
    # Scores next to 0 and 1 come out next to them: at 1 - 2^-24 the steepest case, gamma 0 with
    # alpha 0.75, leaves three times the distance.
    assert link(ends).tolist() == pytest.approx([0, 0, 1, 1], abs=1e-6)
    inside = torch.linspace(0.001, 0.999, 999, dtype=dtype)
    steps = link(inside).diff()
    # Near 1 a steep posterior no longer rises in float32; it never falls by more than rounding.
    assert bool((steps >= -1e-6 if dtype == torch.float32 else steps > 0).all())


@pytest.mark.parametrize(("name", "value"), [("cross_entropy", None), ("softmax_focal", 0.0)])
def test_without_focusing_or_weights_it_is_the_score(name: str, value: float | None) -> None:
    options = {} if value is None else {"alpha": None, "gamma": value}
    scores = torch.tensor([1e-12, 1e-5, 0.3, 0.7, 1 - 1e-9], dtype=torch.float64)
    link = LOSSES.build(Plug(name, options), 1).link_inverse
    assert link(scores).tolist() == pytest.approx(scores.tolist(), rel=1e-12)


def test_focal_with_gamma_0_is_the_identity_down_to_the_smallest_scores() -> None:
    link = LOSSES.build(Plug("focal", {"alpha": None, "gamma": 0.0}), 1).link_inverse
    scores = torch.tensor([1e-30, 1e-9, 1e-5, 0.3, 0.999], dtype=torch.float32)
    # float32: a few roundings.
    assert link(scores).tolist() == pytest.approx(scores.tolist(), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "num_classes"),
    [
        ("ssd", {}, 1),  # background is kept by its rank
        ("yolo", {}, 1),  # a score mixes the posterior with how well boxes fit
        ("sample_dependent_focal", {}, 1),  # the loss jumps
        ("softmax_focal", {}, 2),  # one score does not tell the others
        ("focal", {"clip": 0.05}, 1),  # no score below the clip is a best one
        ("focal", {"alpha": 1.0}, 1),  # background costs nothing
        ("softmax_focal", {"alpha": 0.0}, 1),
        ("focal_star", {"alpha": 1.0}, 1),
        ("balanced_cross_entropy", {"alpha": 0.0}, 1),
    ],
)
def test_there_is_none_where_a_score_does_not_tell_its_posterior(
    name: str, options: dict[str, Any], num_classes: int
) -> None:
    loss = LOSSES.build(Plug(name, options), num_classes)
    assert loss.link_inverse(torch.tensor([0.5])) is None
