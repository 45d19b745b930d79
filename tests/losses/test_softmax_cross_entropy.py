"""Softmax cross entropy over background and classes, against plain Python."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from detector.layouts import Softmax
from detector.losses.cross_entropy import sigmoid_cross_entropy
from detector.losses.softmax_cross_entropy import (
    SoftmaxCrossEntropyLoss,
    background_first,
    softmax_cross_entropy,
)
from detector.structures import BACKGROUND, IGNORE
from tests.by_hand import gradient, match, predict, random_logits

LABELS = [[0, BACKGROUND, IGNORE, 2], [BACKGROUND, 1, 1, BACKGROUND]]


def probabilities(logits: list[float]) -> list[float]:
    total = sum(math.exp(x) for x in logits)
    return [math.exp(x) / total for x in logits]


def test_of_one_two_and_five_the_background_costs_log_8_and_the_second_class_log_8_fifths() -> None:
    logits = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64).log()
    predictions = predict(logits.expand(1, 2, 3))
    loss = SoftmaxCrossEntropyLoss(2)(predictions, match(predictions, [[BACKGROUND, 1]]))["class"]
    assert loss[0].tolist() == pytest.approx([math.log(8), math.log(8 / 5)], rel=1e-12)


def test_values_and_gradients_equal_a_loop_over_anchors() -> None:
    predictions = predict(random_logits(2, 4, 4))
    loss = SoftmaxCrossEntropyLoss(3)(predictions, match(predictions, LABELS))["class"]
    slopes = gradient(loss.sum(), predictions.logits)
    for i, labels in enumerate(LABELS):
        for a, label in enumerate(labels):
            p = probabilities(predictions.logits[i, a].tolist())
            value, expected = -math.log(p[label + 1]), p.copy()
            expected[label + 1] -= 1
            if label == IGNORE:
                value, expected = 0.0, [0.0] * 4
            assert loss[i, a].item() == pytest.approx(value, abs=1e-9)
            assert slopes[i, a].tolist() == pytest.approx(expected, abs=1e-9)


def test_of_two_classes_it_is_the_sigmoid_of_their_difference() -> None:
    logits, labels = random_logits(50, 2), (random_logits(50, seed=1) > 0).long()
    plain = sigmoid_cross_entropy(logits[:, 1] - logits[:, 0], labels == 1)
    # Two ways to the same number, in float64.
    torch.testing.assert_close(softmax_cross_entropy(logits, labels), plain, rtol=0, atol=1e-12)


def test_it_is_torch_s_with_the_classes_last() -> None:
    logits, labels = random_logits(2, 5, 6, 4), random_logits(2, 5, 6).long().clamp(0, 3)
    theirs = F.cross_entropy(logits.movedim(-1, 1), labels, reduction="none")
    torch.testing.assert_close(softmax_cross_entropy(logits, labels), theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_it_grows_linearly_where_the_answer_is_confidently_wrong(dtype: torch.dtype) -> None:
    logits = torch.tensor([[200.0, -200.0]], dtype=dtype, requires_grad=True)
    loss = softmax_cross_entropy(logits, torch.tensor([1]))
    assert loss.tolist() == [400.0]
    assert gradient(loss.sum(), logits).tolist() == [[1.0, -1.0]]


def test_adding_a_number_to_all_logits_changes_nothing() -> None:
    logits, labels = random_logits(50, 4), random_logits(50).long().clamp(0, 3)
    moved = softmax_cross_entropy(logits + 7, labels)
    torch.testing.assert_close(moved, softmax_cross_entropy(logits, labels), rtol=0, atol=1e-12)


def test_background_comes_first_and_a_neutral_anchor_gets_an_index_too() -> None:
    labels = torch.tensor([IGNORE, BACKGROUND, 0, 2])
    assert background_first(labels).tolist() == [0, 0, 1, 3]
    assert SoftmaxCrossEntropyLoss.layout_class is Softmax
