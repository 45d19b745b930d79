"""LRP and its components by hand, and the thresholds that make it least."""

from __future__ import annotations

import numpy as np
import pytest

from detector.analysis import bootstrap, lrp
from detector.analysis.matching import match, outcomes
from detector.analysis.packing import pack
from detector.analysis.sweeps import sweep
from tests.analysis.made import make_outcomes, random_outcomes
from tests.evaluation.cases import make_truth, random_case

# By falling score: right at IoU 0.75, wrong, right at IoU 0.5; three objects, so one is missed.
FOUND = make_outcomes([0.7, 0.9, 0.8], [0.5, 0.75, 0.0], missed=[(0, 0)])


def test_sums_at_every_threshold_are_those_of_the_detections_kept() -> None:
    sums = sweep(FOUND, 0)
    assert sums.thresholds.tolist() == [np.inf, 0.9, 0.8, 0.7]
    assert sums.right.tolist() == [0, 1, 1, 2]
    assert sums.wrong.tolist() == [0, 0, 1, 1]
    assert sums.distance.tolist() == [0, 0.25, 0.25, 0.75]
    assert sums.missed.tolist() == [3, 2, 2, 1]


def test_equal_scores_are_kept_together() -> None:
    sums = sweep(make_outcomes([0.5, 0.5, 0.2], [1.0, 0.0, 0.0]), 0)
    assert sums.thresholds.tolist() == [np.inf, 0.5, 0.2]
    assert (sums.right.tolist(), sums.wrong.tolist()) == ([0, 1, 1], [0, 1, 2])


def test_the_error_at_every_threshold_by_hand() -> None:
    # Nothing: 3 / 3. 0.9: (0.5 + 2) / 3. 0.8: (0.5 + 1 + 2) / 4. 0.7: (0.5 + 1 + 1 + 1) / 4.
    values = lrp.errors(sweep(FOUND, 0), 0.5)
    assert values == pytest.approx([1, 2.5 / 3, 3.5 / 4, 3.5 / 4], abs=1e-15)


def test_the_optimum_and_its_components_by_hand() -> None:
    assert lrp.optimal(FOUND) == [
        lrp.LRP(pytest.approx(2.5 / 3), 0.25, 0.0, pytest.approx(2 / 3), 0.9)
    ]
    assert lrp.at_thresholds(FOUND, [0.75]) == [
        lrp.LRP(3.5 / 4, 0.25, 0.5, pytest.approx(2 / 3), 0.8)
    ]
    assert lrp.at_thresholds(FOUND, [None]) == [lrp.LRP(1.0, None, None, 1.0, None)]


def test_components_make_up_the_error() -> None:
    """Oksuz et al. 2021, equation 5: the weighted sum of the three is the error."""
    for k, value in enumerate(lrp.optimal(random_outcomes(1))):
        sums = sweep(random_outcomes(1), k)
        place = int(np.flatnonzero(sums.thresholds == value.threshold)[0])
        right, wrong, missed = sums.right[place], sums.wrong[place], sums.missed[place]
        assert value.localisation is not None
        assert value.false_positives is not None
        assert value.false_negatives is not None
        weighted = (
            right * value.localisation / 0.5
            + (right + wrong) * value.false_positives
            + sums.num_objects * value.false_negatives
        )
        assert value.value == pytest.approx(weighted / (right + wrong + missed), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_the_optimum_is_the_least_of_matching_anew_at_every_score(seed: int) -> None:
    truth, rows = random_case(seed, [1, 2, 5])
    packed = pack(truth, rows)
    best = lrp.optimal(outcomes(packed, match(packed, [0.5])))
    for k, category in enumerate((1, 2)):
        values = {}
        for limit in sorted({row["score"] for row in rows}):
            kept = [r for r in rows if r["score"] >= limit and r["category_id"] == category]
            part = pack(truth, kept)
            found = outcomes(part, match(part, [0.5]))
            objects = int(found.count_objects()[k])
            right, wrong = int(found.hits.sum()), int((~found.hits).sum())
            cost = sum((1 - iou) / 0.5 for iou in found.ious if iou > 0)
            values[limit] = (cost + wrong + objects - right) / (wrong + objects)
        least = min(values.values())
        assert best[k].value == pytest.approx(least, abs=1e-12)
        assert values[best[k].threshold] == pytest.approx(least, abs=1e-12)
    assert best[2].value is None


def test_of_equal_errors_that_which_keeps_the_fewest_is_taken() -> None:
    assert lrp.optimal(make_outcomes([0.9], [0.0], missed=[(0, 0)]))[0].threshold is None
    # Both keep one right of one object at IoU 1, the lower one with nothing added.
    assert lrp.optimal(make_outcomes([0.9], [1.0]))[0] == lrp.LRP(0.0, 0.0, 0.0, 0.0, 0.9)


def test_means_are_over_the_classes_that_have_objects() -> None:
    found = make_outcomes([0.9, 0.8], [0.8, 0.0], labels=[0, 1], missed=[(0, 2)], num_classes=4)
    values = lrp.optimal(found)
    assert [value.value for value in values] == [pytest.approx(0.4), None, 1.0, None]
    assert lrp.summary(values) == {
        "value": pytest.approx(0.7),
        "localisation": pytest.approx(0.2),
        "false_positives": 0.0,
        "false_negatives": 0.5,
        "classes": 2,
    }
    assert lrp.summary(values[1:2])["value"] is None


@pytest.mark.parametrize("seed", range(3))
def test_the_statistic_of_the_bootstrap_is_the_mean_at_these_thresholds(seed: int) -> None:
    found = random_outcomes(seed)
    thresholds = [0.5, None, 0.2]
    expected = lrp.summary(lrp.at_thresholds(found, thresholds))["value"]
    assert lrp.statistic(found, thresholds).of_all() == pytest.approx(expected, abs=1e-12)
    span = bootstrap.intervals(
        {"": lrp.statistic(found, thresholds)}, found.num_images, draws=200, seed=0
    )[""]
    assert span.low is not None
    assert span.high is not None
    assert span.low < expected < span.high


def test_a_class_without_objects_adds_nothing_to_the_statistic() -> None:
    found = make_outcomes([0.9, 0.8], [0.8, 0.0], labels=[0, 1], num_classes=2)
    assert lrp.statistic(found, [0.1, 0.1]).of_all() == pytest.approx(0.4)
    packed = pack(make_truth({1: []}, [1]), [])
    empty = outcomes(packed, match(packed, [0.5]))
    assert lrp.statistic(empty, [None]).of_all() is None
