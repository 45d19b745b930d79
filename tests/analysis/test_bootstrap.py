"""Intervals by drawing images: equal to drawing them one by one, and as wide as theory says."""

from __future__ import annotations

import numpy as np
import pytest

from detector.analysis import bootstrap
from detector.analysis.bootstrap import Statistic, intervals, per_image, weights
from detector.analysis.calibration import MEASURES
from detector.analysis.matching import Outcomes
from tests.analysis.made import make_outcomes, random_outcomes


def drawn_again(found: Outcomes, counts: np.ndarray) -> Outcomes:
    """The detections of image i, counts[i] times."""
    times = np.repeat(np.arange(len(found)), counts[found.images].astype(int))
    return make_outcomes(
        found.scores[times].tolist(),
        found.ious[times].tolist(),
        labels=found.labels[times].tolist(),
        num_classes=len(found.classes),
    )


@pytest.mark.parametrize("name", [m.name for m in MEASURES if m.name != "D-ECE equal mass"])
def test_a_draw_equals_the_measure_of_the_images_drawn(name: str) -> None:
    found = random_outcomes(0)
    statistic = next(m for m in MEASURES if m.name == name).statistic
    mine = statistic(found)
    for drawn in weights(found.num_images, 5, seed=0):
        values = mine.value(np.asarray(drawn @ mine.sums))
        expected = [statistic(drawn_again(found, counts)).of_all() for counts in drawn]
        assert values == pytest.approx(expected, abs=1e-12)


def mean_of(values: np.ndarray) -> Statistic:
    """The mean of values (I,), one an image."""
    number = len(values)
    images = np.tile(np.arange(number), 2)
    columns = np.repeat([0, 1], number)
    sums = per_image(images, columns, np.concatenate([values, np.ones(number)]), (number, 2))
    return Statistic(sums, lambda drawn: drawn[:, 0] / drawn[:, 1])


def test_the_interval_of_a_mean_is_as_wide_as_the_central_limit_says() -> None:
    values = np.random.default_rng(0).normal(10, 2, 400)
    span = intervals({"": mean_of(values)}, 400, draws=4000, seed=0)[""]
    half = 1.96 * values.std() / 20
    assert span.low is not None
    assert span.high is not None
    # The quantiles of 4,000 draws scatter by about 3 %.
    assert values.mean() - span.low == pytest.approx(half, rel=0.1)
    assert span.high - values.mean() == pytest.approx(half, rel=0.1)
    assert span.floor is None


def test_detections_of_an_image_are_drawn_together() -> None:
    """Nine copies of each detection in its image tell no more than one."""
    rng = np.random.default_rng(1)
    scores, images = rng.random(100), np.arange(100)
    ious = np.where(rng.random(100) < 0.5, 0.8, 0.0)
    spans = []
    for copies in (1, 9):
        found = make_outcomes(
            np.repeat(scores, copies).tolist(),
            np.repeat(ious, copies).tolist(),
            images=np.repeat(images, copies).tolist(),
            num_images=100,
        )
        statistics = {m.name: m.statistic(found) for m in MEASURES}
        spans.append(intervals(statistics, 100, draws=100, seed=0))
    for name in ("D-ECE", "Brier", "LaECE_0"):
        one, nine = ([s[name].low, s[name].high] for s in spans)
        assert one == pytest.approx(nine, abs=1e-12)


def test_draws_are_those_of_the_seed_and_whole_sets_of_images() -> None:
    first, again = (np.concatenate(list(weights(7, 120, seed=3))) for _ in range(2))
    assert np.array_equal(first, again)
    assert first.shape == (120, 7)
    assert first.sum(axis=1).tolist() == [7] * 120
    assert not np.array_equal(first, np.concatenate(list(weights(7, 120, seed=4))))


def test_without_draws_or_images_there_is_no_interval() -> None:
    statistic = mean_of(np.arange(3.0))
    assert intervals({"a": statistic}, 3, draws=0, seed=0) == {"a": bootstrap.Interval()}
    assert intervals({"a": statistic}, 0, draws=5, seed=0) == {"a": bootstrap.Interval()}


def test_noise_has_a_floor_and_an_interval_from_zero_where_it_explains_the_value() -> None:
    """A sum of two absolute values of means whose truth is 0, and one whose truth is not."""
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, (400, 2))
    spans = {}
    for name, shift in (("calibrated", 0.0), ("not", 1.0)):
        shifted = values + shift
        sums = per_image(
            np.repeat(np.arange(400), 2), np.tile([0, 1], 400), shifted.ravel(), (400, 2)
        )
        statistic = Statistic(
            sums,
            lambda drawn: np.abs(drawn / 400).sum(axis=1),
            lambda drawn, total: np.abs((drawn - total) / 400).sum(axis=1),
        )
        spans[name] = intervals({"": statistic}, 400, draws=2000, seed=0)[""]
    # Of |a| + |b|, a and b normal with deviation 1 / 20, 95 % lie below 3.16 / 20: the area of a
    # square with corners at c is erf(c / 2)^2.
    assert spans["calibrated"].floor == pytest.approx(3.16 / 20, rel=0.1)
    assert spans["calibrated"].low == 0
    low, high = spans["not"].low, spans["not"].high
    assert low is not None
    assert high is not None
    assert 1.8 < low < 2 < high < 2.2
