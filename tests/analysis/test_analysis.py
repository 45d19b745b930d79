"""The one call that tells everything, and its report."""

from __future__ import annotations

import copy
import dataclasses
import json

import pytest

from detector.analysis import errors
from detector.analysis.analysis import Costs, analyse
from detector.analysis.operating_points import OperatingPoints
from detector.analysis.report import Report
from detector.errors import DataError
from detector.evaluation import coco
from tests.evaluation.cases import TWO, make_truth, perfect, random_case

CATEGORIES = [1, 2, 5]


def analysed(seed: int = 0) -> Report:
    return analyse(*random_case(seed, CATEGORIES), costs=Costs(5, 1), draws=50, top=3)


@pytest.mark.parametrize("seed", range(3))
def test_ap_per_class_and_by_size_is_that_of_the_evaluator(seed: int) -> None:
    case = random_case(seed, CATEGORIES)
    metrics, report = coco.evaluate(*case), analyse(*case, draws=0)
    # Means of means round otherwise than one mean over everything.
    names = {name: row["AP"] for name, row in report.per_class.items()}
    assert names == pytest.approx(metrics["per_class"], abs=1e-12)
    sizes = {"small": "s", "medium": "m", "large": "l"}
    for key in ("AP", "AR"):
        expected = {name: metrics[key + letter] for name, letter in sizes.items()}
        values = {name: row[key] for name, row in report.by_size.items()}
        assert values == pytest.approx(expected, abs=1e-12)
    found = [row["AR"] for row in report.per_class.values() if row["AR"] is not None]
    assert sum(found) / len(found) == pytest.approx(metrics["AR100"], abs=1e-12)


def test_the_report_is_plain_numbers_under_the_names_it_documents() -> None:
    report = analysed()
    plain = report.to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert list(plain) == [field.name for field in dataclasses.fields(Report)]
    assert list(report.operating_points) == ["lrp", "f1", "fppi", "cost"]
    assert len(report.worst_images["misses"]) == 3
    assert len(report.precision_recall["recall"]) == 101
    counts = [row["detections"] for row in report.per_class.values()]
    assert sum(counts) == report.detections
    kinds = {k: sum(row[k] for row in report.errors_per_class.values()) for k in errors.KINDS}
    assert kinds == {k: report.errors[k]["count"] for k in errors.KINDS}


def test_the_same_seed_gives_the_same_report_and_nothing_given_is_changed() -> None:
    case = random_case(0, CATEGORIES)
    before = copy.deepcopy(case)
    assert analyse(*case, draws=50, seed=1) == analyse(*case, draws=50, seed=1)
    assert case == before


def test_what_is_shown_is_chosen_by_the_points_given() -> None:
    case = random_case(0, CATEGORIES)
    nothing = OperatingPoints("nothing", (None,) * 3, None, (True,) * 3, (None,) * 3, (0.0,) * 3)
    report = analyse(*case, points=nothing, draws=0)
    assert report.shown_by == "nothing"
    assert report.calibration["shown"]["D-ECE"]["detections"] == 0
    assert report.worst_images["false_positives"] == []
    by_itself = analyse(*case, draws=0)
    assert by_itself.shown_by == "optimal LRP at IoU 0.5 of these detections"
    shown = by_itself.calibration["shown"]["D-ECE"]["detections"]
    assert 0 < shown < by_itself.calibration["all"]["D-ECE"]["detections"]


def test_the_table_shows_numbers_conventions_and_every_class() -> None:
    report = analysed()
    text = "\n".join(report.table())
    for name, row in report.calibration["all"].items():
        assert f"{row['value']:.4f}" in text
        assert f"{name}: {row['convention']}" in text
    for name in (*report.per_class, *errors.KINDS, "missed", *report.by_crowding):
        assert f"\n{name} " in text
    assert all(len(line) == len(line.rstrip()) for line in report.table())


def test_scalars_are_the_single_numbers_that_are_defined() -> None:
    report = analysed()
    scalars = report.scalars()
    assert scalars["calibration/all/D-ECE"] == report.calibration["all"]["D-ECE"]["value"]
    assert scalars["optimal_lrp/value"] == report.lrp["optimal"]["value"]
    assert scalars["delta_ap50/missed"] == report.errors["missed"]["delta_ap50"]
    assert all(isinstance(value, float) for value in scalars.values())


@pytest.mark.parametrize("has_objects", [True, False])
@pytest.mark.parametrize("has_detections", [True, False])
def test_empty_sets_have_a_report(has_objects: bool, has_detections: bool) -> None:
    truth = make_truth(TWO, [1, 2])
    rows = perfect(truth) if has_detections else []
    if not has_objects:
        truth["annotations"] = []
    report = analyse(truth, rows, draws=20)
    json.dumps(report.to_dict(), allow_nan=False)
    assert report.table()
    value = report.lrp["optimal"]["value"]
    assert value == (None if not has_objects else 0.0 if has_detections else 1.0)


def test_a_score_outside_0_to_1_is_refused_by_its_row() -> None:
    truth = make_truth(TWO, [1, 2])
    rows = perfect(truth)
    rows[1]["score"] = 90.0
    with pytest.raises(DataError) as error:
        analyse(truth, rows)
    assert str(error.value) == (
        "detections[1] (image 2): score 90.0 given; calibration needs scores in [0, 1]"
    )
