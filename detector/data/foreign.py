"""Annotations of tools that have a form of their own, turned into COCO's.

LabelMe: a JSON beside each image, https://github.com/wkentaro/labelme. CVAT: its XML for images,
https://docs.cvat.ai/docs/dataset_management/formats/format-cvat. Label Studio: its JSON,
https://labelstud.io/guide/export. CSV: a row for each object, under a header.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

from detector.data.images import Names
from detector.errors import DataError
from detector.evaluation.canonical import load_json, read_regular

CSV_WORDS = {
    "name": ("filename", "file_name", "image", "image_path", "file", "path", "image_id", "img"),
    "label": ("class", "label", "class_name", "category", "name", "label_name"),
    "x1": ("xmin", "x_min", "x1", "left", "bbox_x", "x"),
    "y1": ("ymin", "y_min", "y1", "top", "bbox_y", "y"),
    "x2": ("xmax", "x_max", "x2", "right"),
    "y2": ("ymax", "y_max", "y2", "bottom"),
    "w": ("width_box", "box_width", "bbox_width", "w", "bw", "bbox_w"),
    "h": ("height_box", "box_height", "bbox_height", "h", "bh", "bbox_h"),
}
"""Names of columns that tools write, small letters, for each thing that is needed."""


@dataclass(frozen=True)
class Foreign:
    """form: what it is, in words. content: the same as COCO JSON. folder: of the images. source:
    of the annotations, for messages."""

    form: str
    content: dict[str, Any]
    folder: Path
    source: Path


class Collector:
    """Gathers COCO's three lists. Categories are numbered from 1 in the order of their names."""

    def __init__(self) -> None:
        self.images: dict[str, dict[str, Any]] = {}
        self.objects: list[tuple[str, str, Any]] = []

    def image(self, name: str, width: Any = None, height: Any = None) -> None:
        if name not in self.images:
            row: dict[str, Any] = {"id": len(self.images) + 1, "file_name": name}
            self.images[name] = row | {"width": width, "height": height}

    def add(self, name: str, label: str, bbox: Any) -> None:
        """An object. label: empty where it has none. bbox: left, top, width, height, None where
        they cannot be read: the reader tells both."""
        self.image(name)
        self.objects.append((name, label, bbox))

    def content(self) -> dict[str, Any]:
        labels = sorted({label for _, label, _ in self.objects if label})
        numbers = {label: i for i, label in enumerate(labels, 1)}
        return {
            "images": list(self.images.values()),
            "categories": [{"id": i, "name": label} for label, i in numbers.items()],
            "annotations": [
                {
                    "id": i,
                    "image_id": self.images[name]["id"],
                    "category_id": numbers.get(label),  # None is told as a fault
                    "bbox": bbox,
                }
                for i, (name, label, bbox) in enumerate(self.objects, 1)
            ],
        }


def recognized(root: Path) -> Foreign | None:
    """The annotations of a folder that are of one of these forms."""
    for read in (cvat, label_studio, labelme, table):
        found = read(root)
        if found is not None:
            return found
    return None


def labelme(root: Path) -> Foreign | None:
    """A JSON beside each image: shapes of two corners, or of the points of a polygon."""
    found = Collector()
    files = 0
    for file in sorted(root.rglob("*.json")):
        content = json_in(file)
        if not isinstance(content, dict) or "shapes" not in content:
            continue
        files += 1
        path = str(content.get("imagePath") or file.with_suffix(".jpg").name).replace("\\", "/")
        name = str(file.parent.relative_to(root) / Path(path).name)
        found.image(name, content.get("imageWidth"), content.get("imageHeight"))
        for shape in map(_dict, _list(content["shapes"])):
            found.add(name, str(shape.get("label") or ""), around(shape.get("points")))
    return Foreign("LabelMe's JSON", found.content(), root, root) if files else None


def around(points: Any) -> list[float] | None:
    """left, top, width, height around points [x, y]; None where they are no points."""
    try:
        xs, ys = [float(p[0]) for p in points], [float(p[1]) for p in points]
        return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    except (TypeError, ValueError, IndexError, KeyError):
        return None


def cvat(root: Path) -> Foreign | None:
    """CVAT's XML for images: <image name width height> with <box> and <polygon>."""
    for file in sorted(root.glob("*.xml")):
        data = read_regular(file)
        if b"<annotations" not in data[:1000]:
            continue
        if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
            raise DataError(f"{file}: declares a DOCTYPE, which is refused")
        try:
            tree = ElementTree.fromstring(data)
        except ElementTree.ParseError as error:
            raise DataError(f"{file}: is not XML: {error}") from None
        found = Collector()
        for image in tree.iter("image"):
            name = image.get("name", "")
            found.image(name, image.get("width"), image.get("height"))
            for shape in image:
                if shape.tag != "tag":  # which is of the whole image
                    found.add(name, shape.get("label", ""), _of_cvat(shape))
        return Foreign("CVAT's XML", found.content(), _folder_of(root, list(found.images)), file)
    return None


def _of_cvat(shape: ElementTree.Element) -> list[float] | None:
    """The box of a box, or around the points of a polygon; None of a shape that has none."""
    if shape.tag == "box":
        corners = [shape.get(key, "") for key in ("xtl", "ytl", "xbr", "ybr")]
        is_turned = (shape.get("rotation") or "0").strip("0.") != ""
        return None if is_turned else around([corners[:2], corners[2:]])
    pairs = [pair.split(",") for pair in shape.get("points", "").split(";")]
    return around(pairs) if shape.tag in ("polygon", "polyline") else None


def label_studio(root: Path) -> Foreign | None:
    """Label Studio's JSON: tasks with results in per cent of the image."""
    for file in sorted(root.glob("*.json")):
        tasks = json_in(file)
        is_one = isinstance(tasks, list) and tasks and all(isinstance(t, dict) for t in tasks)
        if not is_one or not any("annotations" in t and "data" in t for t in tasks):
            continue
        found = Collector()
        for task in tasks:
            address = next((v for v in _dict(task.get("data")).values() if isinstance(v, str)), "")
            name = unquote(address.rpartition("/")[2].partition("?")[0].rpartition("d=")[2])
            found.image(name)
            for annotation in map(_dict, _list(task.get("annotations"))):
                for result in map(_dict, _list(annotation.get("result"))):
                    kind = str(result.get("type"))
                    if kind.endswith("labels"):  # others, such as choices, are of no object
                        value = _dict(result.get("value"))
                        label = next(map(str, _list(value.get(kind))), "")
                        found.add(name, label, _of_percent(value, result))
        folder = _folder_of(root, list(found.images))
        return Foreign("Label Studio's JSON", found.content(), folder, file)
    return None


def _of_percent(value: dict[str, Any], result: dict[str, Any]) -> list[float] | None:
    """The box of a rectangle, or around a polygon; None for what has none, a turned one too."""
    try:
        width, height = float(result["original_width"]), float(result["original_height"])
        if "points" in value:
            return around([[x * width / 100, y * height / 100] for x, y in value["points"]])
        if float(value.get("rotation") or 0) != 0:
            return None
        sides = (width, height, width, height)
        keys = ("x", "y", "width", "height")
        return [float(value[key]) * side / 100 for key, side in zip(keys, sides, strict=True)]
    except (KeyError, TypeError, ValueError):
        return None


def table(root: Path) -> Foreign | None:
    """A CSV with a header whose columns name the file, the class and a box."""
    for file in sorted(root.glob("*.csv")):
        with open(file, newline="", encoding="utf-8-sig", errors="replace") as lines:
            reader = csv.DictReader(lines)
            columns = _columns(reader.fieldnames or [])
            if columns is None:
                continue
            found = Collector()
            for row in reader:
                name = str(row.get(columns["name"]) or "").replace("\\", "/")
                label = str(row.get(columns["label"]) or "")
                if not label and not row.get(columns["x1"]):
                    found.image(name)  # how such tables say that there is nothing
                else:
                    found.add(name, label, _of_row(row, columns))
        folder = _folder_of(root, list(found.images))
        return Foreign(f"a table of {file.name}", found.content(), folder, file)
    return None


def _columns(names: Any) -> dict[str, str] | None:
    """Thing -> column; None where one that is needed is not there."""
    lower = {str(name).strip().lower(): str(name) for name in names}
    found = {
        thing: lower[next(word for word in words if word in lower)]
        for thing, words in CSV_WORDS.items()
        if any(word in lower for word in words)
    }
    has_sides = {"x2", "y2"} <= found.keys() or {"w", "h"} <= found.keys()
    return found if {"name", "label", "x1", "y1"} <= found.keys() and has_sides else None


def _of_row(row: dict[str, Any], columns: dict[str, str]) -> list[float] | None:
    try:
        x, y = float(row[columns["x1"]]), float(row[columns["y1"]])
        if {"x2", "y2"} <= columns.keys():
            return [x, y, float(row[columns["x2"]]) - x, float(row[columns["y2"]]) - y]
        return [x, y, float(row[columns["w"]]), float(row[columns["h"]])]
    except (TypeError, ValueError):
        return None


def _folder_of(root: Path, names: list[str]) -> Path:
    """The folder below which the first images lie."""
    for folder in (root, root / "images", root / "img", root / "data"):
        known = Names(folder)
        if any(name in known for name in names[:5]):
            return folder
    return root


def json_in(file: Path) -> Any:
    """The content of a file that may be one of these; None where it is no JSON."""
    try:
        return load_json(file) if file.is_file() else None
    except (OSError, DataError):
        return None


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
