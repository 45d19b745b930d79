"""COCO JSON. Lin et al. 2014, arXiv 1405.0312; https://cocodataset.org/#format-data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Unpack

from detector.config.registry import DATASETS
from detector.config.schema import require
from detector.data.account import OF_LEFT_OUT_IMAGES, TWIN, Account, Kind
from detector.data.annotations import Annotations, Rows, pack
from detector.data.handling import Handling, HandlingOptions
from detector.data.headers import check_images
from detector.data.images import FolderDataset, Names, may_be_opened, require_folder
from detector.data.readers.base import Split
from detector.data.readers.folders import FolderReader
from detector.errors import DataError
from detector.evaluation.canonical import Canonical, canonical, load_json

MAX_SIDE = 1_000_000
"""Pixels; a larger `width` or `height` in a file is a mistake."""

Boxes = Literal["sides", "corners"]

IMAGE_ROW = Kind("image", "whose entry cannot be read")
REPEATED = Kind("image", "whose id or file another image has")
SAID_TWICE = Kind("image", "stated twice", None)
OBJECT_ROW = Kind("object", "whose entry cannot be read")
NO_IMAGE = Kind("object", "of an image that is not in images")
NO_CATEGORY = Kind("object", "of a category that is not in categories")


@DATASETS.register("coco")
class CocoReader(FolderReader):
    """root: the folder to which the others are relative.

    train_annotations, val_annotations: JSON files. train_images, val_images: folders of the images.
    test_annotations, test_images: the same for a test split, where there is one.
    boxes: what the four numbers of `bbox` are: "sides", COCO's left, top, width and height, or
    "corners", left, top, right and bottom. limit_train, limit_val: only so many images, the first
    by id. The other keys are those of `Handling`.
    """

    def __init__(
        self,
        *,
        root: str,
        train_annotations: str = "annotations/instances_train2017.json",
        train_images: str = "train2017",
        val_annotations: str | None = "annotations/instances_val2017.json",
        val_images: str | None = "val2017",
        test_annotations: str | None = None,
        test_images: str | None = None,
        boxes: Boxes = "sides",
        limit_train: int | None = None,
        limit_val: int | None = None,
        **handling: Unpack[HandlingOptions],
    ) -> None:
        super().__init__(Handling(**handling))
        for key, limit in (("limit_train", limit_train), ("limit_val", limit_val)):
            require(limit is None or limit > 0, f"{key}: {limit} given, above 0 or null is allowed")
        self.root = Path(root).expanduser()
        self.annotations = {
            "train": train_annotations,
            "val": val_annotations,
            "test": test_annotations,
        }
        self.images = {"train": train_images, "val": val_images, "test": test_images}
        self.limits = {"train": limit_train, "val": limit_val, "test": None}
        self.boxes: Boxes = boxes

    def read_source(self, split: Split) -> FolderDataset:
        require_folder(self.root, "data.root")
        file = self.root / required(f"{split}_annotations", self.annotations[split])
        if not file.is_file():
            raise DataError(f"data.{split}_annotations={file}: there is no such file")
        images = required(f"{split}_images", self.images[split])
        folder = require_folder(self.root / images, f"data.{split}_images")
        name = self.annotations["val" if split == "train" else "train"]
        other = None if name is None else self.root / name
        annotations = read_coco(
            file, self.handling, folder, other, boxes=self.boxes, limit=self.limits[split]
        )
        return FolderDataset(str(file), annotations, folder, self.handling)

    def column(self, key: str) -> list[str]:
        file = self.root / required("train_annotations", self.annotations["train"])
        stated = {}
        for row in load_json(file)["images"]:
            if isinstance(row, dict) and row.get(key) is not None:
                stated[str(row.get("id"))] = stated[str(row.get("file_name"))] = str(row[key])
        annotations, keys = self.whole.annotations, []
        for i, image_id in enumerate(annotations.image_ids):
            name = annotations.file_name(i)
            value = stated.get(str(image_id), stated.get(name))  # ids of text are numbered anew
            if value is None:
                raise DataError(
                    f"{file}: image {image_id} ({name}) has no {key!r}, which "
                    f"data.val_group=column:{key} needs"
                )
            keys.append(value)
        return keys


def required(key: str, value: str | None) -> str:
    """The name of a file or folder. Raises ConfigError where the config names none."""
    way = "; data.val_share=0.2 draws it from train" if key.startswith("val_") else ""
    require(value is not None, f"data.{key}: has to be given to read that split{way}")
    assert value is not None
    return value


def read_coco(
    path: Path,
    handling: Handling | None = None,
    folder: Path | None = None,
    other: Path | None = None,
    *,
    boxes: Boxes = "sides",
    limit: int | None = None,
) -> Annotations:
    """The annotations of a file. Raises DataError naming the file and what is wrong where in it.

    What is written in another form is read in the one form of `evaluation.canonical`. Annotation
    ids may repeat or be 0; `iscrowd` and `area` may be missing (0 and width * height). folder: of
    the images, where their names are looked up, and their headers read. other: the file of the
    other split. limit: only so many images, the first by id.
    """
    return read_content(load_json(path), path, handling, folder, other, boxes=boxes, limit=limit)


def read_content(
    content: Any,
    path: Path,
    handling: Handling | None = None,
    folder: Path | None = None,
    other: Path | None = None,
    *,
    boxes: Boxes = "sides",
    limit: int | None = None,
) -> Annotations:
    """As `read_coco`, of what a file or several hold. path: theirs, as messages name it."""
    handling, file = handling or Handling(), _File(path)
    content, done = canonical(content, other)
    if folder is not None:
        find_images(content, folder, done)
    if not isinstance(content, dict):
        file.fail("", "is not an object with images, annotations and categories")
    categories = _read_categories(file, content)
    account = Account(rules=done.counts)
    rows = Rows()
    images = _read_images(file, content, rows, account, may_lack_size=folder is not None)
    for where, row in file.rows(content, "annotations"):
        account.given["object"] += 1
        try:
            _read_annotation(file, where, row, rows, images, categories, boxes)
        except _Unusable as fault:
            account.leave_out(fault.kind, str(fault), label=_category(row))
    if done.twins:
        account.given["object"] += done.twins
        account.leave_out(TWIN, "", count=done.twins)
    rows.limit(limit, account)
    if folder is not None:
        check_images(rows, folder, account, handling, str(path), images.unsized)
    return pack(rows, source=str(path), categories=categories, handling=handling, account=account)


def find_images(content: Any, folder: Path, done: Canonical) -> None:
    """Names as the files in a folder have them.

    A name with the other slash, in another form of Unicode (a Mac writes an accent as a letter of
    its own), or without its suffix or with that of another format, is that of the file it means.
    """
    images = content.get("images") if isinstance(content, dict) else None
    names = Names(folder)
    for row in images if isinstance(images, list) else []:
        if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
            continue
        name = row["file_name"].replace("\\", "/")
        if "coco_url" in row and not may_be_opened(folder, name):
            name = name if not may_be_opened(folder, Path(name).name) else Path(name).name
        found = names.meant(name)
        if found != row["file_name"]:
            row["file_name"] = found
            done.counts["names have another slash or another form of Unicode: of the file"] += 1
        elif (other := names.of_stem(name)) is not None:
            row["file_name"] = other
            done.counts["names have no suffix or another: of the only file of that stem"] += 1


def _has_size(row: dict[str, Any]) -> bool:
    """Whether an image states a size; 0 and -1 are what tools write that do not know it."""
    return all(row.get(key) not in (None, 0, -1) for key in ("height", "width"))


class _Unusable(DataError):
    """One entry of the file that cannot be used, of a kind."""

    def __init__(self, message: str, kind: Kind) -> None:
        super().__init__(message)
        self.kind = kind


class _File:
    """Looks up keys; each complaint names the file and the place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kind: Kind | None = None

    def fail(
        self, where: str, message: str, kind: Kind | None = None, label: int | None = None
    ) -> Any:
        """Raises DataError, as _Unusable where it is one entry of a kind that is at fault."""
        words = f"{self.path}: {where}{' ' if where else ''}{message}"
        kind = kind or self.kind
        raise DataError(words) if kind is None else _Unusable(words, kind)

    def rows(self, content: dict[str, Any], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """(place, row) of a list of objects."""
        self.kind = None
        if key not in content:
            self.fail("", f"key {key!r} is missing; images, annotations and categories are needed")
        if not isinstance(content[key], list):
            self.fail(key, "is not a list")
        self.kind = KINDS.get(key)
        for i, row in enumerate(content[key]):
            yield f"{key}[{i}]", row

    def row(self, row: Any, where: str) -> dict[str, Any]:
        """The row, which has to be an object."""
        return row if isinstance(row, dict) else self.fail(where, "is not an object")

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


KINDS = {"images": IMAGE_ROW, "annotations": OBJECT_ROW}
"""What is at fault where an entry of a list cannot be read; for others it is the file."""


def _read_categories(file: _File, content: dict[str, Any]) -> dict[int, str]:
    """id -> name, both unique."""
    categories: dict[int, str] = {}
    for where, entry in file.rows(content, "categories"):
        row = file.row(entry, where)
        number, name = file.integer(row, "id", where), file.text(row, "name", where)
        if number in categories:
            file.fail(where, f"has the id {number}, as {categories[number]!r} has")
        if name in categories.values():
            file.fail(where, f"has the name {name!r}, as another category has")
        categories[number] = name
    if not categories:
        file.fail("categories", "is empty; a category for each class is needed")
    return categories


@dataclass
class _Images:
    """index_of: image id -> index. given: all ids that the file lists. unsized: indices of images
    that state no size."""

    index_of: dict[int, int] = field(default_factory=dict)
    left_out: set[int] = field(default_factory=set)
    unsized: list[int] = field(default_factory=list)


def _read_images(
    file: _File, content: dict[str, Any], rows: Rows, account: Account, *, may_lack_size: bool
) -> _Images:
    """Adds the images; those that cannot be used are in the account."""
    images, owner_of = _Images(), {}
    for where, entry in file.rows(content, "images"):
        account.given["image"] += 1
        try:
            row = file.row(entry, where)
            number, name = file.integer(row, "id", where), file.text(row, "file_name", where)
            size, lacks_size = (1, 1), may_lack_size and not _has_size(row)
            if not lacks_size:
                size = (file.integer(row, "height", where), file.integer(row, "width", where))
            if not all(1 <= side <= MAX_SIDE for side in size):
                file.fail(f"{where}: {_name(row)}", f"is {size[1]} x {size[0]} pixels")
            if number in images.index_of:
                first = images.index_of[number]
                if rows.file_names[first] == name:
                    account.leave_out(SAID_TWICE, "")
                    continue
                # Whose the objects of this id are cannot be known, so neither image is used.
                if first not in rows.unusable:
                    words = f"image {rows.file_names[first]}: {name} has its id {number} too"
                    account.leave_out(REPEATED, f"{file.path}: {words}")
                    rows.unusable.add(first)
                words = f"({name}) repeats the image id {number} of {rows.file_names[first]}"
                file.fail(where, words, REPEATED)
            if name in owner_of:
                ids = f"{owner_of[name]} and {number}"
                images.left_out.add(number)
                file.fail(f"{where}:", f"{name} is the file of the images {ids}", REPEATED)
        except _Unusable as fault:
            account.leave_out(fault.kind, str(fault))
            if isinstance(entry, dict) and isinstance(entry.get("id"), int):
                images.left_out.add(entry["id"])
            continue
        if lacks_size:
            images.unsized.append(len(rows.image_ids))
        images.index_of[number] = len(rows.image_ids)
        owner_of[name] = number
        rows.image_ids.append(number)
        rows.file_names.append(name)
        rows.sizes.append(size)
    images.left_out -= set(images.index_of)
    return images


def _read_annotation(
    file: _File,
    where: str,
    entry: Any,
    rows: Rows,
    images: _Images,
    categories: dict[int, str],
    boxes: Boxes,
) -> None:
    """Adds an object. Raises _Unusable."""
    row = file.row(entry, where)
    number = file.integer(row, "id", where)
    image_id, category = (
        file.integer(row, "image_id", where),
        file.integer(row, "category_id", where),
    )
    if image_id in images.left_out:
        raise _Unusable(f"{file.path}: {where}: of image {image_id}", OF_LEFT_OUT_IMAGES)
    if image_id not in images.index_of:
        words = f"is of image {image_id}, which is not in images"
        file.fail(f"{where}: {_name(row)}", words, NO_IMAGE)
    place = f"{where} (image {image_id})"
    if category not in categories:
        words = f"has category {category}, which is not in categories"
        file.fail(f"{place}: {_name(row)}", words, NO_CATEGORY)
    bbox = file.get(row, "bbox", place)
    if not isinstance(bbox, list) or len(bbox) != 4:
        file.fail(f"{place}: {_name(row)}", f"bbox is {_short(bbox)}, four numbers are needed")
    x, y, w, h = (file.number(value, "bbox", row, place) for value in bbox)
    if boxes == "corners":
        w, h = w - x, h - y
    crowd = row.get("iscrowd", 0)
    if crowd not in (0, 1):
        file.fail(f"{place}: {_name(row)}", f"iscrowd is {_short(crowd)}, 0 or 1 is allowed")
    area = row.get("area")
    rows.areas.append(w * h if area is None else file.number(area, "area", row, place))
    rows.owners.append(images.index_of[image_id])
    rows.xywh.append((x, y, w, h))
    rows.labels.append(category)
    rows.crowd.append(bool(crowd))
    rows.ids.append(number)


def _category(row: Any) -> int | None:
    """The category of an object that cannot be used, as far as it has one."""
    category = row.get("category_id") if isinstance(row, dict) else None
    return category if isinstance(category, int) else None


def _name(row: dict[str, Any]) -> str:
    """How messages call a row: by its id if it has one."""
    return f"id {_short(row['id'])}:" if "id" in row else "without id:"


def _short(value: Any) -> str:
    """A value of a file, at most 60 characters of it."""
    words = repr(value) if not isinstance(value, int) or abs(value) < 10**60 else "a huge integer"
    return words if len(words) <= 60 else f"{words[:57]}..."
