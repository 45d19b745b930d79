"""Varifocal loss: worked by hand, closed forms in plain Python, and how the variants differ."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detector.config.registry import LOSSES
from detector.config.schema import Plug
from detector.errors import ConfigError
from detector.losses.focal import FocalLoss
from detector.losses.varifocal import VarifocalLoss, sigmoid_varifocal
from detector.structures import BACKGROUND, IGNORE
from tests.by_hand import gradient, match, predict, random_logits

LN3 = math.log(3)
"""sigmoid(ln 3) = 3/4."""


def loop_value(x: float, q: float, alpha: float, gamma: float) -> float:
    """-q (q log p + (1 - q) log(1 - p)) for q > 0, else -alpha p^gamma log(1 - p)."""
    p = 1 / (1 + math.exp(-x))
    if q > 0:
        return -q * (q * math.log(p) + (1 - q) * math.log(1 - p))
    return -alpha * p**gamma * math.log(1 - p)


def loop_slope(x: float, q: float, alpha: float, gamma: float, detached: bool) -> float:
    """q (p - q); alpha p^gamma (p - gamma (1 - p) log(1 - p)), or alpha p^gamma p if detached."""
    p = 1 / (1 + math.exp(-x))
    if q > 0:
        return q * (p - q)
    own = 0.0 if detached else -gamma * (1 - p) * math.log(1 - p)
    return alpha * p**gamma * (p + own)


@pytest.mark.parametrize("detached", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("quality", [0.0, 0.1, 0.5, 1.0])
def test_values_and_gradients_equal_the_closed_forms(
    quality: float, gamma: float, detached: bool
) -> None:
    logits = random_logits(50).requires_grad_()
    loss = sigmoid_varifocal(
        logits, torch.full_like(logits, quality), alpha=0.6, gamma=gamma, detach_modulator=detached
    )
    slopes = gradient(loss.sum(), logits)
    for x, value, slope in zip(logits.tolist(), loss.tolist(), slopes.tolist(), strict=True):
        assert value == pytest.approx(loop_value(x, quality, 0.6, gamma), abs=1e-9)
        assert slope == pytest.approx(loop_slope(x, quality, 0.6, gamma, detached), abs=1e-9)


def test_a_positive_is_weighted_by_its_quality_and_alpha_is_for_background_alone() -> None:
    # Half the object is covered, so q = 1/2; scores 3/4 at the class and 1/4 at the other.
    predictions = predict(torch.tensor([[[LN3, -LN3]]], dtype=torch.float64))
    matches = match(predictions, [[0]], boxes={(0, 0): (0.0, 0.0, 64.0, 32.0)})
    loss = VarifocalLoss(2)(predictions, matches)["class"][0, 0]
    positive = -0.5 * (0.5 * math.log(3 / 4) + 0.5 * math.log(1 / 4))
    background = -0.75 * (1 / 4) ** 2 * math.log(3 / 4)
    assert loss.tolist() == pytest.approx([positive, background], rel=1e-9)


def test_a_positive_whose_box_misses_its_object_is_background() -> None:
    # The paper's cases are q > 0 and q = 0: with the first formula such an anchor would weigh 0.
    predictions = predict(torch.tensor([[[LN3]]], dtype=torch.float64))
    matches = match(predictions, [[0]], boxes={(0, 0): (100.0, 100.0, 120.0, 120.0)})
    loss = VarifocalLoss(1)(predictions, matches)["class"].item()
    assert loss == pytest.approx(0.75 * (3 / 4) ** 2 * math.log(4), rel=1e-9)


def test_the_quality_does_not_pull_on_the_box() -> None:
    predictions = predict(torch.tensor([[[LN3]]], dtype=torch.float64))
    matches = match(predictions, [[0]], boxes={(0, 0): (0.0, 0.0, 64.0, 32.0)})
    loss = VarifocalLoss(1)(predictions, matches)["class"].sum()
    (pull,) = torch.autograd.grad(loss, predictions.deltas, allow_unused=True)  # type: ignore[arg-type]
    assert pull is None


def test_detaching_the_modulator_keeps_the_value_and_takes_two_thirds_of_a_small_slope() -> None:
    # D-FINE detaches p^gamma, the paper and mmdetection do not. For small p, log(1 - p) = -p, so
    # the slopes are alpha p^3 (1 + gamma) and alpha p^3: 3 to 1 for gamma 2.
    logits = torch.tensor([-8.0], dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(1, dtype=torch.float64)
    paper, dfine = (
        sigmoid_varifocal(logits, zero, alpha=0.75, gamma=2.0, detach_modulator=detached)
        for detached in (False, True)
    )
    assert torch.equal(paper, dfine)
    ratio = gradient(paper.sum(), logits) / gradient(dfine.sum(), logits)
    assert ratio.item() == pytest.approx(3, abs=1e-3)


def test_with_perfect_boxes_the_background_is_that_of_focal_loss_with_alpha_025() -> None:
    # Why RF-DETR can write 1 - alpha with 0.25 for the same number: focal loss has 1 - alpha there.
    predictions = predict(random_logits(2, 4, 3))
    labels = [[0, BACKGROUND, IGNORE, 2], [BACKGROUND, 1, 1, BACKGROUND]]
    matches = match(predictions, labels)
    ours = VarifocalLoss(3)(predictions, matches)["class"]
    focal = FocalLoss(3)(predictions, matches)["class"]
    no = ~matches.one_hot(3)
    torch.testing.assert_close(ours[no], focal[no], rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("prior", "yes", "no"), [(0.5, 0.69, 10397.1), (0.01, 4.6052, 0.0603), (1e-5, 11.5, 0.0)]
)
def test_it_begins_where_the_prior_puts_it(prior: float, yes: float, no: float) -> None:
    # 1,000 anchors for a positive whose box fits, 80 classes: -log p, and .75 p^2 x -log(1 - p).
    loss = VarifocalLoss(80)
    predictions = predict(loss.layout.initial_bias(prior).double().expand(1, 1000, -1))
    matches = match(predictions, [[7] + [BACKGROUND] * 999])
    values, truth = loss(predictions, matches)["class"], matches.one_hot(80)
    # The figures have two digits or two decimals.
    assert values[truth].sum().item() == pytest.approx(yes, abs=0.02)
    assert values[~truth].sum().item() == pytest.approx(no, rel=1e-5, abs=0.006)


@given(
    x=st.floats(-200, 200),
    quality=st.floats(0, 1),
    gamma=st.floats(0, 8),
    detached=st.booleans(),
)
def test_loss_and_gradient_are_finite_and_pull_towards_the_quality(
    x: float, quality: float, gamma: float, detached: bool
) -> None:
    logits = torch.tensor([x], requires_grad=True)
    target = torch.tensor([quality])
    loss = sigmoid_varifocal(logits, target, alpha=0.75, gamma=gamma, detach_modulator=detached)
    slope = gradient(loss.sum(), logits).item()
    assert math.isfinite(loss.item())
    assert math.isfinite(slope)
    # float32: the two halves of the slope cancel to a rounding error at p = q.
    assert slope * (logits.sigmoid() - target).item() >= -1e-7


def test_there_is_no_posterior_without_the_quality() -> None:
    assert VarifocalLoss(3).link_inverse(torch.rand(5)) is None


@pytest.mark.parametrize("option", ["alpha", "gamma"])
def test_negative_options_are_refused(option: str) -> None:
    with pytest.raises(ConfigError, match=rf"^loss\.{option}: -1\.0 given, at least 0 is needed$"):
        LOSSES.build(Plug("varifocal", {option: -1.0}), 3)
