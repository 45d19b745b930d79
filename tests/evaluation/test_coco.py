"""The COCO wrapper: equal to pycocotools called by hand, and right where that is not."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.evaluation import coco
from tests.evaluation.cases import TWO, Truth, make_truth, perfect, random_case

EVALUATORS = ["pycocotools", "faster_coco_eval"]


@dataclass
class Packed:
    """Two images of one and two objects, and one without."""

    image_ids: Any = (7, 3, 5)
    sizes: Any = ((20, 30), (40, 50), (60, 70))
    starts: Any = (0, 1, 1, 3)
    xywh: Any = ((1.5, 2, 3, 4), (0, 0, 10, 10), (5, 5, 1, 1))
    labels: Any = (1, 0, 1)
    crowd: Any = (False, True, False)
    areas: Any = (11.0, 100.0, 0.5)
    classes: Any = ("cat", "dog")
    category_ids: Any = (4, 90)


def arrays() -> Packed:
    packed = Packed()
    return Packed(**{name: np.array(value) for name, value in vars(packed).items()})


def by_hand(truth: Truth, detections: list[dict[str, Any]]) -> list[float]:
    """The twelve numbers of pycocotools as its own demo makes them."""
    data = COCO()
    data.dataset = copy.deepcopy(truth)
    data.createIndex()
    scoring = COCOeval(data, data.loadRes(copy.deepcopy(detections)), "bbox")
    scoring.evaluate()
    scoring.accumulate()
    scoring.summarize()
    return list(scoring.stats)


def numbers(metrics: dict[str, Any]) -> list[float | None]:
    return [metrics[metric.name] for metric in coco.METRICS]


@pytest.mark.parametrize("make", [Packed, arrays], ids=["tuples", "arrays"])
def test_ground_truth_is_the_file_with_annotations_renumbered(make: Callable[[], Packed]) -> None:
    truth = coco.ground_truth(make())
    assert truth == {
        "images": [
            {"id": 7, "height": 20, "width": 30},
            {"id": 3, "height": 40, "width": 50},
            {"id": 5, "height": 60, "width": 70},
        ],
        "categories": [{"id": 4, "name": "cat"}, {"id": 90, "name": "dog"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 7,
                "category_id": 90,
                "bbox": [1.5, 2.0, 3.0, 4.0],
                "area": 11.0,
                "iscrowd": 0,
            },
            {
                "id": 2,
                "image_id": 5,
                "category_id": 4,
                "bbox": [0.0, 0.0, 10.0, 10.0],
                "area": 100.0,
                "iscrowd": 1,
            },
            {
                "id": 3,
                "image_id": 5,
                "category_id": 90,
                "bbox": [5.0, 5.0, 1.0, 1.0],
                "area": 0.5,
                "iscrowd": 0,
            },
        ],
    }
    assert json.loads(json.dumps(truth)) == truth


def test_results_are_plain_numbers_in_the_files_own_ids() -> None:
    rows = coco.results(
        np.int64(3),  # type: ignore[arg-type]
        np.array([[1.0, 2.0, 11.0, 7.0], [0.0, 0.0, 1.0, 1.0]], dtype=np.float32),
        np.array([0.75, 0.5], dtype=np.float32),
        np.array([1, 0]),
        (4, 90),
    )
    assert rows == [
        {"image_id": 3, "category_id": 90, "bbox": [1.0, 2.0, 10.0, 5.0], "score": 0.75},
        {"image_id": 3, "category_id": 4, "bbox": [0.0, 0.0, 1.0, 1.0], "score": 0.5},
    ]
    assert json.loads(json.dumps(rows)) == rows
    assert coco.results(3, np.zeros((0, 4)), np.zeros(0), np.zeros(0), (4,)) == []


def test_results_are_sorted_by_image_then_score_then_as_given() -> None:
    given = [(2, 0.5), (1, 0.1), (2, 0.9), (1, 0.1), (2, 0.5), (1, 0.7)]
    rows = [{"image_id": i, "score": s, "place": k} for k, (i, s) in enumerate(given)]
    assert [row["place"] for row in coco.sort_results(rows)] == [5, 1, 3, 2, 0, 4]


@pytest.mark.parametrize("seed", range(4))
def test_numbers_equal_pycocotools_by_hand_to_the_last_digit(seed: int) -> None:
    truth, detections = random_case(seed, [1, 2, 5])
    metrics = coco.evaluate(truth, detections)
    assert [-1.0 if x is None else x for x in numbers(metrics)] == by_hand(truth, detections)
    assert 0.05 < metrics["AP"] < 0.95
    for category in truth["categories"]:
        mine = {"categories": [category], "images": truth["images"]}
        for group, rows in (("annotations", truth["annotations"]), ("detections", detections)):
            mine[group] = [row for row in rows if row["category_id"] == category["id"]]
        alone = by_hand(mine, mine.pop("detections"))[0]
        assert metrics["per_class"][category["name"]] == (None if alone == -1 else alone)


def test_two_hundred_random_sets_have_the_numbers_of_pycocotools(evaluator: str) -> None:
    for seed in range(100, 300):
        truth, detections = random_case(seed, [0, 91, 10**6], num_images=6)
        found = [
            -1.0 if x is None else x
            for x in numbers(coco.evaluate(truth, detections, evaluator=evaluator))
        ]
        # The other evaluator's table differs by up to 2e-16.
        tolerance = 0 if evaluator == "pycocotools" else 1e-12
        assert found == pytest.approx(by_hand(truth, detections), rel=0, abs=tolerance), seed


@pytest.mark.parametrize("seed", range(4))
def test_both_evaluators_agree(seed: int) -> None:
    pytest.importorskip("faster_coco_eval")
    truth, detections = random_case(seed, [1, 2, 5])
    first, second = (coco.evaluate(truth, detections, evaluator=name) for name in EVALUATORS)
    # The precision table of faster-coco-eval differs by up to 2e-16.
    assert numbers(first) == pytest.approx(numbers(second), abs=1e-12)
    assert first["per_class"] == pytest.approx(second["per_class"], abs=1e-12)
    assert [m["evaluator"]["name"] for m in (first, second)] == EVALUATORS


@pytest.mark.parametrize("ids", [(0, 1), (5, 5), (0, 0)], ids=["zero", "twice", "zero twice"])
def test_annotation_ids_do_not_matter(ids: tuple[int, int], evaluator: str) -> None:
    truth = make_truth(TWO, [1, 2])
    for row, annotation_id in zip(truth["annotations"], ids, strict=True):
        row["id"] = annotation_id
    metrics = coco.evaluate(truth, perfect(truth), evaluator=evaluator)
    # pycocotools divides by 1 + 2e-16.
    assert metrics["AP"] == pytest.approx(1.0, abs=1e-12)
    assert metrics["per_class"] == pytest.approx({"class 1": 1.0, "class 2": 1.0}, abs=1e-12)


def relabelled(
    case: tuple[Truth, list[dict[str, Any]]], ids: dict[int, int]
) -> tuple[Truth, list[dict[str, Any]]]:
    truth, detections = copy.deepcopy(case)
    for row in truth["annotations"] + detections:
        row["category_id"] = ids[row["category_id"]]
    for row in truth["categories"]:
        row["id"] = ids[row["id"]]
    return truth, detections


def test_category_ids_with_gaps_and_zero_give_the_same_numbers() -> None:
    case = random_case(0, [1, 2, 3, 4])
    moved = relabelled(case, {1: 0, 2: 17, 3: 91, 4: 10**6})
    assert coco.evaluate(*moved) == coco.evaluate(*case)


def test_category_ids_in_another_order_give_the_same_numbers() -> None:
    case = random_case(0, [1, 2, 3, 4])
    moved = relabelled(case, {1: 10**6, 2: 91, 3: 0, 4: 17})
    first, second = coco.evaluate(*case), coco.evaluate(*moved)
    assert first["per_class"] == second["per_class"]
    # A mean over the classes in another order rounds differently; pycocotools orders by id.
    assert numbers(first) == pytest.approx(numbers(second), abs=1e-15)


def test_without_detections_everything_that_could_be_found_is_zero(evaluator: str) -> None:
    truth = make_truth(TWO, [1, 2, 3])
    metrics = coco.evaluate(truth, [], evaluator=evaluator)
    # The objects have 1,200 and 400 square pixels: one medium, one small, none large.
    expected = {m.name: None if m.name in ("APl", "ARl") else 0.0 for m in coco.METRICS}
    assert dict(zip(expected, numbers(metrics), strict=True)) == expected
    assert metrics["per_class"] == {"class 1": 0.0, "class 2": 0.0, "class 3": None}
    assert metrics["images"] == 2


def test_without_objects_there_is_nothing_to_measure(evaluator: str) -> None:
    truth = make_truth({1: [], 2: []}, [1])
    found = [{"image_id": 1, "category_id": 1, "bbox": [0.0, 0.0, 5.0, 5.0], "score": 0.5}]
    for detections in ([], found):
        metrics = coco.evaluate(truth, detections, evaluator=evaluator)
        assert numbers(metrics) == [None] * 12
        assert metrics["per_class"] == {"class 1": None}


def test_a_detection_on_a_crowd_is_neither_right_nor_wrong(evaluator: str) -> None:
    truth = make_truth({1: [(1, [0.0, 0.0, 40.0, 40.0]), (1, [100.0, 100.0, 80.0, 80.0])]}, [1])
    truth["annotations"][1]["iscrowd"] = 1
    detections = perfect(truth)
    on_crowd = [dict(detections[1], bbox=[110.0 + k, 110.0, 20.0, 20.0]) for k in range(5)]
    metrics = coco.evaluate(truth, on_crowd + detections[:1], evaluator=evaluator)
    assert metrics["AP"] == pytest.approx(1.0, abs=1e-12)


def test_the_order_of_equal_scores_is_the_order_given_within_an_image() -> None:
    truth = make_truth({1: [(1, [0.0, 0.0, 40.0, 40.0])]}, [1])
    hit = perfect(truth)[0]
    miss = dict(hit, bbox=[100.0, 100.0, 40.0, 40.0])
    first, second = coco.evaluate(truth, [hit, miss]), coco.evaluate(truth, [miss, hit])
    assert [first["AP"], second["AP"]] == pytest.approx([1.0, 0.5], abs=1e-12)


def test_the_order_of_images_does_not_matter() -> None:
    truth, detections = random_case(1, [1, 2, 5])
    turned = sorted(detections, key=lambda row: -row["image_id"])
    assert coco.evaluate(truth, turned) == coco.evaluate(truth, detections)


def test_nothing_is_printed_and_nothing_given_is_changed(
    evaluator: str, capsys: pytest.CaptureFixture[str]
) -> None:
    truth, detections = random_case(2, [1, 2, 5])
    before = copy.deepcopy((truth, detections))
    coco.evaluate(truth, detections, evaluator=evaluator)
    assert (truth, detections) == before
    assert capsys.readouterr() == ("", "")


def test_metrics_survive_json() -> None:
    truth, detections = random_case(3, [1, 2, 5])
    metrics = coco.evaluate(truth, detections)
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def test_the_table_shows_every_number_and_class() -> None:
    metrics = {metric.name: 0.1 for metric in coco.METRICS}
    metrics |= {"AP": 0.65449, "APl": None, "per_class": {"cat": 0.7, "long name": None}}
    lines = coco.table(metrics).splitlines()
    assert lines[:2] == [
        "       IoU        area    detections  value",
        "AP     0.50:0.95  all     100         0.654",
    ]
    assert lines[6] == "APl    0.50:0.95  large   100             -"
    assert lines[13:] == ["", "class         AP", "cat        0.700", "long name      -"]
