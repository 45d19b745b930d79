"""COCO's ground truth and results from JSON files of any origin."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from detector.errors import DataError
from detector.evaluation import coco, predictions
from detector.evaluation.canonical import (
    Canonical,
    canonical,
    canonical_detections,
    load_json,
)

Row = dict[str, Any]
Truth = dict[str, list[Row]]

WHOLE = {"id", "image_id", "category_id"}
"""Keys whose values are integers."""

NEEDED = {
    "images": ("id",),
    "categories": ("id", "name"),
    "annotations": ("image_id", "category_id", "bbox"),
    "detections": ("image_id", "category_id", "bbox", "score"),
}
"""What an entry has to have. Ids of annotations may repeat or be absent: they mean nothing."""


def read_ground_truth(path: Path) -> Truth:
    """Images, categories and annotations as they are in the file, boxes without area included.

    A missing area is that of the box. Raises DataError naming the file, the entry and its id.
    """
    return read_with_notes(path)[0]


def read_with_notes(path: Path) -> tuple[Truth, Canonical]:
    """As `read_ground_truth`, with what was read that is written in another form."""
    content, done = canonical(load(path, "annotations"))
    if not isinstance(content, dict):
        raise DataError(f"{path}: is not an object with images, annotations and categories")
    truth = {}
    for group in ("images", "categories", "annotations"):
        if group not in content:
            raise DataError(f"{path}: {group!r} is missing")
        truth[group] = _rows(path, group, content[group])
    for i, row in enumerate(truth["annotations"]):
        area = row.get("area")
        if area is not None and not _is_number(area):
            raise DataError(f"{path}: annotations[{i}] ({_who(row)}): area {area!r} is no number")
        if area is None:
            truth["annotations"][i] = {**row, "area": row["bbox"][2] * row["bbox"][3]}
    try:
        coco.check_ground_truth(truth)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    return truth, done


def read_detections(path: Path, truth: Truth, images: Canonical | None = None) -> list[Row]:
    """COCO results on this ground truth, or the predictions.json of `detector predict`. Raises
    DataError naming the file, the entry and its id.

    images: what was done to the ground truth, whose image ids may be text.
    """
    content = load(path, "detections")
    if predictions.is_predictions(content):
        content = predictions.to_results(path, content, truth)
    content, _ = canonical_detections(content, images or Canonical())
    rows = _rows(path, "detections", content)
    try:
        coco.check_detections(truth, rows)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    return rows


def check_scores(path: Path, rows: list[Row]) -> None:
    """Raises DataError for a score that cannot be a probability, which COCO's numbers allow."""
    for i, row in enumerate(rows):
        if not 0 <= row["score"] <= 1:
            raise DataError(
                f"{path}: detections[{i}] ({_who(row)}): score {row['score']} given, an analysis "
                "needs 0 to 1; analysis=false leaves it out"
            )


def load(path: Path, key: str) -> Any:
    """The content of a JSON file. Raises DataError where there is none, or it is no JSON."""
    if not path.is_file():
        raise DataError(f"{key}={path}: there is no such file")
    return load_json(path)


def _rows(path: Path, group: str, rows: Any) -> list[Row]:
    if not isinstance(rows, list):
        raise DataError(f"{path}: {group} is not a list")
    for i, row in enumerate(rows):
        fault = _fault(row, NEEDED[group])
        if fault:
            raise DataError(f"{path}: {group}[{i}]{_named(row)}: {fault}")
    return rows


def _fault(row: Any, needed: tuple[str, ...]) -> str | None:
    """What is wrong with an entry."""
    if not isinstance(row, dict):
        return "is not an object"
    for key in needed:
        if key not in row:
            return f"{key!r} is missing"
        value = row[key]
        if key in WHOLE and not (isinstance(value, int) and abs(value) < 2**63):
            return f"{key} {value!r} is no integer of 64 bits"
        if key == "score" and not _is_number(value):
            return f"score {value!r} is no number"
        if key == "bbox" and not _is_box(value):
            return f"bbox {value!r} is not four finite numbers: x, y, width and height from 0"
    return None


def _is_box(value: Any) -> bool:
    if not (isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))):
        return False
    return all(map(math.isfinite, value)) and value[2] >= 0 and value[3] >= 0


def _is_number(value: Any) -> bool:
    """Whether it is one that a float can hold; JSON writes integers of any length."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, float) or abs(value) < 2**1023


def _named(row: Any) -> str:
    who = _who(row) if isinstance(row, dict) else ""
    return f" ({who})" if who else ""


def _who(row: Row) -> str:
    """The ids by which a reader finds an entry again."""
    words = {"id": "id", "image_id": "image"}
    return ", ".join(f"{word} {row[key]!r}" for key, word in words.items() if key in row)
