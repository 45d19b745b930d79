"""COCO JSON. Lin et al. 2014, arXiv 1405.0312; https://cocodataset.org/#format-data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from detector.config.registry import DATASETS
from detector.config.schema import require
from detector.data.annotations import Annotations, OnInvalid, Rows, pack
from detector.data.images import (
    FolderDataset,
    may_be_opened,
    read_size,
    require_files,
    require_folder,
    require_megapixels,
    same_name,
)
from detector.data.readers.base import Dataset, Reader, Split
from detector.errors import DataError
from detector.evaluation.canonical import Canonical, canonical, load_json

MAX_SIDE = 1_000_000
"""Pixels; a larger `width` or `height` in a file is a mistake."""


@DATASETS.register("coco")
class CocoReader(Reader):
    """root: the folder to which the others are relative.

    train_annotations, val_annotations: JSON files. train_images, val_images: folders of the images.
    on_invalid: what a box without area, outside its image or not finite does: "error" stops before
    the first step and names all, "drop" leaves them out and names them in the log. limit_train,
    limit_val: only so many images, the first by id. max_megapixels: of an image; larger ones are
    refused.
    """

    def __init__(
        self,
        *,
        root: str,
        train_annotations: str = "annotations/instances_train2017.json",
        train_images: str = "train2017",
        val_annotations: str = "annotations/instances_val2017.json",
        val_images: str = "val2017",
        on_invalid: OnInvalid = "error",
        limit_train: int | None = None,
        limit_val: int | None = None,
        max_megapixels: float = 100.0,
    ) -> None:
        for key, limit in (("limit_train", limit_train), ("limit_val", limit_val)):
            require(limit is None or limit > 0, f"{key}: {limit} given, above 0 or null is allowed")
        require_megapixels(max_megapixels)
        self.root = Path(root).expanduser()
        self.annotations = {"train": train_annotations, "val": val_annotations}
        self.images = {"train": train_images, "val": val_images}
        self.limits = {"train": limit_train, "val": limit_val}
        self.on_invalid: OnInvalid = on_invalid
        self.max_megapixels = max_megapixels

    def read(self, split: Split) -> Dataset:
        require_folder(self.root, "data.root")
        file = self.root / self.annotations[split]
        if not file.is_file():
            raise DataError(f"data.{split}_annotations={file}: there is no such file")
        folder = require_folder(self.root / self.images[split], f"data.{split}_images")
        other = self.root / self.annotations["val" if split == "train" else "train"]
        annotations = read_coco(file, self.on_invalid, folder, other)
        limit = self.limits[split]
        if limit is not None:
            annotations = annotations.select(range(min(limit, len(annotations))))
        names = (annotations.file_name(i) for i in range(len(annotations)))
        require_files(folder, names, str(file))
        return FolderDataset(str(file), annotations, folder, self.max_megapixels)


def read_coco(
    path: Path,
    on_invalid: OnInvalid = "error",
    folder: Path | None = None,
    other: Path | None = None,
) -> Annotations:
    """The annotations of a file. Raises DataError naming the file and what is wrong where in it.

    What is written in another form is read in the one form of `evaluation.canonical`. Annotation
    ids may repeat or be 0; `iscrowd` and `area` may be missing (0 and width * height). folder: of
    the images, where their names are looked up, and their sizes where the file has none. other: the
    file of the other split.
    """
    file = _File(path)
    content, done = canonical(load_json(path), other)
    if folder is not None:
        find_images(content, folder, done)
    if not isinstance(content, dict):
        file.fail("", "is not an object with images, annotations and categories")
    categories = _read_categories(file, content)
    rows = Rows()
    index_of = _read_images(file, content, rows)
    for where, row in file.rows(content, "annotations"):
        _read_annotation(file, where, row, rows, index_of, categories)
    annotations = pack(rows, source=str(path), categories=categories, on_invalid=on_invalid)
    return replace(annotations, notes=tuple(done.lines()))


def find_images(content: Any, folder: Path, done: Canonical) -> None:
    """Names as the files in a folder have them, and sizes from the files where there are none.

    A name with the other slash, or in another form of Unicode (a Mac writes an accent as a letter
    of its own), is that of the file it means.
    """
    images = content.get("images") if isinstance(content, dict) else None
    for row in images if isinstance(images, list) else []:
        if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
            continue
        name = row["file_name"].replace("\\", "/")
        if "coco_url" in row and not may_be_opened(folder, name):
            name = name if not may_be_opened(folder, Path(name).name) else Path(name).name
        if (found := same_name(folder, name)) != row["file_name"]:
            row["file_name"] = found
            done.counts["names have another slash or another form of Unicode: of the file"] += 1
        if not _has_size(row) and may_be_opened(folder, found):
            row["height"], row["width"] = read_size(folder / found)
            done.counts["images have no size: taken from the header of the file"] += 1


def _has_size(row: dict[str, Any]) -> bool:
    """Whether an image states a size; 0 and -1 are what tools write that do not know it."""
    return all(row.get(key) not in (None, 0, -1) for key in ("height", "width"))


class _File:
    """Looks up keys; each complaint names the file and the place."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fail(self, where: str, message: str) -> Any:
        raise DataError(f"{self.path}: {where}{' ' if where else ''}{message}")

    def rows(self, content: dict[str, Any], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """(place, row) of a list of objects."""
        if key not in content:
            self.fail("", f"key {key!r} is missing")
        if not isinstance(content[key], list):
            self.fail(key, "is not a list")
        for i, row in enumerate(content[key]):
            where = f"{key}[{i}]"
            if not isinstance(row, dict):
                self.fail(where, "is not an object")
            yield where, row

    def get(self, row: dict[str, Any], key: str, where: str) -> Any:
        if key not in row:
            self.fail(f"{where}: {_name(row)}", f"key {key!r} is missing")
        return row[key]

    def integer(self, row: dict[str, Any], key: str, where: str) -> int:
        value = self.get(row, key, where)
        if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 2**63:
            self.fail(f"{where}: {_name(row)}", f"{key} is {_short(value)}, not a 64-bit integer")
        return value

    def text(self, row: dict[str, Any], key: str, where: str) -> str:
        value = self.get(row, key, where)
        if not isinstance(value, str):
            self.fail(f"{where}: {_name(row)}", f"{key} is {_short(value)}, not text")
        if any("\ud800" <= letter <= "\udfff" for letter in value):  # JSON can hold half a letter
            self.fail(f"{where}: {_name(row)}", f"{key} is {_short(value)}, not valid text")
        return value

    def number(self, value: Any, key: str, row: dict[str, Any], where: str) -> float:
        try:
            if isinstance(value, int | float) and not isinstance(value, bool):
                return float(value)
        except OverflowError:
            pass  # an integer of 400 digits: told below, like all else that is no number
        return self.fail(f"{where}: {_name(row)}", f"{key} is {_short(value)}, not a number")


def _read_categories(file: _File, content: dict[str, Any]) -> dict[int, str]:
    """id -> name, both unique."""
    categories: dict[int, str] = {}
    for where, row in file.rows(content, "categories"):
        number, name = file.integer(row, "id", where), file.text(row, "name", where)
        if number in categories:
            file.fail(where, f"has the id {number}, as {categories[number]!r} has")
        if name in categories.values():
            file.fail(where, f"has the name {name!r}, as another category has")
        categories[number] = name
    if not categories:
        file.fail("categories", "is empty")
    return categories


def _read_images(file: _File, content: dict[str, Any], rows: Rows) -> dict[int, int]:
    """Adds the images; image id -> index."""
    index_of: dict[int, int] = {}
    owner_of: dict[str, int] = {}
    repeated: list[str] = []
    for where, row in file.rows(content, "images"):
        number, name = file.integer(row, "id", where), file.text(row, "file_name", where)
        size = (file.integer(row, "height", where), file.integer(row, "width", where))
        if not all(1 <= side <= MAX_SIDE for side in size):
            file.fail(f"{where}: {_name(row)}", f"is {size[1]} x {size[0]} pixels")
        if number in index_of:
            repeated.append(f"{file.path}: {where} ({name}) repeats the image id {number}")
        elif name in owner_of:
            ids = f"{owner_of[name]} and {number}"
            repeated.append(f"{file.path}: {where}: {name} is the file of the images {ids}")
        index_of[number] = len(rows.image_ids)
        owner_of[name] = number
        rows.image_ids.append(number)
        rows.file_names.append(name)
        rows.sizes.append(size)
    if repeated:
        raise DataError("\n".join(repeated))
    return index_of


def _read_annotation(
    file: _File,
    where: str,
    row: dict[str, Any],
    rows: Rows,
    index_of: dict[int, int],
    categories: dict[int, str],
) -> None:
    """Adds an object."""
    number = file.integer(row, "id", where)
    image_id, category = (
        file.integer(row, "image_id", where),
        file.integer(row, "category_id", where),
    )
    if image_id not in index_of:
        file.fail(f"{where}: {_name(row)}", f"is of image {image_id}, which is not in images")
    place = f"{where} (image {image_id})"
    if category not in categories:
        file.fail(f"{place}: {_name(row)}", f"has category {category}, which is not in categories")
    bbox = file.get(row, "bbox", place)
    if not isinstance(bbox, list) or len(bbox) != 4:
        file.fail(f"{place}: {_name(row)}", f"bbox is {_short(bbox)}, four numbers are needed")
    x, y, w, h = (file.number(value, "bbox", row, place) for value in bbox)
    crowd = row.get("iscrowd", 0)
    if crowd not in (0, 1):
        file.fail(f"{place}: {_name(row)}", f"iscrowd is {_short(crowd)}, 0 or 1 is allowed")
    area = row.get("area")
    rows.owners.append(index_of[image_id])
    rows.xywh.append((x, y, w, h))
    rows.labels.append(category)
    rows.crowd.append(bool(crowd))
    rows.areas.append(w * h if area is None else file.number(area, "area", row, place))
    rows.ids.append(number)


def _name(row: dict[str, Any]) -> str:
    """How messages call a row: by its id if it has one."""
    return f"id {_short(row['id'])}:" if "id" in row else "without id:"


def _short(value: Any) -> str:
    """A value of a file, at most 60 characters of it."""
    words = repr(value) if not isinstance(value, int) or abs(value) < 10**60 else "a huge integer"
    return words if len(words) <= 60 else f"{words[:57]}..."
