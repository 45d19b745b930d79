"""Kinds of error and their cost in AP: one case of each by hand, and a loop over detections."""

from __future__ import annotations

from typing import Any

import pytest

from detector.analysis import errors
from detector.analysis.errors import IGNORED, KINDS, RIGHT
from detector.analysis.matching import match
from detector.analysis.packing import Packed, pack
from tests.evaluation.cases import Row, Truth, make_truth, random_case

CAT, DOG = 1, 2
BOX = [0.0, 0.0, 100.0, 100.0]
THIRD = [0.0, 0.0, 100.0, 30.0]
FAR = [500.0, 500.0, 50.0, 50.0]


def found(image: int, category: int, box: list[float], score: float) -> Row:
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


def analysed(truth: Truth, rows: list[Row]) -> tuple[list[str], dict[str, Any]]:
    """The kind of each row, in the order given, and the costs."""
    packed = pack(truth, rows)
    matching = match(packed, [0.5])
    made = errors.classify(packed, matching)
    names = {**dict(enumerate(KINDS)), RIGHT: "right", IGNORED: "ignored"}
    kinds = dict(zip(packed.found.rows.tolist(), made.kinds.tolist(), strict=True))
    return [names[kinds[i]] for i in range(len(rows))], errors.costs(packed, matching, made)


def assert_costs(costs: dict[str, Any], **expected: float) -> None:
    """The AP that each kind costs; 0 for those not named."""
    values = {name: costs[name]["delta_ap50"] for name in (*KINDS, "missed")}
    # The evaluator divides by sums that are greater by 2e-16.
    assert values == pytest.approx(dict.fromkeys(values, 0.0) | expected, abs=1e-12)


def test_a_loose_box_is_a_localisation_error() -> None:
    truth = make_truth({1: [(CAT, BOX)]}, [CAT, DOG])
    kinds, costs = analysed(truth, [found(1, CAT, THIRD, 0.9)])
    assert kinds == ["localisation"]
    assert_costs(costs, localisation=1.0)
    # The object is covered by that error: nothing is missed, though it was not found.
    assert costs["missed"]["count"] == 0
    assert costs["false negatives"]["count"] == 1


def test_a_good_box_of_another_class_is_a_classification_error() -> None:
    truth = make_truth({1: [(CAT, BOX)]}, [CAT, DOG])
    kinds, costs = analysed(truth, [found(1, DOG, BOX, 0.9)])
    assert kinds == ["classification"]
    assert_costs(costs, classification=1.0)
    assert costs["missed"]["count"] == 0


def test_a_second_box_on_an_object_is_a_duplicate() -> None:
    truth = make_truth({1: [(CAT, BOX)], 2: [(CAT, BOX)]}, [CAT])
    rows = [found(1, CAT, BOX, 0.9), found(1, CAT, BOX, 0.8), found(2, CAT, BOX, 0.7)]
    kinds, costs = analysed(truth, rows)
    assert kinds == ["right", "duplicate", "right"]
    # Recalls 0 to 0.5 have precision 1, those above 2 / 3.
    assert_costs(costs, duplicate=50 / 101 / 3)


def test_a_box_on_nothing_is_background() -> None:
    truth = make_truth({1: [(CAT, BOX)]}, [CAT])
    kinds, costs = analysed(truth, [found(1, CAT, FAR, 0.9), found(1, CAT, BOX, 0.8)])
    assert kinds == ["background", "right"]
    assert_costs(costs, background=0.5)
    assert costs["false positives"] == {"count": 1, "delta_ap50": pytest.approx(0.5)}


def test_a_loose_box_of_another_class_is_both() -> None:
    truth = make_truth({1: [(CAT, BOX)], 2: [(DOG, BOX)]}, [CAT, DOG])
    kinds, costs = analysed(truth, [found(1, DOG, THIRD, 0.9), found(2, DOG, BOX, 0.8)])
    assert kinds == ["both", "right"]
    # Dogs rise from 0.5 to 1, and are one of two classes; the cat is missed.
    assert costs["missed"]["count"] == 1
    assert_costs(costs, both=0.25, missed=0.5)


def test_an_object_that_nothing_reaches_is_missed() -> None:
    truth = make_truth({1: [(CAT, BOX)], 2: [(CAT, BOX)]}, [CAT])
    kinds, costs = analysed(truth, [found(1, CAT, BOX, 0.9)])
    assert kinds == ["right"]
    assert costs["missed"]["count"] == 1
    # Recalls 0 to 0.5 of the two are reached.
    assert_costs(costs, missed=50 / 101)


def test_of_several_errors_on_an_object_only_the_best_scored_is_mended() -> None:
    truth = make_truth({1: [(CAT, BOX)], 2: [(CAT, BOX)]}, [CAT])
    kinds, costs = analysed(truth, [found(1, CAT, THIRD, s) for s in (0.5, 0.9, 0.7)])
    assert kinds == ["localisation"] * 3
    # One of the two objects is then found, with nothing wrong; were all three made right, both
    # would count as found.
    assert_costs(costs, localisation=51 / 101)


def test_an_error_on_an_object_already_found_goes() -> None:
    truth = make_truth({1: [(CAT, BOX)], 2: [(CAT, BOX)]}, [CAT])
    rows = [found(1, CAT, THIRD, 0.9), found(1, CAT, BOX, 0.8)]
    kinds, costs = analysed(truth, rows)
    assert kinds == ["localisation", "right"]
    # Precision rises from 1 / 2 to 1 up to a recall of 0.5, or to 1 without the other object; were
    # the error made right as well, both objects would count as found.
    assert_costs(costs, localisation=25.5 / 101, missed=0.5 - 25.5 / 101)


def test_what_lies_on_a_crowd_is_no_error_and_a_crowd_is_not_missed() -> None:
    truth = make_truth({1: [(CAT, BOX), (CAT, FAR)]}, [CAT, DOG])
    truth["annotations"][1]["iscrowd"] = 1
    rows = [found(1, CAT, FAR, 0.9), found(1, CAT, BOX, 0.8), found(1, DOG, FAR, 0.7)]
    kinds, costs = analysed(truth, rows)
    assert kinds == ["ignored", "right", "background"]
    assert_costs(costs)


def test_a_class_with_nothing_left_to_find_stays_in_the_mean() -> None:
    truth = make_truth({1: [(CAT, BOX)], 2: [(DOG, BOX)]}, [CAT, DOG])
    rows = [found(2, DOG, BOX, 0.9), found(2, DOG, FAR, 0.95), found(1, CAT, FAR, 0.5)]
    _, costs = analysed(truth, rows)
    # Cats stay at 0: what is left of them is wrong. Without it they are perfect.
    assert costs["missed"]["delta_ap50"] == pytest.approx(0.0, abs=1e-12)
    _, costs = analysed(truth, rows[:2])
    assert costs["missed"]["delta_ap50"] == pytest.approx(0.5)


def test_without_objects_an_error_has_no_cost() -> None:
    kinds, costs = analysed(make_truth({1: []}, [CAT]), [found(1, CAT, BOX, 0.9)])
    assert kinds == ["background"]
    assert costs["background"] == {"count": 1, "delta_ap50": None}


def test_without_detections_everything_is_missed() -> None:
    _, costs = analysed(make_truth({1: [(CAT, BOX)]}, [CAT]), [])
    assert costs["missed"] == {"count": 1, "delta_ap50": 1.0}


def iou(a: list[float], b: list[float]) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / (a[2] * a[3] + b[2] * b[3] - width * height)


def kind_of(packed: Packed, taken: list[int], row: Row, truth: Truth) -> str:
    """The kind of one unmatched detection; taken: rows of the objects that were found."""
    best = {"same": 0.0, "other": 0.0, "used": 0.0}
    for i, target in enumerate(truth["annotations"]):
        if target["image_id"] != row["image_id"] or target["iscrowd"]:
            continue
        is_same = target["category_id"] == row["category_id"]
        value = iou(row["bbox"], target["bbox"])
        best["same" if is_same else "other"] = max(value, best["same" if is_same else "other"])
        if is_same and i in taken:
            best["used"] = max(value, best["used"])
    if 0.1 <= best["same"] <= 0.5:
        return "localisation"
    if best["other"] >= 0.5:
        return "classification"
    if best["used"] >= 0.5:
        return "duplicate"
    return "background" if max(best["same"], best["other"]) <= 0.1 else "both"


@pytest.mark.parametrize("seed", range(8))
def test_kinds_equal_a_loop_over_detections_and_objects(seed: int) -> None:
    truth, rows = random_case(seed, [1, 2, 5])
    packed = pack(truth, rows)
    matching = match(packed, [0.5])
    kinds, costs = analysed(truth, rows)
    objects = matching.objects[0]
    taken = packed.objects.rows[objects[objects >= 0]].tolist()
    wrong = [i for i, kind in enumerate(kinds) if kind in KINDS]
    assert [kinds[i] for i in wrong] == [kind_of(packed, taken, rows[i], truth) for i in wrong]
    unmatched = packed.found.rows[objects < 0]
    assert sorted(wrong) == sorted(unmatched.tolist())
    assert {"localisation", "classification", "duplicate"} <= set(kinds)
    # To mend an error never lowers AP.
    assert all(cost["delta_ap50"] >= -1e-12 for cost in costs.values())
