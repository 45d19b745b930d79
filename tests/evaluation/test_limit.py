"""How many detections of an image count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detector.evaluation import coco
from detector.evaluation.evaluators import get_evaluator


def crowded(number: int) -> dict[str, list[dict[str, Any]]]:
    """An image with so many objects that do not touch, and one with two."""
    boxes = [[20 * (i % 40), 20 * (i // 40), 10, 10] for i in range(number)]
    rows = [{"image_id": 1, "category_id": 1, "bbox": box, "area": 100} for box in boxes]
    rows += [{"image_id": 2, "category_id": 1, "bbox": box, "area": 100} for box in boxes[:2]]
    return {
        "images": [{"id": i, "width": 900, "height": 900} for i in (1, 2)],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [{**row, "id": i, "iscrowd": 0} for i, row in enumerate(rows)],
    }


def perfect(truth: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    keys = ("image_id", "category_id", "bbox")
    return [{**{key: row[key] for key in keys}, "score": 1.0} for row in truth["annotations"]]


def test_beyond_100_objects_perfect_boxes_fall_short_and_it_is_told() -> None:
    truth = crowded(240)
    metrics = coco.evaluate(truth, perfect(truth))
    # 102 of 242 objects can be found: precision is 1 up to a recall of 0.42, and 0 beyond.
    assert metrics["AP"] == pytest.approx(43 / 101)
    warning = coco.beyond_the_limit(truth, 100)
    assert warning is not None
    for words in ("1 images have more than 100", "can reach 0.43 only", "max_detections=240"):
        assert words in warning
    whole = coco.evaluate(truth, perfect(truth), max_detections=240)
    assert (whole["AP"], whole["max_detections"]) == (1.0, 240)
    assert "AR240" in coco.table(whole)
    assert coco.beyond_the_limit(truth, 240) is None


def test_up_to_100_objects_nothing_is_told() -> None:
    assert coco.beyond_the_limit(crowded(100), 100) is None


@pytest.mark.parametrize("limit", [20, 300])
def test_the_numbers_at_another_limit_are_those_of_the_tables(limit: int) -> None:
    """With COCO's own three limits, ours equal `COCOeval.summarize` to the last digit."""
    draw = np.random.default_rng(0)
    truth = crowded(60)
    found = [
        {**row, "score": float(draw.random()), "bbox": [v + draw.normal() for v in row["bbox"]]}
        for row in perfect(truth)
    ]
    for row in truth["annotations"]:
        row["area"] = float(draw.choice([100, 2000, 20000]))
    from detector.evaluation.evaluators import summary

    rows = {**truth, "annotations": coco._renumbered(found)}
    scoring = get_evaluator("pycocotools").run(
        {**truth, "annotations": coco._renumbered(truth["annotations"])}, rows
    )
    assert summary(scoring.eval).tolist() == scoring.stats.tolist()
    metrics = coco.evaluate(truth, found, max_detections=limit)
    usual = coco.evaluate(truth, found)
    assert (metrics["AP"] < usual["AP"]) == (limit == 20)
    assert metrics["AR10"] == usual["AR10"]
