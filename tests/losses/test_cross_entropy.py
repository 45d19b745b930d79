"""Sigmoid cross entropy: values and gradients against plain Python."""

from __future__ import annotations

import math

import pytest
import torch

from detector.layouts import Sigmoid
from detector.losses.cross_entropy import CrossEntropyLoss, sigmoid_cross_entropy
from detector.structures import BACKGROUND, IGNORE
from tests.by_hand import gradient, match, predict, random_logits

LABELS = [[0, BACKGROUND, IGNORE, 2], [BACKGROUND, 1, 1, BACKGROUND]]


def test_a_positive_costs_its_own_class_and_all_the_others() -> None:
    # sigmoid(ln 3) = 3/4, sigmoid(0) = 1/2, sigmoid(-ln 3) = 1/4.
    logits = torch.tensor([[[math.log(3), 0.0, -math.log(3)]]], dtype=torch.float64)
    predictions = predict(logits)
    loss = CrossEntropyLoss(3)(predictions, match(predictions, [[0]]))["class"]
    expected = [math.log(4 / 3), math.log(2), math.log(4 / 3)]
    assert loss[0, 0].tolist() == pytest.approx(expected, rel=1e-12)


def test_values_equal_a_loop_over_anchors_and_classes() -> None:
    predictions = predict(random_logits(2, 4, 3))
    loss = CrossEntropyLoss(3)(predictions, match(predictions, LABELS))["class"]
    for i, a, k in torch.cartesian_prod(torch.arange(2), torch.arange(4), torch.arange(3)).tolist():
        p = 1 / (1 + math.exp(-predictions.logits[i, a, k].item()))
        expected = -math.log(p if LABELS[i][a] == k else 1 - p)
        if LABELS[i][a] == IGNORE:
            expected = 0.0
        assert loss[i, a, k].item() == pytest.approx(expected, abs=1e-9)


def test_the_gradient_is_probability_minus_truth() -> None:
    predictions = predict(random_logits(2, 4, 3))
    matches = match(predictions, LABELS)
    total = CrossEntropyLoss(3)(predictions, matches)["class"].sum()
    expected = predictions.logits.sigmoid() - matches.one_hot(3).double()
    expected[0, 2] = 0  # neutral
    torch.testing.assert_close(
        gradient(total, predictions.logits), expected.detach(), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_grows_linearly_where_the_answer_is_confidently_wrong(dtype: torch.dtype) -> None:
    logits = torch.tensor([-200.0, 200.0], dtype=dtype)
    truth = torch.tensor([True, False])
    assert sigmoid_cross_entropy(logits, truth).tolist() == [200.0, 200.0]
    assert sigmoid_cross_entropy(logits, ~truth).tolist() == pytest.approx([0.0, 0.0], abs=1e-80)


def test_its_outputs_are_sigmoids_and_it_is_counted_by_positives() -> None:
    assert CrossEntropyLoss.layout_class is Sigmoid
    assert CrossEntropyLoss.normalizer == "positives"
