"""Recall at a rate of false alarms, against a loop over every threshold."""

from __future__ import annotations

import math

import numpy as np
import pytest

from detector.analysis.false_alarms import ALL, RATES, reached, table
from detector.analysis.operating_points import choose
from detector.errors import ConfigError
from tests.analysis.made import make_outcomes, random_outcomes


def by_loop(found, rate: float, label: int | None) -> tuple[float, float | None, int]:
    """(recall, threshold, wrong) by trying each score that occurs."""
    mine = [i for i in range(len(found)) if label is None or found.labels[i] == label]
    objects = [k for k in found.object_labels if label is None or k == label]
    best: tuple[float, float | None, int] = (0.0, None, 0)
    for threshold in sorted({float(found.scores[i]) for i in mine}, reverse=True):
        kept = [i for i in mine if found.scores[i] >= threshold]
        right = sum(bool(found.hits[i]) for i in kept)
        wrong = len(kept) - right
        if wrong / found.num_images <= rate and right / len(objects) > best[0]:
            best = (right / len(objects), threshold, wrong)
    return best


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("label", [None, 0, 1])
@pytest.mark.parametrize("rate", [0.1, 0.5, 1.0, 10.0])
def test_it_is_the_best_of_all_thresholds_that_keep_to_the_rate(
    seed: int, label: int | None, rate: float
) -> None:
    found = random_outcomes(seed)
    recall, threshold, wrong = by_loop(found, rate, label)
    row = reached(found, rate, label)
    assert (row.recall, row.threshold) == (pytest.approx(recall), threshold)
    assert row.false_alarms == pytest.approx(wrong / found.num_images)


def test_images_without_objects_count_and_are_told_apart() -> None:
    """By hand: one object found at .9, a false alarm at .8 on each of two empty images of three."""
    found = make_outcomes([0.9, 0.8, 0.8, 0.7], [0.8, 0, 0, 0.6], images=[0, 1, 2, 0], num_images=3)
    few, many = reached(found, 0.5), reached(found, 1.0)
    assert (few.recall, few.threshold, few.on_empty) == (0.5, 0.9, 0.0)
    assert (many.recall, many.threshold) == (1.0, 0.7)
    assert (many.false_alarms, many.on_empty) == (pytest.approx(2 / 3), 1.0)


def test_where_every_image_has_an_object_there_is_no_rate_on_empty_ones() -> None:
    assert reached(make_outcomes([0.9], [0.8]), 1.0).on_empty is None


def test_without_detections_nothing_is_found_and_nothing_is_wrong() -> None:
    row = reached(make_outcomes([], [], missed=[(0, 0)]), 1.0)
    assert (row.recall, row.threshold, row.false_alarms) == (0.0, None, 0.0)


def test_a_class_without_objects_has_no_recall() -> None:
    found = make_outcomes([0.9], [0], num_classes=2, missed=[(0, 0)])
    assert reached(found, 1.0, 1).recall is None


def test_the_interval_is_that_of_a_binomial_where_images_have_an_object_each() -> None:
    """200 images, one object each, 60 % of them found: 1.96 sqrt(p q / n) on either side."""
    hits = np.arange(200) < 120
    found = make_outcomes(
        np.where(hits, 0.9, 0.1).tolist(), hits.astype(float).tolist(), images=range(200),
        num_images=200, missed=[(i, 0) for i in range(120, 200)],
    )  # fmt: skip
    row = reached(found, 0.1, draws=4000, seed=1)
    half = 1.96 * math.sqrt(0.6 * 0.4 / 200)
    assert row.recall == pytest.approx(0.6)
    # 5 %: an end from 4,000 draws is itself known to about 2 % of the half width; recall is a
    # multiple of 1 / 200, 7 % of it, which is the rest.
    assert row.low == pytest.approx(0.6 - half, abs=0.1 * half)
    assert row.high == pytest.approx(0.6 + half, abs=0.1 * half)


def test_the_table_has_every_class_and_all_together() -> None:
    found = random_outcomes(0)
    rows = table(found)
    assert list(rows) == [ALL, *found.classes]
    assert [row["rate"] for row in rows[ALL]] == list(RATES)


@pytest.mark.parametrize("rate", [0.2, 1.0])
def test_the_operating_point_is_the_same_threshold(rate: float) -> None:
    found = random_outcomes(2)
    points = choose(found, "fppi", rate=rate)
    for k, threshold in enumerate(points.thresholds):
        assert threshold == reached(found, rate, k).threshold


def test_a_rate_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="rate 0 given"):
        choose(random_outcomes(0), "fppi", rate=0)
