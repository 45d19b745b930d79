"""The predictions.json of `detector predict` as results on a ground truth, by file and name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from detector.errors import DataError, did_you_mean

Row = dict[str, Any]

COLUMNS = ("boxes", "scores", "labels")
"""Of an entry, beside its file: lists with a place for each object."""


def is_predictions(content: Any) -> bool:
    """Whether a JSON is a list of images, each with the boxes that were found in it."""
    first = content[0] if isinstance(content, list) and content else None
    return isinstance(first, dict) and "file" in first and "boxes" in first


def to_results(path: Path, content: list[Any], truth: Mapping[str, list[Row]]) -> list[Row]:
    """Rows of COCO's results format. path: what messages name.

    An image is the one of that `file_name` in the ground truth; where only one ends in the same
    name, its folder need not be the same. Raises DataError for an image or a class that the ground
    truth does not have, and an entry that is no such entry.
    """
    images = _images(truth)
    categories = {str(row["name"]): row["id"] for row in truth["categories"]}
    rows: list[Row] = []
    for i, entry in enumerate(content):
        where = f"{path}: entry {i}"
        _require_entry(entry, where)
        known = entry["file"] if entry["file"] in images else PurePosixPath(entry["file"]).name
        image_id = images.get(known)
        if image_id is None:
            raise DataError(f"{where}: {entry['file']} is none of the images, or several of them")
        for box, score, name in zip(*(entry[key] for key in COLUMNS), strict=True):
            if name not in categories:
                hint = did_you_mean(str(name), categories)
                raise DataError(f"{where}: class {name!r} is none of the annotations'{hint}")
            x1, y1, x2, y2 = box
            sides = [x1, y1, x2 - x1, y2 - y1]
            rows.append({"image_id": image_id, "category_id": categories[name], "bbox": sides})
            rows[-1]["score"] = score
    return rows


def _images(truth: Mapping[str, list[Row]]) -> dict[str, Any]:
    """Image ids by file name, and by the last part of it; None for what several have."""
    ids: dict[str, Any] = {}
    for row in truth["images"]:
        name = str(row.get("file_name", ""))
        for key in {name, PurePosixPath(name).name}:
            ids[key] = None if key in ids else row["id"]
    return ids


def _require_entry(entry: Any, where: str) -> None:
    """Raises DataError where an entry lacks something, or has lists of several lengths."""
    if not isinstance(entry, dict) or not isinstance(entry.get("file"), str):
        raise DataError(f"{where}: is no image with its `file`")
    lists = [entry.get(key) for key in COLUMNS]
    if not all(isinstance(column, list) for column in lists):
        raise DataError(f"{where}: {', '.join(COLUMNS)} are needed, lists with a place an object")
    if len({len(column) for column in lists if isinstance(column, list)}) != 1:
        raise DataError(f"{where}: {', '.join(COLUMNS)} are not of one length")
    for box in entry["boxes"]:
        numbers = isinstance(box, list) and len(box) == 4
        if not numbers or not all(isinstance(v, int | float) for v in box):
            raise DataError(f"{where}: box {box!r} is not four numbers: x1, y1, x2, y2")
