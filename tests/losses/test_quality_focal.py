"""Quality focal loss: worked by hand, closed forms in plain Python, and what focal loss it is."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from detector.config.registry import LOSSES
from detector.config.schema import Plug
from detector.errors import ConfigError
from detector.losses.cross_entropy import CrossEntropyLoss
from detector.losses.focal import FocalLoss
from detector.losses.quality_focal import QualityFocalLoss, sigmoid_quality_focal
from detector.structures import BACKGROUND, IGNORE
from tests.by_hand import gradient, match, predict, random_logits

LABELS = [[0, BACKGROUND, IGNORE, 2], [BACKGROUND, 1, 1, BACKGROUND]]
BETAS = [0.0, 0.5, 1.0, 2.0, 5.0]
LN3 = math.log(3)
"""sigmoid(ln 3) = 3/4."""


def loop_value(x: float, y: float, beta: float) -> float:
    """-|y - p|^beta ((1 - y) log(1 - p) + y log p)."""
    p = 1 / (1 + math.exp(-x))
    return -(abs(y - p) ** beta) * ((1 - y) * math.log(1 - p) + y * math.log(p))


def loop_slope(x: float, y: float, beta: float) -> float:
    """beta |d|^(beta - 1) sign(d) p (1 - p) CE + |d|^beta d, d = p - y."""
    p = 1 / (1 + math.exp(-x))
    d, entropy = p - y, -((1 - y) * math.log(1 - p) + y * math.log(p))
    if beta == 0:
        return d
    return beta * abs(d) ** (beta - 1) * math.copysign(1, d) * p * (1 - p) * entropy + (
        abs(d) ** beta * d
    )


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("quality", [0.0, 0.1, 0.5, 0.83, 1.0])
def test_values_and_gradients_equal_the_closed_forms(quality: float, beta: float) -> None:
    logits = random_logits(50).requires_grad_()
    loss = sigmoid_quality_focal(logits, torch.full_like(logits, quality), beta=beta)
    slopes = gradient(loss.sum(), logits)
    for x, value, slope in zip(logits.tolist(), loss.tolist(), slopes.tolist(), strict=True):
        assert value == pytest.approx(loop_value(x, quality, beta), abs=1e-9)
        assert slope == pytest.approx(loop_slope(x, quality, beta), abs=1e-9)


def test_what_the_matcher_says_of_a_positive_counts_in_place_of_its_iou() -> None:
    # Score 3/4 against the matcher's 1/2, error 1/4; the box fits, its IoU would be 1.
    predictions = predict(torch.tensor([[[LN3], [-LN3]]], dtype=torch.float64))
    said = torch.tensor([[0.5, 0.0]], dtype=torch.float64)
    matches = replace(match(predictions, [[0, BACKGROUND]]), quality=said)
    loss = QualityFocalLoss(1)(predictions, matches)["class"][0, :, 0]
    expected = [-(0.25**2) * 0.5 * (math.log(0.75) + math.log(0.25)), -(0.25**2) * math.log(0.75)]
    assert loss.tolist() == pytest.approx(expected, rel=1e-12)


def test_a_positive_is_to_say_the_iou_of_its_predicted_box() -> None:
    # Anchor and predicted box are the left half of the object: IoU 1/2. Score 3/4, error 1/4.
    predictions = predict(torch.tensor([[[LN3, -LN3]]], dtype=torch.float64))
    matches = match(predictions, [[0]], boxes={(0, 0): (0.0, 0.0, 64.0, 32.0)})
    loss = QualityFocalLoss(2)(predictions, matches)["class"][0, 0]
    soft = -(0.5 * math.log(3 / 4) + 0.5 * math.log(1 / 4))
    expected = [soft / 16, -math.log(3 / 4) / 16]
    assert loss.tolist() == pytest.approx(expected, rel=1e-9)


def test_the_target_follows_the_current_box_and_does_not_pull_on_it() -> None:
    # Shifted by half its width and twice as wide, the box is the object: the target is 1.
    deltas = torch.tensor([[[0.5, 0.0, math.log(2), 0.0]]], dtype=torch.float64)
    predictions = predict(torch.tensor([[[LN3]]], dtype=torch.float64), deltas=deltas)
    matches = match(predictions, [[0]], boxes={(0, 0): (0.0, 0.0, 64.0, 32.0)})
    loss = QualityFocalLoss(1)(predictions, matches)["class"].sum()
    assert loss.item() == pytest.approx(-math.log(3 / 4) / 16, rel=1e-9)
    (pull,) = torch.autograd.grad(loss, predictions.deltas, allow_unused=True)
    assert pull is None


def test_with_boxes_that_fit_beta_2_is_focal_loss_of_gamma_2_without_alpha() -> None:
    predictions = predict(random_logits(2, 4, 3))
    matches = match(predictions, LABELS)
    ours = QualityFocalLoss(3)(predictions, matches)["class"]
    focal = FocalLoss(3, alpha=None, gamma=2.0)(predictions, matches)["class"]
    # float64: 1 - p is subtracted here and a sigmoid there.
    torch.testing.assert_close(ours, focal, rtol=1e-9, atol=1e-14)


def test_with_boxes_that_fit_beta_0_is_cross_entropy() -> None:
    predictions = predict(random_logits(2, 4, 3))
    matches = match(predictions, LABELS)
    ours = QualityFocalLoss(3, beta=0.0)(predictions, matches)["class"]
    torch.testing.assert_close(
        ours, CrossEntropyLoss(3)(predictions, matches)["class"], rtol=1e-12, atol=0
    )


@pytest.mark.parametrize(
    ("prior", "yes", "no"), [(0.5, 0.17, 13862.8), (0.01, 4.5135, 0.0804), (1e-5, 11.5, 0.0)]
)
def test_it_begins_where_the_prior_puts_it(prior: float, yes: float, no: float) -> None:
    # 1,000 anchors for a positive whose box fits, 80 classes: a CE of -log p times (1 - p)^2.
    loss = QualityFocalLoss(80)
    predictions = predict(loss.layout.initial_bias(prior).double().expand(1, 1000, -1))
    matches = match(predictions, [[7] + [BACKGROUND] * 999])
    values, truth = loss(predictions, matches)["class"], matches.one_hot(80)
    # The figures have two digits or two decimals.
    assert values[truth].sum().item() == pytest.approx(yes, abs=0.02)
    assert values[~truth].sum().item() == pytest.approx(no, rel=1e-5, abs=0.006)


@given(x=st.floats(-30, 30), quality=st.floats(0, 1), beta=st.just(0.0) | st.floats(1, 5))
def test_the_gradient_always_pulls_the_score_towards_the_quality(
    x: float, quality: float, beta: float
) -> None:
    logits = torch.tensor([x], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([quality], dtype=torch.float64)
    loss = sigmoid_quality_focal(logits, target, beta=beta)
    slope = gradient(loss.sum(), logits).item()
    error = (logits.sigmoid() - target).item()
    assert loss.item() >= 0
    assert slope * error >= 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("magnitude", [40.0, 200.0])
def test_extreme_logits_keep_value_and_gradient_finite(
    dtype: torch.dtype, beta: float, magnitude: float
) -> None:
    # In the first anchor the error is exactly 0 in float32, where the power has no slope for beta
    # 0.5 and autograd would make infinity times 0.
    logits = torch.tensor([[[magnitude, -magnitude], [-magnitude, magnitude]]], dtype=dtype)
    predictions = predict(logits)
    matches = match(predictions, [[0, BACKGROUND]])
    loss = QualityFocalLoss(2, beta=beta)(predictions, matches)["class"]
    assert torch.isfinite(loss).all()
    assert torch.isfinite(gradient(loss.sum(), predictions.logits)).all()
    assert loss[0, 1, 1].item() == pytest.approx(magnitude, rel=1e-6)


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0, 3.5])
@pytest.mark.parametrize("posterior", [0.02, 0.3, 0.5, 0.9])
def test_the_link_turns_the_best_score_back_into_the_posterior(
    posterior: float, beta: float
) -> None:
    def expected(x: float) -> float:
        yes, no = loop_value(x, 1.0, beta), loop_value(x, 0.0, beta)
        return posterior * yes + (1 - posterior) * no

    best = minimize_scalar(expected, bounds=(-12, 12), method="bounded", options={"xatol": 1e-10})
    score = 1 / (1 + torch.tensor(-best.x, dtype=torch.float64).exp())
    # A minimum is flat: its place is found to the root of float64's precision.
    assert QualityFocalLoss(1, beta=beta).link_inverse(score).item() == pytest.approx(
        posterior, abs=1e-6
    )


def test_the_link_rises_from_0_to_1() -> None:
    scores = torch.linspace(0, 1, 201, dtype=torch.float64)
    posteriors = QualityFocalLoss(1).link_inverse(scores)
    assert posteriors[[0, 100, 200]].tolist() == pytest.approx([0.0, 0.5, 1.0], abs=1e-12)
    assert bool((posteriors.diff() > 0).all())


def test_a_neutral_anchor_has_neither_value_nor_gradient() -> None:
    predictions = predict(torch.full((1, 2, 3), 9.0))
    loss = QualityFocalLoss(3)(predictions, match(predictions, [[IGNORE, BACKGROUND]]))["class"]
    slopes = gradient(loss.sum(), predictions.logits)
    assert not loss[0, 0].any()
    assert not slopes[0, 0].any()
    assert slopes[0, 1].all()


def test_a_negative_beta_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^loss\.beta: -1\.0 given, at least 0 is needed$"):
        LOSSES.build(Plug("quality_focal", {"beta": -1.0}), 3)
