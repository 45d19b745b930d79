"""FLSD-53: two gammas, chosen by how right the answer is."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detector.config.registry import LOSSES
from detector.config.schema import Plug
from detector.errors import ConfigError
from detector.losses.focal import FocalLoss, sigmoid_focal
from detector.losses.sample_dependent_focal import SampleDependentFocalLoss, sample_dependent_gamma
from detector.structures import BACKGROUND, IGNORE
from tests.by_hand import gradient, match, predict, random_logits

LABELS = [[0, BACKGROUND, IGNORE, 2], [BACKGROUND, 1, 1, BACKGROUND]]
FLSD_53 = {"gamma_hard": 5.0, "gamma_easy": 3.0, "threshold": 0.2}


def test_gamma_is_5_below_two_tenths_of_the_probability_of_the_truth_and_3_from_there() -> None:
    logits = torch.tensor([0.1, 0.19, 0.21, 0.79, 0.81, 0.9], dtype=torch.float64).logit()
    yes, no = torch.ones(6, dtype=torch.bool), torch.zeros(6, dtype=torch.bool)
    assert sample_dependent_gamma(logits, yes, **FLSD_53).tolist() == [5, 5, 3, 3, 3, 3]
    assert sample_dependent_gamma(logits, no, **FLSD_53).tolist() == [3, 3, 3, 3, 5, 5]


def test_the_gammas_are_exact_in_float64() -> None:
    logits = torch.tensor([-5.0, 5.0], dtype=torch.float64)
    options = {"gamma_hard": 5.1, "gamma_easy": 3.1, "threshold": 0.2}
    gammas = sample_dependent_gamma(logits, torch.tensor([True, True]), **options)
    assert gammas.tolist() == [5.1, 3.1]


@pytest.mark.parametrize("alpha", [None, 0.25])
def test_values_and_gradients_equal_the_closed_forms(alpha: float | None) -> None:
    predictions = predict(random_logits(2, 4, 3))
    focal = SampleDependentFocalLoss(3, alpha=alpha)
    loss = focal(predictions, match(predictions, LABELS))["class"]
    slopes = gradient(loss.sum(), predictions.logits)
    gammas = set()
    for i, a, k in torch.cartesian_prod(torch.arange(2), torch.arange(4), torch.arange(3)).tolist():
        truth = LABELS[i][a] == k
        sign = 1 if truth else -1
        p = 1 / (1 + math.exp(-sign * predictions.logits[i, a, k].item()))
        gamma = 5 if p < 0.2 else 3
        weight = 1.0 if alpha is None else alpha if truth else 1 - alpha
        weight = 0.0 if LABELS[i][a] == IGNORE else weight
        value = -weight * (1 - p) ** gamma * math.log(p)
        slope = weight * sign * (1 - p) ** gamma * (gamma * p * math.log(p) + p - 1)
        assert loss[i, a, k].item() == pytest.approx(value, abs=1e-9)
        assert slopes[i, a, k].item() == pytest.approx(slope, abs=1e-9)
        gammas.add(gamma)
    assert gammas == {3, 5}


def test_the_loss_jumps_up_where_the_truth_passes_two_tenths() -> None:
    logits = torch.tensor([0.2 - 1e-9, 0.2 + 1e-9], dtype=torch.float64).logit()
    yes = torch.tensor([True, True])
    gamma = sample_dependent_gamma(logits, yes, **FLSD_53)
    below, above = sigmoid_focal(logits, yes, alpha=None, gamma=gamma).tolist()
    # 1e-9 to the side of the jump, where slopes are of order one.
    assert below == pytest.approx(0.8**5 * math.log(5), abs=1e-7)
    assert above == pytest.approx(0.8**3 * math.log(5), abs=1e-7)


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_with_a_threshold_at_an_end_one_gamma_is_all_there_is(threshold: float) -> None:
    predictions = predict(random_logits(2, 4, 3))
    matches = match(predictions, LABELS)
    ours = SampleDependentFocalLoss(3, threshold=threshold)(predictions, matches)["class"]
    focal = FocalLoss(3, gamma=3.0 if threshold == 0 else 5.0)(predictions, matches)["class"]
    assert torch.equal(ours, focal)


@pytest.mark.long
@given(x=st.floats(-200, 200), truth=st.booleans())
def test_the_slope_always_points_towards_the_truth(x: float, truth: bool) -> None:
    logits = torch.tensor([x], dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([truth])
    gamma = sample_dependent_gamma(logits, targets, **FLSD_53)
    loss = sigmoid_focal(logits, targets, alpha=None, gamma=gamma)
    slope = gradient(loss.sum(), logits).item()
    assert not gamma.requires_grad
    assert loss.item() >= 0
    assert slope <= 0 if truth else slope >= 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("hard", [0.0, 0.25, 0.5, 5.0])
def test_extreme_logits_keep_value_and_gradient_finite(dtype: torch.dtype, hard: float) -> None:
    values = torch.tensor([[[200.0, -200.0], [-40.0, 40.0], [-200.0, 200.0]]], dtype=dtype)
    predictions = predict(values)
    focal = SampleDependentFocalLoss(2, gamma_hard=hard, gamma_easy=0.5)
    loss = focal(predictions, match(predictions, [[0, 0, BACKGROUND]]))["class"]
    assert torch.isfinite(loss).all()
    assert torch.isfinite(gradient(loss.sum(), predictions.logits)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma_hard": -1.0}, "loss.gamma_hard: -1.0 given, at least 0 is needed"),
        ({"threshold": 1.5}, "loss.threshold: 1.5 given, 0 to 1 is allowed"),
        ({"alpha": 1.5}, "loss.alpha: 1.5 given, 0 to 1 or null is allowed"),
    ],
)
def test_options_out_of_range_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        LOSSES.build(Plug("sample_dependent_focal", options), 3)
    assert str(error.value) == message
