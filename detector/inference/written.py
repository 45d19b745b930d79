"""What is written of predictions: JSON of our own, COCO, YOLO text, CSV, drawn copies and crops."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detector.data.images import SUFFIXES
from detector.errors import StorageError
from detector.evaluation.coco import results
from detector.inference.detections import Detections

Format = Literal["json", "coco", "yolo", "csv"]

PREDICTIONS = "predictions.json"
COCO = "coco.json"
CSV = "predictions.csv"
LABELS = "labels"
"""The folder of YOLO's text files."""

CROPS = "crops"
COLUMNS = ("file", "label", "score", "x1", "y1", "x2", "y2")


@dataclass
class Written:
    """Collects what is found and writes it. names: as relative files; sizes: height and width."""

    output: Path
    formats: Sequence[Format] = ("json",)
    draw: bool = True
    crops: bool = False
    names: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    found: list[Detections] = field(default_factory=list)

    def add(self, name: str, pixels: NDArray[np.uint8], detections: Detections) -> None:
        """One image: its copy and its crops at once, the rest at the end."""
        self.names.append(name)
        self.sizes.append((pixels.shape[0], pixels.shape[1]))
        self.found.append(detections)
        if self.draw:
            save(self.output / copy_name(name), detections.draw(pixels))
        if self.crops:
            self._crop(name, pixels, detections)

    def finish(self) -> list[Path]:
        """Writes the files of all images; the first is the one that is always there."""
        self.output.mkdir(parents=True, exist_ok=True)
        path = self.output / PREDICTIONS
        rows = zip(self.names, self.found, strict=True)
        lines = [json.dumps({"file": name, **found.to_dict()}) for name, found in rows]
        path.write_text("[\n" + ",\n".join(lines) + "\n]\n")
        writers = {"coco": self._coco, "yolo": self._yolo, "csv": self._csv}
        return [path, *(writers[kind]() for kind in self.formats if kind in writers)]

    def _crop(self, name: str, pixels: NDArray[np.uint8], detections: Detections) -> None:
        """crops/CLASS/NAME_1.png: what is inside of each box, whole pixels, cut at the image."""
        height, width = pixels.shape[:2]
        for i, (box, _, _, label) in enumerate(detections, 1):
            left, top = (max(0, int(np.floor(v))) for v in box[:2])
            right, bottom = min(width, int(np.ceil(box[2]))), min(height, int(np.ceil(box[3])))
            if right <= left or bottom <= top:
                continue
            stem = str(Path(name).with_suffix("")).replace("/", "_")
            folder = self.output / CROPS / label.replace("/", "_")
            save(folder / f"{stem}_{i}.png", Image.fromarray(pixels[top:bottom, left:right]))

    def _coco(self) -> Path:
        """A COCO data set whose objects are what was found, with their scores: labelling tools read
        it, and what is right in it need not be drawn again."""
        images = [
            {"id": i, "file_name": name, "height": height, "width": width}
            for i, (name, (height, width)) in enumerate(zip(self.names, self.sizes, strict=True), 1)
        ]
        rows = [
            row
            for i, found in enumerate(self.found, 1)
            for row in results(i, found.boxes, found.scores, found.labels, found.category_ids)
        ]
        annotations = [
            {"id": i, **row, "area": row["bbox"][2] * row["bbox"][3], "iscrowd": 0}
            for i, row in enumerate(rows, 1)
        ]
        first = self.found[0] if self.found else None
        pairs = zip(first.category_ids, first.classes, strict=True) if first else ()
        categories = [{"id": number, "name": name} for number, name in pairs]
        content = {"images": images, "annotations": annotations, "categories": categories}
        path = self.output / COCO
        path.write_text(json.dumps(content) + "\n")
        return path

    def _yolo(self) -> Path:
        """labels/NAME.txt, a line "class x y width height score" for each object, and classes.txt:
        centre and sides as shares of the image, classes by their place in the model."""
        folder = self.output / LABELS
        folder.mkdir(parents=True, exist_ok=True)
        for name, (height, width), found in zip(self.names, self.sizes, self.found, strict=True):
            lines = [_yolo_line(one, height, width) for one in found]
            path = (folder / name).with_suffix(".txt")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(lines))
        classes = self.found[0].classes if self.found else ()
        (folder / "classes.txt").write_text("".join(f"{name}\n" for name in classes))
        return folder

    def _csv(self) -> Path:
        """A row for each object: file, class, score, corners in pixels."""
        path = self.output / CSV
        with open(path, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for name, found in zip(self.names, self.found, strict=True):
                for box, score, _, label in found:
                    writer.writerow([name, label, score, *box])
        return path


def _yolo_line(one: Any, height: int, width: int) -> str:
    x1, y1, x2, y2 = one.box
    shares = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height
    numbers = " ".join(f"{share:.6f}" for share in shares)
    return f"{one.label} {numbers} {one.score:.6f}\n"


def copy_name(name: str) -> str:
    """The name of an image's drawn copy: its own, so that no two images share one."""
    return name if Path(name).suffix.lower() in SUFFIXES else f"{name}.png"


def save(path: Path, image: Image.Image) -> None:
    """Writes a picture in the format of its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=95)


@contextmanager
def storage(output: Path) -> Iterator[None]:
    """Raises StorageError, which names the folder and the reason, where it cannot be written."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(f"output_dir: {output} cannot be written ({reason})") from None
