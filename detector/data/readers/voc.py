"""Pascal VOC XML. Everingham et al. 2010, IJCV 88(2); the layout of its development kit."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from detector.config.registry import DATASETS
from detector.config.schema import require
from detector.data.annotations import OnInvalid, Rows, pack
from detector.data.images import (
    SUFFIXES,
    FolderDataset,
    require_files,
    require_folder,
    require_megapixels,
)
from detector.data.readers.base import SPLITS, Dataset, Reader, Split
from detector.errors import DataError

Object = tuple[str, tuple[float, float, float, float], bool]
"""Class, (xmin, ymin, xmax, ymax) as the file states them, difficult."""

Page = tuple[str, tuple[int, int], list[Object]]
"""File name of the image, (height, width), objects of one XML file."""


@DATASETS.register("voc")
class VocReader(Reader):
    """root: holds Annotations, JPEGImages and ImageSets/Main.

    train_split, val_split: names of lists in ImageSets/Main, without ".txt". classes: their names
    in order; null: all that occur in either split, sorted. on_invalid: what a box without area,
    outside its image or not finite does: "error" stops before the first step and names all, "drop"
    leaves them out and names them in the log. ignore_difficult: objects marked difficult are
    neutral, as crowds are; otherwise they are objects like any other. (VOC's own score leaves them
    out; COCO's, which we use, knows only crowds.) max_megapixels: of an image; larger ones are
    refused.

    Image ids are 1, 2, ... in the order of the list, annotation ids 1, 2, ... in that of the files.
    A box covers its corner pixels, counted from 1: x1 = xmin - 1, y1 = ymin - 1, x2 = xmax,
    y2 = ymax; one with xmin >= xmax or ymin >= ymax in the file has no area. `<path>` is not read.
    """

    def __init__(
        self,
        *,
        root: str,
        train_split: str = "train",
        val_split: str = "val",
        classes: tuple[str, ...] | None = None,
        on_invalid: OnInvalid = "error",
        ignore_difficult: bool = False,
        max_megapixels: float = 100.0,
    ) -> None:
        require(
            classes is None or (len(classes) > 0 and len(set(classes)) == len(classes)),
            f"classes: {list(classes or [])} given, different names or null are needed",
        )
        require_megapixels(max_megapixels)
        self.root = Path(root).expanduser()
        self.lists = {"train": train_split, "val": val_split}
        self.given_classes = classes
        self.on_invalid: OnInvalid = on_invalid
        self.ignore_difficult = ignore_difficult
        self.max_megapixels = max_megapixels

    def read(self, split: Split) -> Dataset:
        rows = Rows()
        classes = self.classes
        for file, page in self.pages[split].items():
            self._add(rows, file, page, classes)
        folder = require_folder(self.root / "JPEGImages", "data.root: JPEGImages")
        source = str(self.list_file(split))
        require_files(folder, rows.file_names, source)
        categories = dict(enumerate(classes, 1))
        annotations = pack(rows, source=source, categories=categories, on_invalid=self.on_invalid)
        return FolderDataset(source, annotations, folder, self.max_megapixels)

    @cached_property
    def pages(self) -> dict[str, dict[Path, Page]]:
        """Split -> XML file -> content. Both splits: the classes are those of the two together."""
        require_folder(self.root, "data.root")
        folder = require_folder(self.root / "Annotations", "data.root: Annotations")
        pages: dict[str, dict[Path, Page]] = {}
        for split in SPLITS:
            names = read_list(self.list_file(split), f"data.{split}_split")
            require_files(folder, [f"{name}.xml" for name in names], str(self.list_file(split)))
            pages[split] = {
                folder / f"{name}.xml": read_page(folder / f"{name}.xml", name) for name in names
            }
        return pages

    @cached_property
    def classes(self) -> tuple[str, ...]:
        if self.given_classes is not None:
            return self.given_classes
        pages = [page for split in SPLITS for page in self.pages[split].values()]
        classes = tuple(sorted({name for _, _, objects in pages for name, _, _ in objects}))
        if not classes:
            raise DataError(f"{self.root}: no objects, and data.classes is null")
        return classes

    def list_file(self, split: Split) -> Path:
        return self.root / "ImageSets" / "Main" / f"{self.lists[split]}.txt"

    def _add(self, rows: Rows, file: Path, page: Page, classes: tuple[str, ...]) -> None:
        image, size, objects = page
        for name, (x_min, y_min, x_max, y_max), difficult in objects:
            if name not in classes:
                known = ", ".join(classes)
                raise DataError(f"{file}: class {name!r} is not one of data.classes: {known}")
            # No area in the file stays none: xmin = xmax would else become one pixel.
            width = x_max - x_min + (x_max > x_min)
            height = y_max - y_min + (y_max > y_min)
            rows.owners.append(len(rows.image_ids))
            rows.xywh.append((x_min - 1, y_min - 1, width, height))
            rows.labels.append(classes.index(name) + 1)
            rows.crowd.append(difficult and self.ignore_difficult)
            rows.areas.append(width * height if width > 0 and height > 0 else 0.0)
            rows.ids.append(len(rows.ids) + 1)
        rows.image_ids.append(len(rows.image_ids) + 1)
        rows.file_names.append(image)
        rows.sizes.append(size)
        rows.files.append(str(file))


def read_list(path: Path, key: str) -> list[str]:
    """The image names of a split, one a line. Raises DataError for none or repeated ones."""
    if not path.is_file():
        raise DataError(f"{key}={path}: there is no such file")
    try:
        names = [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8, at byte {error.start}") from None
    if not names:
        raise DataError(f"{path}: no images")
    seen: set[str] = set()
    repeated = sorted({name for name in names if name in seen or seen.add(name)})
    if repeated:
        raise DataError(f"{path}: listed more than once: {', '.join(repeated)}")
    return names


def read_page(path: Path, name: str) -> Page:
    """The content of an XML file; name: as the list has it. Raises DataError naming the file."""
    data = path.read_bytes()
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise DataError(f"{path}: declares a DOCTYPE, which is refused")
    try:
        root = ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(f"{path}: is not XML: {error}") from None
    suffix = Path(root.findtext("filename") or "").suffix
    image = name + (suffix if suffix.lower() in SUFFIXES else ".jpg")
    size = (_size(path, root, "height"), _size(path, root, "width"))
    objects = [_object(path, i, node) for i, node in enumerate(root.iter("object"), 1)]
    return image, size, objects


def _object(path: Path, number: int, node: Any) -> Object:
    place = f"object {number} of the file"
    name = (node.findtext("name") or "").strip()
    if not name:
        raise DataError(f"{path}: {place}: <name> is missing")
    keys = ("xmin", "ymin", "xmax", "ymax")
    x_min, y_min, x_max, y_max = (_number(path, node, f"bndbox/{key}", place) for key in keys)
    difficult = (node.findtext("difficult") or "0").strip()
    if difficult not in ("0", "1"):
        raise DataError(f"{path}: {place}: <difficult> is {difficult!r}, 0 or 1 is allowed")
    return name, (x_min, y_min, x_max, y_max), difficult == "1"


def _number(path: Path, node: Any, key: str, place: str) -> float:
    text = node.findtext(key)
    if text is None:
        raise DataError(f"{path}: {place}: <{key}> is missing")
    try:
        return float(text)
    except ValueError:
        raise DataError(f"{path}: {place}: <{key}> is {text!r}, not a number") from None


def _size(path: Path, root: Any, key: str) -> int:
    value = _number(path, root, f"size/{key}", "image")
    if not 1 <= value <= 1e6 or value != int(value):
        raise DataError(f"{path}: <size/{key}> is {value:g}, whole pixels above 0 are needed")
    return int(value)
