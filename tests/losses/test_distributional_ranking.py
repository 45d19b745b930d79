"""Distributional ranking: worked by hand, and its gradient in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from detector.config.registry import LOSSES
from detector.config.schema import Plug
from detector.errors import ConfigError
from detector.losses.distributional_ranking import DistributionalRankingLoss, hard_mean
from detector.structures import BACKGROUND, IGNORE
from tests.by_hand import gradient, match, predict, random_logits

LABELS = [[0, BACKGROUND, IGNORE, 2], [BACKGROUND, 1, 1, BACKGROUND]]
NEGATIVE_LAMBDA = 0.0798236


def probabilities(*p: float) -> Tensor:
    """(1, A, 1) logits of these probabilities of the only class."""
    return torch.tensor(p, dtype=torch.float64).logit()[None, :, None]


def logistic(gap: float) -> float:
    """4 / 6 log(1 + exp(6 (gap + 1/2)))."""
    return 4 / 6 * math.log(1 + math.exp(6 * (gap + 0.5)))


def loop_mean(scores: list[float], pull: float) -> tuple[float, list[float]]:
    """Mean of scores weighted by softmax(pull x score), and its slope for each score."""
    weights = [math.exp(pull * p) for p in scores]
    total = sum(weights)
    mean = sum(w * p for w, p in zip(weights, scores, strict=True)) / total
    slopes = [w / total * (1 + pull * (p - mean)) for w, p in zip(weights, scores, strict=True)]
    return mean, slopes


def test_the_default_weighs_scores_a_tenth_apart_as_1_to_3_and_a_half() -> None:
    assert math.exp(0.1 / NEGATIVE_LAMBDA) == pytest.approx(3.5, rel=1e-5)
    assert DistributionalRankingLoss(1).negative_lambda == NEGATIVE_LAMBDA


def test_two_positives_against_two_negatives_by_hand() -> None:
    predictions = predict(probabilities(0.8, 0.6, 0.3, 0.2, 0.99))
    matches = match(predictions, [[0, 0, BACKGROUND, BACKGROUND, IGNORE]])
    # Positives weigh 1 to e^0.2 in favour of the lower, negatives 3.5 to 1 of the higher.
    objects = (0.8 + math.exp(0.2) * 0.6) / (1 + math.exp(0.2))
    background = (3.5 * 0.3 + 0.2) / 4.5
    loss = DistributionalRankingLoss(1)(predictions, matches)["class"]
    # negative_lambda has six digits.
    assert loss.tolist() == pytest.approx([logistic(background - objects)], rel=1e-5)


def test_values_and_gradients_equal_a_loop_over_all_entries_of_an_image() -> None:
    predictions = predict(random_logits(2, 4, 3))
    loss = DistributionalRankingLoss(3)(predictions, match(predictions, LABELS))["class"]
    slopes = gradient(loss.sum(), predictions.logits)
    assert loss.shape == (2,)
    for i in range(2):
        p = predictions.logits[i].sigmoid().tolist()
        counted = [(a, k) for a in range(4) for k in range(3) if LABELS[i][a] != IGNORE]
        yes = [(a, k) for a, k in counted if LABELS[i][a] == k]
        no = [(a, k) for a, k in counted if LABELS[i][a] != k]
        objects, up = loop_mean([p[a][k] for a, k in yes], -1.0)
        background, down = loop_mean([p[a][k] for a, k in no], 1 / NEGATIVE_LAMBDA)
        assert loss[i].item() == pytest.approx(logistic(background - objects), abs=1e-9)
        outer = 4 / (1 + math.exp(-6 * (background - objects + 0.5)))
        expected = torch.zeros(4, 3, dtype=torch.float64)
        for (a, k), slope in zip(yes, up, strict=True):
            expected[a, k] = -outer * slope * p[a][k] * (1 - p[a][k])
        for (a, k), slope in zip(no, down, strict=True):
            expected[a, k] = outer * slope * p[a][k] * (1 - p[a][k])
        torch.testing.assert_close(slopes[i], expected, rtol=0, atol=1e-9)


def test_without_objects_the_background_is_ranked_against_1() -> None:
    predictions = predict(probabilities(0.3, 0.3, 0.99))
    matches = match(predictions, [[BACKGROUND, BACKGROUND, IGNORE]])
    loss = DistributionalRankingLoss(1)(predictions, matches)["class"]
    assert loss.tolist() == pytest.approx([logistic(0.3 - 1)], rel=1e-9)
    assert bool((gradient(loss.sum(), predictions.logits)[0, :2] > 0).all())


def test_without_background_the_objects_are_ranked_against_0() -> None:
    predictions = predict(probabilities(0.3, 0.3))
    loss = DistributionalRankingLoss(1)(predictions, match(predictions, [[0, 0]]))["class"]
    assert loss.tolist() == pytest.approx([logistic(-0.3)], rel=1e-9)


def test_where_nothing_counts_the_gradient_is_0() -> None:
    predictions = predict(random_logits(1, 2, 3))
    loss = DistributionalRankingLoss(3)(predictions, match(predictions, [[IGNORE, IGNORE]]))
    assert loss["class"].item() == pytest.approx(logistic(-1), rel=1e-9)
    assert not gradient(loss["class"].sum(), predictions.logits).any()


def test_it_begins_alike_whatever_the_number_of_anchors() -> None:
    # A thousand anchors to a positive weigh no more than one: the reason why no prior is needed.
    for num in (2, 1000):
        predictions = predict(torch.zeros(1, num, 80, dtype=torch.float64))
        matches = match(predictions, [[7] + [BACKGROUND] * (num - 1)])
        loss = DistributionalRankingLoss(80)(predictions, matches)["class"]
        assert loss.tolist() == pytest.approx([logistic(0.0)], rel=1e-9)


def test_images_and_the_order_of_their_anchors_do_not_mix() -> None:
    predictions = predict(random_logits(2, 4, 3))
    loss = DistributionalRankingLoss(3)
    whole = loss(predictions, match(predictions, LABELS))["class"]
    order = [2, 0, 3, 1]
    for i in range(2):
        part = predict(predictions.logits[i : i + 1, order])
        alone = loss(part, match(part, [[LABELS[i][j] for j in order]]))["class"]
        # Sums in another order: float64 rounding only.
        torch.testing.assert_close(alone, whole[i : i + 1], rtol=1e-12, atol=0)


@given(scores=st.lists(st.floats(0, 1), min_size=1, max_size=20), pull=st.floats(-100, 100))
def test_the_weighted_mean_leans_to_its_side_and_stays_among_the_scores(
    scores: list[float], pull: float
) -> None:
    table = torch.tensor([scores], dtype=torch.float64)
    mean = hard_mean(table, torch.ones_like(table, dtype=torch.bool), pull).item()
    plain, rounding = sum(scores) / len(scores), 1e-12
    assert min(scores) - rounding <= mean <= max(scores) + rounding
    assert (mean - plain) * pull >= -rounding * (1 + abs(pull))


def test_a_score_has_no_posterior() -> None:
    assert DistributionalRankingLoss(3).link_inverse(torch.rand(5)) is None


@pytest.mark.parametrize("option", ["positive_lambda", "negative_lambda", "smoothness"])
def test_options_that_divide_have_to_be_above_0(option: str) -> None:
    with pytest.raises(ConfigError, match=rf"^loss\.{option}: 0\.0 given, above 0 is needed$"):
        LOSSES.build(Plug("distributional_ranking", {option: 0.0}), 3)


def test_a_negative_tau_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^loss\.tau: -1\.0 given, at least 0 is needed$"):
        LOSSES.build(Plug("distributional_ranking", {"tau": -1.0}), 3)
