"""Measures of calibration by hand, their conventions, and the known mistakes avoided."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from detector.analysis import calibration
from detector.analysis.analysis import counted
from detector.analysis.calibration import MEASURES, bins, equal_mass, equal_width
from detector.analysis.matching import Outcomes
from detector.analysis.packing import pack
from tests.analysis.made import make_outcomes, random_outcomes
from tests.evaluation.cases import Row, Truth, make_truth, perfect, random_case


def value(name: str, found: Outcomes) -> float | None:
    definition = next(m for m in MEASURES if m.name == name)
    return definition.statistic(found).of_all()


def of_set(truth: Truth, rows: list[Row]) -> dict[str, float | None]:
    return {k: m.value for k, m in calibration.measure(counted(pack(truth, rows))).items()}


def by_loop(found: Outcomes, targets: np.ndarray, number: int, *, per_class: bool) -> float:
    """Binned error detection by detection, edges as fractions compared upwards from 0."""
    groups: dict[int, list[int]] = {}
    for i, label in enumerate(found.labels):
        groups.setdefault(int(label) if per_class else 0, []).append(i)
    errors = []
    for members in groups.values():
        gaps = [0.0] * number
        for i in members:
            place = next(b for b in range(number) if found.scores[i] <= (b + 1) / number)
            gaps[place] += float(found.scores[i]) - float(targets[i])
        errors.append(sum(map(abs, gaps)) / len(members))
    return sum(errors) / len(errors)


def test_detection_calibration_error_by_hand() -> None:
    # (.9, 1]: |1.9 - 1|; (.6, .7]: |.7 - 1|; (.5, .6]: |.6 - 0|; four detections.
    found = make_outcomes([0.95, 0.95, 0.7, 0.6], [0.8, 0.0, 0.9, 0.0])
    assert value("D-ECE", found) == pytest.approx((0.9 + 0.3 + 0.6) / 4, abs=1e-12)


def test_localisation_aware_error_by_hand() -> None:
    # Class 0, bin (.48, .52]: |1.0 - .8| / 2; class 1: (|.9 - .6| + |.1 - 0|) / 2.
    found = make_outcomes([0.5, 0.5, 0.9, 0.1], [0.8, 0.0, 0.6, 0.0], labels=[0, 0, 1, 1])
    found = make_outcomes(
        found.scores.tolist(), found.ious.tolist(), labels=[0, 0, 1, 1], num_classes=2
    )
    assert value("LaECE", found) == pytest.approx((0.1 + 0.2) / 2, abs=1e-12)
    assert value("LaECE_0", found) == pytest.approx((0.1 + 0.2) / 2, abs=1e-12)
    # Class 0: (.3 + .5) / 2; class 1: (.3 + .1) / 2.
    assert value("LaACE_0", found) == pytest.approx((0.4 + 0.2) / 2, abs=1e-12)


def test_proper_scores_by_hand() -> None:
    found = make_outcomes([0.8, 0.4], [0.5, 0.0])
    assert value("Brier", found) == pytest.approx((0.04 + 0.16) / 2, abs=1e-12)
    assert value("NLL", found) == pytest.approx(-(math.log(0.8) + math.log(0.6)) / 2, abs=1e-12)
    assert value("MSE to IoU", found) == pytest.approx((0.09 + 0.16) / 2, abs=1e-12)


def test_a_score_of_0_or_1_has_a_finite_likelihood() -> None:
    found = make_outcomes([0.0, 1.0], [0.5, 0.0])
    assert value("NLL", found) == pytest.approx(-math.log(1e-12), rel=1e-4)
    assert value("NLL", make_outcomes([1.0], [0.5])) == pytest.approx(0.0, abs=1e-11)


@pytest.mark.parametrize("seed", range(5))
def test_binned_measures_equal_a_loop_over_detections(seed: int) -> None:
    found = random_outcomes(seed)
    pooled = by_loop(found, found.hits.astype(float), 10, per_class=False)
    per_class = by_loop(found, found.ious, 25, per_class=True)
    assert value("D-ECE", found) == pytest.approx(pooled, abs=1e-12)
    assert value("LaECE", found) == pytest.approx(per_class, abs=1e-12)


def test_edges_are_the_numbers_a_score_is_written_as() -> None:
    assert equal_width(10).tolist() == [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]


def test_a_score_on_an_edge_is_in_the_bin_below_and_0_in_the_first() -> None:
    scores = np.array([0.0, 0.1, 0.1000001, 0.3, 0.6, 0.7, 0.9, 1.0])
    assert bins(scores, equal_width(10)).tolist() == [0, 0, 1, 2, 5, 6, 8, 9]


def test_which_side_an_edge_belongs_to_changes_the_error() -> None:
    # In (.6, .7] both: |1.35 - 1| / 2. With [low, high) they would be apart: (.3 + .65) / 2.
    assert value("D-ECE", make_outcomes([0.7, 0.65], [0.9, 0.0])) == pytest.approx(0.35 / 2)


def test_bins_of_equal_mass_hold_equal_numbers_and_keep_equal_scores_together() -> None:
    scores = np.arange(1, 101) / 1000
    edges = equal_mass(scores, 10)
    assert np.bincount(bins(scores, edges)).tolist() == [10] * 10
    assert edges[[0, 1, 10]].tolist() == [0, 0.01, 1]
    tied = np.array([0.2] * 7 + [0.9])
    assert len(set(bins(tied, equal_mass(tied, 4))[:7])) == 1
    assert equal_mass(np.array([]), 4).tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_equal_mass_separates_what_equal_width_pools() -> None:
    # All in (0, .1]; two bins of five, wrong in opposite directions.
    scores = [0.01] * 5 + [0.09] * 5
    found = make_outcomes(scores, [0.9, 0, 0, 0, 0] + [0.0] * 5)
    assert value("D-ECE", found) == pytest.approx(abs(0.5 - 1) / 10)
    assert value("D-ECE equal mass", found) == pytest.approx((abs(0.05 - 1) + 0.45) / 10)


def test_a_detection_on_a_crowd_changes_no_measure() -> None:
    truth = make_truth({1: [(1, [0.0, 0, 40, 40]), (1, [100.0, 100, 80, 80])]}, [1])
    truth["annotations"][1]["iscrowd"] = 1
    hit = perfect(truth, 0.7)[0]
    on_crowd = dict(hit, bbox=[110.0, 110.0, 20.0, 20.0], score=0.6)
    before = of_set(truth, [hit])
    assert before["LaACE_0"] == pytest.approx(0.3)
    assert of_set(truth, [hit, on_crowd]) == before


def test_a_class_without_any_error_counts_as_zero() -> None:
    found = make_outcomes([1.0, 0.8], [1.0, 1.0], labels=[0, 1], num_classes=3)
    for name in ("LaECE", "LaECE_0", "LaACE_0"):
        # Of the three classes the last has no detection, and so no error either.
        assert value(name, found) == pytest.approx((0 + 0.2) / 2, abs=1e-12)


def test_a_detection_beside_an_object_does_not_take_it_from_one_that_lies_on_it() -> None:
    truth = make_truth({1: [(1, [0.0, 0.0, 40.0, 40.0])]}, [1])
    on_it = dict(perfect(truth)[0], bbox=[0.0, 0.0, 40.0, 36.0], score=0.5)
    beside = dict(on_it, bbox=[100.0, 100.0, 40.0, 40.0], score=0.9)
    # The better scored one is wrong by .9, the other by .4; swapped they would be .9 and .5.
    assert of_set(truth, [beside, on_it])["LaACE_0"] == pytest.approx((0.9 + 0.4) / 2)


def test_each_measure_matches_at_its_own_overlap() -> None:
    truth = make_truth({1: [(1, [0.0, 0.0, 40.0, 40.0])]}, [1])
    # IoU 0.25 counts at 0.1 and above 0, not at 0.5; IoU 0.05 above 0 only.
    quarter = dict(perfect(truth)[0], bbox=[0.0, 0.0, 40.0, 10.0], score=0.6)
    sliver = dict(quarter, bbox=[0.0, 0.0, 40.0, 2.0])
    first, second = of_set(truth, [quarter]), of_set(truth, [sliver])
    names = ("D-ECE", "LaECE", "LaECE_0")
    assert [first[k] for k in names] == pytest.approx([0.6, 0.35, 0.35])
    assert [second[k] for k in names] == pytest.approx([0.6, 0.6, 0.55])


def test_without_detections_no_measure_is_defined() -> None:
    truth = make_truth({1: [(1, [0.0, 0.0, 40.0, 40.0])]}, [1])
    measures = calibration.measure(counted(pack(truth, [])), draws=20)
    for measure in measures.values():
        assert (measure.value, measure.low, measure.detections) == (None, None, 0)


def test_every_number_goes_with_its_convention_in_words() -> None:
    truth, rows = random_case(0, [1, 2, 5])
    measures = calibration.measure(counted(pack(truth, rows)), draws=50)
    assert list(measures) == [m.name for m in MEASURES]
    for name, m in measures.items():
        assert "IoU" in m.convention
        assert m.value is not None
        assert m.low is not None
        assert m.high is not None
        assert m.low <= m.value <= m.high, name
        assert (m.floor is None) == (name in ("LaACE_0", "Brier", "NLL", "MSE to IoU"))
    for name in ("D-ECE", "LaECE", "LaECE_0"):
        assert "(low, high] over [0, 1]" in measures[name].convention


def test_agrees_with_netcal_away_from_the_edges() -> None:
    """netcal has bins [low, high): on an edge it is right to differ."""
    metrics: Any = pytest.importorskip("netcal.metrics")
    rng = np.random.default_rng(0)
    scores = rng.random(500)
    hits = rng.random(500) < scores**2
    found = make_outcomes(scores.tolist(), np.where(hits, 0.9, 0.0).tolist())
    expected = metrics.ECE(10, detection=True).measure(scores, hits.astype(int))
    assert value("D-ECE", found) == pytest.approx(expected, abs=1e-9)
