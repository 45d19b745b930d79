"""The losses that rank are those of their definition, pair by pair, ties included."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from detector.config.registry import LOSSES
from detector.config.schema import Plug
from detector.losses import ranking
from detector.losses.alrp import LocalisationRecallPrecision
from detector.losses.ap import OneLessPrecision
from detector.losses.rank_sort import RankAndSort
from detector.losses.ranking import RankedTerms, RankingErrors
from tests.synthetic import make_anchors, make_matches, make_predictions, make_targets

NAMES = ["alrp", "ap", "rank_sort"]


def above(x: float, y: float, delta: float) -> float:
    """How far a logit y lies above a logit x."""
    return min(1.0, max(0.0, (y - x) / (2 * delta) + 0.5))


def by_pairs(
    name: str, positives: list[float], negatives: list[float], quality: list[float], delta: float
) -> tuple[list[float], list[float], list[float]]:
    """The error of each positive and the gradients of both kinds, as the papers define them."""
    count = range(len(positives))
    h = [[above(x, y, delta) for y in positives] for x in positives]
    to_negatives = [[above(x, y, delta) for y in negatives] for x in positives]
    values, own, others = [], [0.0] * len(positives), [0.0] * len(negatives)
    for i in count:
        wrong = sum(to_negatives[i])
        among = sum(h[i]) if name == "rank_sort" else 1 + sum(h[i][j] for j in count if j != i)
        rank = among + wrong
        error = wrong / rank
        if name == "alrp":
            cost = [2 * (1 - q) for q in quality]
            error += sum(cost[k] * h[i][k] for k in count if k != i) / rank
        sorting = 0.0
        if name == "rank_sort":
            better = [j for j in count if quality[j] >= quality[i]]
            sorting = sum(h[i][j] * (1 - quality[j]) for j in count) / sum(h[i])
            sorting -= sum(h[i][j] * (1 - quality[j]) for j in better) / sum(
                h[i][j] for j in better
            )
            worse = [j for j in count if quality[j] < quality[i]]
            among_worse = sum(h[i][j] for j in worse)
            if among_worse > 0:
                own[i] -= sorting
                for j in worse:
                    own[j] += sorting * h[i][j] / among_worse
        values.append(error + sorting)
        if wrong > 0:
            own[i] -= error
            for j in range(len(negatives)):
                others[j] += error * to_negatives[i][j] / wrong
    return values, own, others


RULES: dict[str, RankingErrors] = {
    "rank_sort": RankAndSort(),
    "ap": OneLessPrecision(),
    "alrp": LocalisationRecallPrecision(0.5),
}


def ranked(
    name: str, positives: Tensor, negatives: Tensor, quality: Tensor, delta: float
) -> tuple[Tensor, Tensor]:
    logits = torch.cat([positives, negatives]).requires_grad_()
    index = torch.arange(len(positives))
    is_negative = torch.arange(len(logits)) >= len(positives)
    values = RankedTerms.apply(logits, is_negative, index, quality, delta, RULES[name])
    assert isinstance(values, Tensor)
    values.sum().backward()
    assert logits.grad is not None
    return values.detach()[: len(positives)], logits.grad


def test_the_losses_of_six_logits_are_those_worked_out_by_hand() -> None:
    positives, negatives = (
        torch.tensor(x, dtype=torch.float64) for x in ([1, -0.5, 2], [0, -1, 0.8])
    )
    quality = torch.tensor([0.9, 0.6, 0.7], dtype=torch.float64)
    values, gradient = ranked("rank_sort", positives, negatives, quality, 0.5)
    assert values.mean() == pytest.approx(0.203704 + 0.044444, abs=1e-6)  # six digits are given
    expected = [-0.1, -0.148148, 0.044444, 0.074074, 0, 0.129630]
    assert (gradient / 3).tolist() == pytest.approx(expected, abs=1e-6)
    values, _ = ranked("ap", positives, negatives, quality, 1.0)
    assert values.mean() == pytest.approx(0.188889, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_thousand_random_cases_are_those_of_the_definition(name: str) -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    for case in range(1000):
        num_positives, num_negatives = (
            int(torch.randint(low, high, (), generator=generator))
            for low, high in ((1, 9), (0, 30))
        )
        positives, negatives = 4 * draw(num_positives) - 2, 4 * draw(num_negatives) - 2.5
        quality, delta = draw(num_positives), float(0.1 + draw(1))
        if case % 2:  # a coarse grid, so that logits, thresholds and qualities tie
            positives, negatives = ((4 * x).round() / 4 for x in (positives, negatives))
            quality, delta = (4 * quality).round() / 4, 0.5
        values, gradient = ranked(name, positives, negatives, quality, delta)
        expected = by_pairs(name, positives.tolist(), negatives.tolist(), quality.tolist(), delta)
        # Sums of 40 numbers of float64, each near 1, in another order.
        assert values.tolist() == pytest.approx(expected[0], abs=1e-12)
        assert gradient.tolist() == pytest.approx([*expected[1], *expected[2]], abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_looked_at_in_parts_it_is_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(1)
    positives, negatives, quality = (
        torch.randn(count, generator=generator, dtype=torch.float64) for count in (13, 500, 13)
    )
    quality = quality.sigmoid()
    whole = ranked(name, positives, negatives, quality, 0.5)
    monkeypatch.setattr(ranking, "MOST_PAIRS", 13 * 3)
    monkeypatch.setattr(ranking, "AT_ONCE", 64)
    parts = ranked(name, positives, negatives, quality, 0.5)
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)  # sums of 500 in another order


def test_a_positive_is_not_asked_for_more_precision_than_a_lower_one_has() -> None:
    positives = torch.tensor([0.0, 3.0, 6.0], dtype=torch.float64)
    negatives = torch.tensor([4.5, 4.5], dtype=torch.float64)
    RULES["interpolated"] = OneLessPrecision(interpolated=True)
    plain, _ = ranked("ap", positives, negatives, torch.ones(3), 0.5)
    better, _ = ranked("interpolated", positives, negatives, torch.ones(3), 0.5)
    # Precisions by rising score: 3/5, 2/4, 1; the second may keep the first's 3/5.
    assert plain.tolist() == pytest.approx([2 / 5, 2 / 4, 0.0])
    assert better.tolist() == pytest.approx([2 / 5, 2 / 5, 0.0])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_far_logits_give_numbers(name: str, dtype: torch.dtype) -> None:
    loss = LOSSES.build(Plug(name, {}), 5)
    anchors, targets = make_anchors(), make_targets([3, 0, 1], 5)
    matches = make_matches(anchors, targets)
    for scale in (0.0, 1.0, 1e4):
        predictions = make_predictions(loss.layout, anchors, 3, scale=scale, dtype=dtype)
        term = loss(predictions, matches)["class"]
        (gradient,) = torch.autograd.grad(term.sum(), predictions.logits)
        assert bool(term.isfinite().all())
        assert bool(gradient.isfinite().all())
        assert bool((gradient[~matches.valid] == 0).all())


@pytest.mark.parametrize("name", NAMES)
def test_the_gradients_of_a_case_add_up_to_nothing(name: str) -> None:
    """What a positive is raised for, others are lowered for: only the order is asked for."""
    loss = LOSSES.build(Plug(name, {}), 5)
    anchors, targets = make_anchors(dtype=torch.float64), make_targets([3, 2, 1], 5)
    matches = make_matches(anchors, targets)
    predictions = make_predictions(loss.layout, anchors, 3, dtype=torch.float64)
    term = loss(predictions, matches)["class"]
    (gradient,) = torch.autograd.grad(term.sum(), predictions.logits)
    assert float(gradient.abs().sum()) > 0
    assert float(gradient.sum()) == pytest.approx(0, abs=1e-9)  # of 900 numbers


@pytest.mark.parametrize("name", NAMES)
def test_without_objects_there_is_nothing_to_rank(name: str) -> None:
    loss = LOSSES.build(Plug(name, {}), 5)
    anchors, targets = make_anchors(), make_targets([0, 0], 5)
    predictions = make_predictions(loss.layout, anchors, 2)
    term = loss(predictions, make_matches(anchors, targets))["class"]
    (gradient,) = torch.autograd.grad(term.sum(), predictions.logits)
    assert float(term.sum()) == 0
    assert float(gradient.abs().sum()) == 0


def test_options_out_of_range_are_refused() -> None:
    for name, option in itertools.product(NAMES, ["delta"]):
        with pytest.raises(Exception, match=rf"loss\.{option}: 0.0 given, above 0 is needed"):
            LOSSES.build(Plug(name, {option: 0.0}), 5)
