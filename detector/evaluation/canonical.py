"""COCO JSON as people have it, in one form: what training, scoring and audit read alike.

Exporters and spreadsheets write numbers as text, null for what is absent, ids as file stems, byte
order marks. Each rule here changes how something is written and nothing of what is meant; it is
counted, so that a reader of the log sees what was done. Everything else stays for the checks.
"""

from __future__ import annotations

import errno
import json
import re
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detector.errors import DataError

WHOLE = ("id", "image_id", "category_id", "width", "height", "iscrowd")
"""Keys whose values are whole numbers."""

WHOLE_TEXT = re.compile(r"[+-]?\d{1,18}(\.0*)?")
NUMBER_TEXT = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")

MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
"""What the first bytes of a file say of its text."""

Row = dict[str, Any]


@dataclass
class Canonical:
    """What was done to a file. counts: by rule, in words. image_ids: the number that stands for an
    image id which is text, where a file has such ids. twins: objects left out since another is the
    same in image, category, box and outline."""

    counts: Counter[str] = field(default_factory=Counter)
    image_ids: dict[str, int] = field(default_factory=dict)
    twins: int = 0

    def lines(self) -> list[str]:
        """A line for each rule that was used."""
        lines = [f"{count} {rule}" for rule, count in self.counts.items()]
        return [*lines, f"{self.twins} objects are stated twice: left out"] if self.twins else lines


def read_regular(path: Path) -> bytes:
    """The bytes of a file. Raises OSError for what is none: a FIFO or a device may never end."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    return path.read_bytes()


def load_json(path: Path) -> Any:
    """The content of a JSON file, in UTF-8 or, with its mark, UTF-16.

    Raises DataError with the byte at which it goes wrong.
    """
    data = read_regular(path)
    encoding = next((name for mark, name in MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        return json.loads(data.decode(encoding))
    except UnicodeDecodeError as error:
        reason, byte = f"is not {encoding.upper().removesuffix('-SIG')}", error.start
    except json.JSONDecodeError as error:
        reason, byte = f"is not JSON: {error.msg}", len(error.doc[: error.pos].encode(encoding))
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits; 100,000 brackets
        raise DataError(f"{path}: is not JSON that can be read: {error}") from None
    raise DataError(f"{path}: {reason}, at byte {byte} of {len(data)}")


def canonical(content: Any, other: Path | None = None) -> tuple[Any, Canonical]:
    """A ground truth in the one form, and what was done to it; what is no object stays as it is.

    other: the file of the other split, which has to agree on what is no class.
    """
    done = Canonical()
    if not isinstance(content, dict):
        return content, done
    result = dict(content)
    for group in ("images", "categories", "annotations"):
        if isinstance(result.get(group), list):
            result[group] = [_row(row, done) for row in result[group]]
    _number_images(result, done)
    _leave_out_twins(result, done)
    _leave_out_roots(result, other, done)
    return result, done


def canonical_detections(rows: Any, images: Canonical) -> tuple[Any, Canonical]:
    """COCO results in the one form. images: what was done to the ground truth they belong to."""
    done = Canonical(image_ids=images.image_ids)
    if not isinstance(rows, list):
        return rows, done
    return [_with_number(_row(row, done), "image_id", done) for row in rows], done


def _row(row: Any, done: Canonical) -> Any:
    """An image, a category, an object or a detection."""
    if not isinstance(row, dict):
        return row
    changed = {key: _whole(row[key], done) for key in WHOLE if key in row}
    if "iscrowd" in row and (row["iscrowd"] is None or isinstance(row["iscrowd"], bool)):
        changed["iscrowd"] = int(bool(row["iscrowd"]))
        done.counts["values of iscrowd are null, true or false: read as 0 or 1"] += 1
    for key in ("area", "score"):
        if isinstance(row.get(key), str):
            changed[key] = _number(row[key], done)
    if isinstance(row.get("bbox"), list) and any(isinstance(v, str) for v in row["bbox"]):
        changed["bbox"] = [_number(value, done) for value in row["bbox"]]
    if row.get("bbox") in (None, []) and (box := _around(row.get("segmentation"))) is not None:
        changed["bbox"] = box
        done.counts["objects have polygons and no bbox: the box around them is taken"] += 1
    if "file_name" not in row and isinstance(row.get("coco_url"), str):
        changed["file_name"] = "/".join(row["coco_url"].split("/")[-2:])
        done.counts["images have a coco_url and no file_name: its last two parts are taken"] += 1
    return {**row, **changed} if changed else row


def _whole(value: Any, done: Canonical) -> Any:
    """A whole number that is written as text or as 1.0; anything else as it is."""
    is_text = isinstance(value, str) and WHOLE_TEXT.fullmatch(value.strip())
    is_float = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
    if not (is_text or is_float):
        return value
    done.counts["whole numbers are written as text or with a point: read as numbers"] += 1
    return int(value.strip().partition(".")[0]) if isinstance(value, str) else int(value)


def _number(value: Any, done: Canonical) -> Any:
    """A number that is written as text; anything else as it is."""
    if not isinstance(value, str) or not NUMBER_TEXT.fullmatch(value):
        return value
    done.counts["numbers are written as text: read as numbers"] += 1
    return float(value)


def _around(segmentation: Any) -> list[float] | None:
    """left, top, width, height around polygons; None where there is none to be read."""
    if not isinstance(segmentation, list):
        return None
    numbers = [v for polygon in segmentation if isinstance(polygon, list) for v in polygon]
    is_read = all(isinstance(v, int | float) and not isinstance(v, bool) for v in numbers)
    if len(numbers) < 6 or len(numbers) % 2 or not is_read:
        return None
    x, y = numbers[::2], numbers[1::2]
    return [min(x), min(y), max(x) - min(x), max(y) - min(y)]


def _number_images(content: Row, done: Canonical) -> None:
    """Image ids that are text become 1, 2, ... in the order of the file, where all of them are."""
    images = content.get("images")
    if not isinstance(images, list) or not images:
        return
    ids = [row.get("id") if isinstance(row, dict) else None for row in images]
    if not all(isinstance(value, str) for value in ids) or len(set(ids)) < len(ids):
        return
    done.image_ids.update({str(value): i for i, value in enumerate(ids, 1)})
    done.counts["image ids are text: numbered in the order of the file"] += len(ids)
    content["images"] = [_with_number(row, "id", done) for row in images]
    if isinstance(content.get("annotations"), list):
        rows = content["annotations"]
        content["annotations"] = [_with_number(row, "image_id", done) for row in rows]


def _with_number(row: Any, key: str, done: Canonical) -> Any:
    """The row with the number of an image in place of its text."""
    value = row.get(key) if isinstance(row, dict) else None
    if not isinstance(value, str) or value not in done.image_ids:
        return row
    return {**row, key: done.image_ids[value]}


def _leave_out_twins(content: Row, done: Canonical) -> None:
    """Leaves out each object that is the same as an earlier one in all that describes it."""
    rows = content.get("annotations")
    if not isinstance(rows, list):
        return
    kept, seen = [], set()
    for row in rows:
        if isinstance(row, dict) and row.get("bbox"):
            what = ("image_id", "category_id", "bbox", "iscrowd", "area", "segmentation")
            # A digest, not the text: outlines of a million objects would not fit into memory twice.
            key = hash(repr([row.get(name) for name in what]))
            if key in seen:
                done.twins += 1
                continue
            seen.add(key)
        kept.append(row)
    content["annotations"] = kept


def _leave_out_roots(content: Row, other: Path | None, done: Canonical) -> None:
    """Leaves out categories that are the supercategory of others and have no object in any split.

    A labelling service puts one before the classes, often under the name of one of them.
    """
    rows, objects = content.get("categories"), content.get("annotations")
    if not isinstance(rows, list) or not isinstance(objects, list):
        return
    known = [row for row in rows if isinstance(row, dict)]
    used = _categories_of(objects)
    parents = [row.get("supercategory") for row in known if not _is_top(row)]
    roots = [
        row
        for row in known
        if _is_top(row) and row.get("id") not in used and row.get("name") in parents
    ]
    if roots and other is not None and other.is_file():
        elsewhere = load_json(other)
        rows_there = elsewhere.get("annotations") if isinstance(elsewhere, dict) else []
        used = _categories_of(rows_there)
        roots = [row for row in roots if row.get("id") not in used]
    if roots and len(roots) < len(rows):
        content["categories"] = [row for row in rows if row not in roots]
        done.counts["categories are the root of others and have no object: left out"] += len(roots)


def _is_top(row: Row) -> bool:
    """Whether a category stands below no other: it names none, or itself."""
    return row.get("supercategory") in (None, "none", "", row.get("name"))


def _categories_of(objects: Any) -> list[Any]:
    """The category ids of objects, each once where they are numbers or text."""
    rows = objects if isinstance(objects, list) else []
    ids = [row.get("category_id") for row in rows if isinstance(row, dict)]
    whole = (_whole(value, Canonical()) for value in ids)
    return list(dict.fromkeys(value for value in whole if isinstance(value, int | str)))
