"""Input that the COCO wrapper refuses, each with one line that says where it is."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from detector.errors import ConfigError, DataError
from detector.evaluation import coco
from tests.evaluation.cases import TWO, make_truth

HIT = {"image_id": 1, "category_id": 1, "bbox": [0.0, 0.0, 5.0, 5.0], "score": 0.5}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 9}, "detections[1]: image_id 9 is none of the 2 images"),
        (
            {"category_id": 3},
            "detections[1] (image 1): category_id 3 is none of the categories; allowed: 1, 2",
        ),
        (
            {"score": float("nan")},
            "detections[1] (image 1): score nan and box [0.0, 0.0, 5.0, 5.0] given, "
            "finite numbers are needed",
        ),
        (
            {"bbox": [0.0, 0.0, float("inf"), 5.0]},
            "detections[1] (image 1): score 0.5 and box [0.0, 0.0, inf, 5.0] given, "
            "finite numbers are needed",
        ),
    ],
)
def test_a_detection_that_makes_no_sense_is_refused(
    change: dict[str, Any], message: str, evaluator: str
) -> None:
    truth = make_truth(TWO, [1, 2])
    with pytest.raises(DataError) as error:
        coco.evaluate(truth, [HIT, HIT | change], evaluator=evaluator)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("group", "change", "message"),
    [
        ("images", {"id": 1}, "images: id 1 is listed twice"),
        ("categories", {"id": 1}, "categories: id 1 is listed twice"),
        ("categories", {"name": "class 1"}, "categories: name 'class 1' is listed twice"),
        (
            "annotations",
            {"category_id": 8},
            "annotations[1] (image 2): category_id 8 is none of the categories; allowed: 1, 2",
        ),
        ("annotations", {"image_id": 8}, "annotations[1]: image_id 8 is none of the 2 images"),
    ],
)
def test_a_ground_truth_that_contradicts_itself_is_refused(
    group: str, change: dict[str, Any], message: str
) -> None:
    truth = make_truth(TWO, [1, 2])
    truth[group][1] |= change
    with pytest.raises(DataError) as error:
        coco.evaluate(truth, [])
    assert str(error.value) == message


def test_an_unknown_evaluator_is_refused() -> None:
    with pytest.raises(ConfigError, match="'matlab' is not one of pycocotools, faster_coco_eval"):
        coco.evaluate(make_truth(TWO, [1, 2]), [], evaluator="matlab")


def test_an_evaluator_that_is_not_installed_names_its_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(ConfigError, match=r"not installed; the extra `fast-eval` installs it"):
        coco.evaluate(make_truth(TWO, [1, 2]), [], evaluator="faster_coco_eval")
