"""Equalized focal loss: closed forms in plain Python, and the balance it keeps of each class."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from detector.config.registry import LOSSES
from detector.config.schema import Plug
from detector.errors import ConfigError
from detector.losses.equalized_focal import (
    EqualizedFocalLoss,
    equalized_focal_slope,
    sigmoid_equalized_focal,
)
from detector.losses.focal import FocalLoss
from detector.structures import BACKGROUND, IGNORE
from tests.by_hand import gradient, match, predict, random_logits

LABELS = [[0, BACKGROUND, IGNORE, 2], [BACKGROUND, 1, 1, BACKGROUND]]


def unbalanced() -> EqualizedFocalLoss:
    """Of three classes with g 1, 1/2 and 0, so with gammas 2, 6 and 10."""
    loss = EqualizedFocalLoss(3)
    loss.positive_gradient = torch.tensor([3.0, 1.0, 0.0], dtype=torch.float64)
    loss.negative_gradient = torch.tensor([2.0, 2.0, 5.0], dtype=torch.float64)
    return loss


def loop(x: float, truth: bool, gamma: float) -> tuple[float, float]:
    """Value and slope of -alpha_t (gamma_j / 2) (1 - p_t)^gamma_j log p_t for alpha 0.25."""
    p = 1 / (1 + math.exp(-x))
    p_t, sign, alpha = (p, 1, 0.25) if truth else (1 - p, -1, 0.75)
    factor = alpha * gamma / 2 * (1 - p_t) ** gamma
    return -factor * math.log(p_t), sign * factor * (gamma * p_t * math.log(p_t) + p_t - 1)


def test_a_class_in_balance_has_the_base_gamma_and_one_of_only_no_all_of_the_scale() -> None:
    assert unbalanced().balance().tolist() == [1.0, 0.5, 0.0]  # 3/2 is cut to 1
    assert unbalanced().gammas().tolist() == [2.0, 6.0, 10.0]


def test_values_and_gradients_equal_the_closed_forms() -> None:
    predictions = predict(random_logits(2, 4, 3))
    values = unbalanced()(predictions, match(predictions, LABELS))["class"]
    slopes = gradient(values.sum(), predictions.logits)
    for i, a, k in torch.cartesian_prod(torch.arange(2), torch.arange(4), torch.arange(3)).tolist():
        value, slope = loop(predictions.logits[i, a, k].item(), LABELS[i][a] == k, 2.0 + 4 * k)
        if LABELS[i][a] == IGNORE:
            value, slope = 0.0, 0.0
        assert values[i, a, k].item() == pytest.approx(value, abs=1e-9)
        assert slopes[i, a, k].item() == pytest.approx(slope, abs=1e-9)


def test_before_anything_is_known_it_is_focal_loss() -> None:
    predictions = predict(random_logits(2, 4, 3))
    matches = match(predictions, LABELS)
    # The exponent is a tensor here and a number there: rounding only.
    torch.testing.assert_close(
        EqualizedFocalLoss(3)(predictions, matches)["class"],
        FocalLoss(3)(predictions, matches)["class"],
        rtol=1e-12,
        atol=1e-15,
    )


def test_the_closed_slope_is_what_autograd_finds() -> None:
    logits = random_logits(40, 3).requires_grad_()
    truth = random_logits(40, 3, seed=1) > 1
    gammas = torch.tensor([2.0, 6.0, 10.0], dtype=torch.float64)
    loss = sigmoid_equalized_focal(logits, truth, gammas, alpha=0.25, gamma=2.0)
    closed = equalized_focal_slope(logits, truth, gammas, alpha=0.25, gamma=2.0)
    torch.testing.assert_close(gradient(loss.sum(), logits).abs(), closed, rtol=0, atol=1e-9)


@pytest.mark.parametrize("magnitude", [40.0, 200.0])
def test_the_closed_slope_is_finite_at_the_extremes(magnitude: float) -> None:
    logits = torch.tensor([-magnitude, magnitude])
    for truth in (torch.tensor([True, True]), torch.tensor([False, False])):
        slope = equalized_focal_slope(logits, truth, torch.tensor(10.0), alpha=0.5, gamma=2.0)
        wrong = 0 if truth[0] else 1
        assert slope[wrong].item() == pytest.approx(0.5 * 5, rel=1e-6)
        assert slope[1 - wrong].item() == pytest.approx(0, abs=1e-9)


def test_one_yes_and_one_no_at_one_half_give_a_balance_of_one_third() -> None:
    # Their slopes are alike but for alpha: 0.25 to 0.75. So gamma is 2 + 8 x 2/3.
    loss = EqualizedFocalLoss(1)
    predictions = predict(torch.zeros(1, 2, 1, dtype=torch.float64))
    sums = loss.statistics(predictions, match(predictions, [[0, BACKGROUND]]))
    slope = 0.25 * (0.5 + math.log(2))  # (1/2)^2 (1/2 + 2 x 1/2 x log 2)
    assert sums["positive_gradient"].tolist() == pytest.approx([0.25 * slope], rel=1e-9)
    assert sums["negative_gradient"].tolist() == pytest.approx([0.75 * slope], rel=1e-9)
    loss.update(sums)
    assert loss.balance().tolist() == pytest.approx([1 / 3], rel=1e-9)
    assert loss.gammas().tolist() == pytest.approx([22 / 3], rel=1e-9)


def test_statistics_are_the_sums_of_the_gradients_of_the_present_loss() -> None:
    predictions = predict(random_logits(2, 4, 3))
    matches = match(predictions, LABELS)
    loss = unbalanced()
    slopes = gradient(loss(predictions, matches)["class"].sum(), predictions.logits).abs()
    truth = matches.one_hot(3)
    sums = loss.statistics(predictions, matches)
    expected = {
        "positive_gradient": torch.where(truth, slopes, 0).sum((0, 1)),
        "negative_gradient": torch.where(truth, 0, slopes).sum((0, 1)),
        "positives": torch.tensor(4.0, dtype=torch.float64),
    }
    torch.testing.assert_close(sums, expected, rtol=1e-9, atol=1e-12)


def test_each_step_adds_its_gradients_over_its_positives_to_those_of_all_before() -> None:
    # A step of 4 positives and one of 1: without the division the larger step would rule.
    loss = EqualizedFocalLoss(2)
    for positives, yes in ((4.0, [8.0, 0.0]), (1.0, [1.0, 3.0])):
        loss.update(
            {
                "positive_gradient": torch.tensor(yes, dtype=torch.float64),
                "negative_gradient": torch.tensor([4.0, 6.0], dtype=torch.float64) * positives,
                "positives": torch.tensor(positives, dtype=torch.float64),
            }
        )
    assert loss.positive_gradient.tolist() == [3.0, 3.0]
    assert loss.negative_gradient.tolist() == [8.0, 12.0]
    assert loss.balance().tolist() == [0.375, 0.25]


def test_a_step_without_objects_counts_as_one_with_one_positive() -> None:
    loss = EqualizedFocalLoss(1)
    predictions = predict(torch.zeros(1, 1, 1, dtype=torch.float64))
    loss.update(loss.statistics(predictions, match(predictions, [[BACKGROUND]])))
    expected = 0.75 * 0.25 * (0.5 + math.log(2))
    assert loss.negative_gradient.tolist() == pytest.approx([expected], rel=1e-9)
    assert loss.balance().tolist() == [0.0]


def test_splitting_a_step_changes_neither_the_loss_nor_what_is_learnt() -> None:
    logits = random_logits(2, 4, 3)
    whole, parts = unbalanced(), unbalanced()
    predictions = predict(logits)
    halves = [predict(logits[i : i + 1]) for i in range(2)]
    sums: dict[str, Tensor] = {}
    for half, row in zip(halves, LABELS, strict=True):
        for name, value in parts.statistics(half, match(half, [row])).items():
            sums[name] = sums.get(name, 0) + value
    parts.update(sums)
    whole.update(whole.statistics(predictions, match(predictions, LABELS)))
    # float64 sums in another order.
    torch.testing.assert_close(parts.gammas(), whole.gammas(), rtol=1e-12, atol=0)


def test_given_its_balance_it_is_a_sum_over_anchors() -> None:
    predictions = predict(random_logits(2, 4, 3))
    order = [2, 0, 3, 1]
    moved = predict(predictions.logits[:, order])
    values = unbalanced()(predictions, match(predictions, LABELS))["class"]
    labels = [[row[i] for i in order] for row in LABELS]
    assert torch.equal(unbalanced()(moved, match(moved, labels))["class"], values[:, order])


def test_a_saved_state_goes_on_to_the_bit() -> None:
    resumed = EqualizedFocalLoss(3)
    resumed.load_state_dict(unbalanced().state_dict())
    assert torch.equal(resumed.gammas(), unbalanced().gammas())


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        # gamma_j / gamma has no value at 0.
        ("gamma", 0.0, "loss.gamma: 0.0 given, above 0 is needed"),
        ("alpha", 1.5, "loss.alpha: 1.5 given, 0 to 1 is allowed"),
        ("scale", -1.0, "loss.scale: -1.0 given, at least 0 is needed"),
    ],
)
def test_options_out_of_range_are_refused(option: str, value: float, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        LOSSES.build(Plug("equalized_focal", {option: value}), 3)
    assert str(error.value) == message
