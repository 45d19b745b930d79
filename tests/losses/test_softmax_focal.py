"""Softmax focal loss: closed forms in plain Python, its limits and extremes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detector.config.registry import LOSSES
from detector.config.schema import Plug
from detector.errors import ConfigError
from detector.losses.focal import sigmoid_focal
from detector.losses.softmax_cross_entropy import SoftmaxCrossEntropyLoss
from detector.losses.softmax_focal import SoftmaxFocalLoss, softmax_focal
from detector.structures import BACKGROUND, IGNORE
from tests.by_hand import gradient, match, predict, random_logits
from tests.losses.test_softmax_cross_entropy import probabilities

LABELS = [[0, BACKGROUND, IGNORE, 2], [BACKGROUND, 1, 1, BACKGROUND]]
GAMMAS = [0.0, 0.25, 0.5, 1.0, 2.0, 5.0]


def test_a_positive_at_p_one_quarter_and_a_background_at_p_nine_tenths_by_hand() -> None:
    table = torch.tensor([[0.5, 0.25, 0.25], [0.9, 0.05, 0.05]], dtype=torch.float64)
    predictions = predict(table.log()[None])
    loss = SoftmaxFocalLoss(2)(predictions, match(predictions, [[1, BACKGROUND]]))["class"]
    expected = [0.25 * 0.75**2 * math.log(4), 0.75 * 0.1**2 * -math.log(0.9)]
    assert loss[0].tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("alpha", [None, 0.25, 1.0])
def test_values_and_gradients_equal_the_closed_forms(alpha: float | None, gamma: float) -> None:
    predictions = predict(random_logits(2, 4, 4))
    focal = SoftmaxFocalLoss(3, alpha=alpha, gamma=gamma)
    loss = focal(predictions, match(predictions, LABELS))["class"]
    slopes = gradient(loss.sum(), predictions.logits)
    for i, labels in enumerate(LABELS):
        for a, label in enumerate(labels):
            p = probabilities(predictions.logits[i, a].tolist())
            t = p[label + 1]
            weight = 1.0 if alpha is None else 1 - alpha if label == BACKGROUND else alpha
            weight = 0.0 if label == IGNORE else weight
            value = -weight * (1 - t) ** gamma * math.log(t)
            factor = weight * (1 - t) ** (gamma - 1) * (gamma * t * math.log(t) - (1 - t))
            expected = [factor * ((j == label + 1) - q) for j, q in enumerate(p)]
            assert loss[i, a].item() == pytest.approx(value, abs=1e-9)
            assert slopes[i, a].tolist() == pytest.approx(expected, abs=1e-9)


def test_gamma_0_without_alpha_is_softmax_cross_entropy() -> None:
    predictions = predict(random_logits(2, 4, 4))
    matches = match(predictions, LABELS)
    focal = SoftmaxFocalLoss(3, alpha=None, gamma=0.0)(predictions, matches)["class"]
    assert torch.equal(focal, SoftmaxCrossEntropyLoss(3)(predictions, matches)["class"])


@pytest.mark.parametrize("gamma", GAMMAS)
def test_of_one_class_it_is_focal_loss_of_the_difference(gamma: float) -> None:
    logits, labels = random_logits(50, 2), (random_logits(50, seed=1) > 0).long()
    options = {"alpha": 0.25, "gamma": gamma}
    plain = sigmoid_focal(logits[:, 1] - logits[:, 0], labels == 1, **options)
    # Two ways to the same number, in float64.
    torch.testing.assert_close(softmax_focal(logits, labels, **options), plain, rtol=0, atol=1e-12)


def test_another_class_may_be_the_background() -> None:
    logits, labels = random_logits(50, 4), random_logits(50).long().clamp(0, 3)
    order = torch.tensor([3, 0, 1, 2])  # what was last is first
    first = softmax_focal(logits[:, order], (labels + 1) % 4, alpha=0.25, gamma=2.0)
    last = softmax_focal(logits, labels, alpha=0.25, gamma=2.0, background=3)
    torch.testing.assert_close(first, last, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("magnitude", [40.0, 200.0])
def test_extreme_logits_keep_value_and_gradient_finite(
    dtype: torch.dtype, gamma: float, magnitude: float
) -> None:
    logits = torch.tensor([[magnitude, -magnitude, 0.0]] * 3, dtype=dtype, requires_grad=True)
    loss = softmax_focal(logits, torch.tensor([0, 1, 2]), alpha=None, gamma=gamma)
    assert torch.isfinite(loss).all()
    assert torch.isfinite(gradient(loss.sum(), logits)).all()
    # Confidently wrong: (1 - p_t)^gamma is 1. bfloat16 keeps three digits.
    assert loss.tolist() == pytest.approx([0.0, 2 * magnitude, magnitude], rel=5e-3, abs=1e-6)


@given(
    others=st.lists(st.floats(-30, 30), min_size=1, max_size=4),
    x=st.floats(-30, 30),
    step=st.floats(0.01, 5),
    gamma=st.floats(0, 6),
)
def test_the_loss_is_not_negative_and_falls_as_the_truth_rises(
    others: list[float], x: float, step: float, gamma: float
) -> None:
    rows = [[x, *others], [x + step, *others]]
    logits = torch.tensor(rows, dtype=torch.float64, requires_grad=True)
    loss = softmax_focal(logits, torch.zeros(2, dtype=torch.long), alpha=None, gamma=gamma)
    slopes = gradient(loss.sum(), logits)
    before, after = loss.tolist()
    assert before >= after >= 0
    # float64 rounding of sums that cancel.
    assert bool((slopes[:, 0] <= 1e-12).all())
    assert bool((slopes[:, 1:] >= -1e-12).all())
    assert slopes.sum(-1).tolist() == pytest.approx([0.0, 0.0], abs=1e-12)


def test_it_begins_where_the_prior_puts_it() -> None:
    loss = SoftmaxFocalLoss(80)
    predictions = predict(loss.layout.initial_bias(0.01).double().expand(1, 2, -1))
    values = loss(predictions, match(predictions, [[7, BACKGROUND]]))["class"][0]
    yes = 0.25 * (1 - 0.01 / 80) ** 2 * math.log(80 / 0.01)
    no = 0.75 * 0.01**2 * math.log(100 / 99)
    # The bias is float32.
    assert values.tolist() == pytest.approx([yes, no], rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": -1.0}, "loss.gamma: -1.0 given, at least 0 is needed"),
        ({"alpha": 1.5}, "loss.alpha: 1.5 given, 0 to 1 or null is allowed"),
    ],
)
def test_options_out_of_range_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        LOSSES.build(Plug("softmax_focal", options), 3)
    assert str(error.value) == message
