"""YOLO text labels: for each image a file with a line for each object, "class x y width height".

The numbers are the centre and the sides as shares of the image's width and height. Class names and
folders may stand in a yaml file as Ultralytics has it: https://docs.ultralytics.com/datasets/detect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import yaml

from detector.config.registry import DATASETS
from detector.config.schema import require
from detector.data.annotations import Annotations, OnInvalid, Rows, pack
from detector.data.images import (
    MAX_NAMED,
    FolderDataset,
    list_images,
    read_size,
    require_files,
    require_folder,
    require_megapixels,
)
from detector.data.readers.base import Dataset, Reader, Split
from detector.errors import DataError

Polygons = Literal["error", "box"]

Object = tuple[int, float, float, float, float]
"""Class; centre x, centre y, width, height as shares of the image."""

KEYS = ("centre x", "centre y", "width", "height")


@DATASETS.register("yolo")
class YoloReader(Reader):
    """root: the folder to which the others are relative.

    file: a yaml file with `names` (a list, or numbers and names) and, unless they are given here,
    the image folders `train` and `val`; its `path` is of somebody's machine and is not read.
    classes: names in the order of their numbers; null: those of the file. train_images, val_images:
    folders, searched with their subfolders. train_labels, val_labels: folders of the text files;
    null: that of the images with the last `images` in it replaced by `labels`, or itself.
    polygons: what a line with a polygon does: "error" names it, "box" takes the box around it.
    on_invalid: what a box outside its image, without area, not finite or stated twice does: "error"
    stops before the first step and names all, "drop" leaves them out and names them in the log.
    max_megapixels: of an image; larger ones are refused.

    An image without a file of labels has no objects. Image ids are 1, 2, ... in the order of the
    names, annotation ids 1, 2, ... in that of the lines, category ids the numbers in the files.
    """

    def __init__(
        self,
        *,
        root: str,
        file: str = "data.yaml",
        classes: tuple[str, ...] | None = None,
        train_images: str | None = None,
        train_labels: str | None = None,
        val_images: str | None = None,
        val_labels: str | None = None,
        polygons: Polygons = "error",
        on_invalid: OnInvalid = "error",
        max_megapixels: float = 100.0,
    ) -> None:
        require(
            classes is None or (len(classes) > 0 and len(set(classes)) == len(classes)),
            f"classes: {list(classes or [])} given, different names or null are needed",
        )
        require_megapixels(max_megapixels)
        self.root = Path(root).expanduser()
        self.file = self.root / file
        self.given_classes = classes
        self.images = {"train": train_images, "val": val_images}
        self.labels = {"train": train_labels, "val": val_labels}
        self.polygons: Polygons = polygons
        self.on_invalid: OnInvalid = on_invalid
        self.max_megapixels = max_megapixels

    def read(self, split: Split) -> Dataset:
        require_folder(self.root, "data.root")
        classes = self.classes
        name = self.images[split] or folder_in_yaml(self.file, split)
        folder = require_folder(self.root / name, f"data.{split}_images")
        beside = self.labels[split] or labels_beside(name)
        labels = require_folder(self.root / beside, f"data.{split}_labels")
        names = list_images(folder)
        if not names:
            raise DataError(f"data.{split}_images={folder}: holds no images")
        require_files(folder, names, str(folder))
        files = label_files(folder, names, labels, f"data.{split}_labels")
        annotations = read_set(
            folder, files, classes, polygons=self.polygons, on_invalid=self.on_invalid
        )
        return FolderDataset(str(folder), annotations, folder, self.max_megapixels)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        return self.given_classes or names_in_yaml(self.file)


def read_yaml(path: Path) -> dict[Any, Any]:
    """The keys and values of a yaml file. Raises DataError naming the file."""
    if not path.is_file():
        raise DataError(
            f"data.file={path}: there is no such file; or give data.classes and folders"
        )
    try:
        content = yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: is not yaml: {reason}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: keys and values are needed, among them names, train and val")
    return content


def names_in_yaml(path: Path) -> tuple[str, ...]:
    """`names` of a yaml file, a list or a mapping of 0 to K - 1. Raises DataError."""
    names = read_yaml(path).get("names")
    if isinstance(names, dict):
        numbers = sorted(names, key=str)
        if set(numbers) != set(range(len(names))):
            raise DataError(f"{path}: names has the numbers {numbers}, 0, 1, 2, ... are needed")
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list) or not names:
        raise DataError(f"{path}: names is {names!r}, a list of class names is needed")
    for i, name in enumerate(names):
        if not isinstance(name, str):  # yaml reads the words no and 1 as something else
            raise DataError(f"{path}: names[{i}] is {name!r}, text is needed (in quotes)")
        if name in names[:i]:
            raise DataError(f"{path}: names[{i}] is {name!r}, as another class is")
    return tuple(names)


def folder_in_yaml(path: Path, split: Split) -> str:
    """The image folder of a split as a yaml file has it, below the root. Raises DataError."""
    name = read_yaml(path).get(split)
    if not isinstance(name, str):
        raise DataError(
            f"{path}: {split} is {name!r}, the name of an image folder is needed there or as "
            f"data.{split}_images"
        )
    # Roboflow writes ../train/images for what lies in train/images beside the file.
    relative = PurePosixPath(name.removeprefix("../"))
    if relative.is_absolute() or ".." in relative.parts or "\\" in name or "\0" in name:
        raise DataError(f"{path}: {split} is {name!r}, which leads out; data.{split}_images= may")
    return str(relative)


def labels_beside(images: str) -> str:
    """Where the labels of a folder of images lie unless it is said; see `YoloReader`."""
    parts = list(PurePosixPath(images).parts)
    for i in reversed(range(len(parts))):
        if parts[i] == "images":
            return str(PurePosixPath(*parts[:i], "labels", *parts[i + 1 :]))
    return images


def label_files(folder: Path, names: list[str], labels: Path, key: str) -> dict[str, Path | None]:
    """Image name -> its file of labels, None where there is none. Raises DataError.

    key: what sets the folder of labels. Also raised where two images would share a file, and where
    there is not a single one, which is a wrong folder.
    """
    owner_of: dict[str, str] = {}
    for name in names:
        stem = str(Path(name).with_suffix(".txt"))
        if stem in owner_of:
            raise DataError(f"{folder}: {owner_of[stem]} and {name} would share the labels {stem}")
        owner_of[stem] = name
    existing = {str(path.relative_to(labels)) for path in labels.rglob("*.txt")} & set(owner_of)
    if not existing:
        raise DataError(f"{key}={labels}: holds no file of labels for any of {len(names)} images")
    require_files(labels, sorted(existing), str(labels))
    return {name: labels / stem if stem in existing else None for stem, name in owner_of.items()}


def read_set(
    folder: Path,
    files: dict[str, Path | None],
    classes: Sequence[str],
    *,
    polygons: Polygons = "error",
    on_invalid: OnInvalid = "error",
) -> Annotations:
    """The annotations of images with their files of labels. Raises DataError naming file and line.

    Of each image the header is read, since labels are relative to its size.
    """
    rows, faults = Rows(), Faults()
    for index, (name, file) in enumerate(files.items()):
        height, width = read_size(folder / name)
        rows.image_ids.append(index + 1)
        rows.file_names.append(name)
        rows.sizes.append((height, width))
        rows.files.append(str(file))
        for label, x, y, w, h in read_labels(file, len(classes), polygons, faults) if file else ():
            rows.owners.append(index)
            rows.xywh.append(((x - w / 2) * width, (y - h / 2) * height, w * width, h * height))
            rows.labels.append(label)
            rows.crowd.append(False)
            rows.areas.append(w * width * h * height)
            rows.ids.append(len(rows.ids) + 1)
    if faults.malformed:
        more = len(faults.malformed) - MAX_NAMED
        lines = [*faults.malformed[:MAX_NAMED], *([f"and {more} more lines"] if more > 0 else [])]
        raise DataError("\n".join(lines))
    categories = dict(enumerate(classes))
    packed = pack(rows, source=str(folder), categories=categories, on_invalid="drop")
    dropped = (*faults.invalid, *packed.dropped)
    if dropped and on_invalid == "error":
        raise DataError("\n".join(dropped))
    return replace(packed, dropped=dropped)


@dataclass
class Faults:
    """Lines for messages. malformed: cannot be read. invalid: the box is of no use."""

    malformed: list[str] = field(default_factory=list)
    invalid: list[str] = field(default_factory=list)


def read_labels(path: Path, num_classes: int, polygons: Polygons, faults: Faults) -> list[Object]:
    """The objects of a file; what is wrong with others is added to `faults`."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        faults.malformed.append(f"{path}: is not UTF-8, at byte {error.start}")
        return []
    line_of: dict[Object, int] = {}
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            found = parse(text.split(), num_classes, polygons)
        except ValueError as error:
            faults.malformed.append(f"{path}: line {number}: {error}")
            continue
        reason = invalid(found)
        if reason is None and found in line_of:
            reason = f"repeats line {line_of[found]}"
        if reason is None:
            line_of[found] = number
        else:
            faults.invalid.append(f"{path}: line {number}: {reason}")
    return list(line_of)


def parse(words: list[str], num_classes: int, polygons: Polygons) -> Object:
    """The object of a line. Raises ValueError saying what is allowed."""
    is_polygon = len(words) >= 7 and len(words) % 2 == 1
    if len(words) != 5 and not (is_polygon and polygons == "box"):
        hint = "; data.polygons=box takes the box around a polygon" if is_polygon else ""
        raise ValueError(f"has {len(words)} fields, class, {', '.join(KEYS)} are needed{hint}")
    keys = KEYS if len(words) == 5 else [f"number {i}" for i in range(2, len(words) + 1)]
    label = _number(words[0], "class")
    if label not in range(num_classes):
        raise ValueError(
            f"class is {words[0]!r}, 0 to {num_classes - 1} in whole numbers is allowed"
        )
    values = [_number(word, key) for word, key in zip(words[1:], keys, strict=True)]
    if len(words) > 5:
        values = around(values)
    x, y, w, h = values
    return int(label), x, y, w, h


def around(points: list[float]) -> list[float]:
    """Centre and sides of the box around a polygon x, y, x, y, ...; nan where a number is one."""
    if any(value != value for value in points):
        return [float("nan")] * 4
    (left, right), (top, bottom) = ((min(p), max(p)) for p in (points[::2], points[1::2]))
    return [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]


def invalid(found: Object) -> str | None:
    """Why a box is of no use, or None. That it leaves the image by a part is for `pack`."""
    for key, value in zip(KEYS, found[1:], strict=True):
        if not 0 <= value <= 1:
            return f"{key} is {value:g}, 0 to 1 is allowed: a share of the image, not pixels"
        if value == 0 and key in ("width", "height"):
            return f"{key} is 0, above 0 is needed"
    return None


def _number(word: str, key: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise ValueError(f"{key} is {word[:40]!r}, not a number") from None
