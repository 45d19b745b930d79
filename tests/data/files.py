"""Small data sets on disk, others made of arrays, and what makes batches the same."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from detector.data.annotations import Annotations, Rows, pack
from detector.data.handling import Handling, OnInvalid
from detector.data.readers.base import Dataset
from detector.errors import DataError
from detector.structures import Batch, Targets

CONTENT: dict[str, Any] = {
    "images": [
        {"id": 7, "file_name": "b.png", "height": 30, "width": 40},
        {"id": 3, "file_name": "a.png", "height": 20, "width": 50},
        {"id": 9, "file_name": "c.png", "height": 10, "width": 10},
    ],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 90, "bbox": [1, 2, 10, 20.5], "iscrowd": 0},
        {"id": 2, "image_id": 3, "category_id": 4, "bbox": [0, 0, 50, 20], "iscrowd": 1},
        {"id": 3, "image_id": 7, "category_id": 4, "bbox": [5, 5, 4, 4], "area": 12.5},
    ],
    "categories": [{"id": 90, "name": "cat"}, {"id": 4, "name": "dog"}],
}
"""Three images out of order, the last without objects; ids with gaps."""


def content() -> dict[str, Any]:
    """A copy of CONTENT to spoil."""
    return copy.deepcopy(CONTENT)


def write_json(root: Path, value: Any, name: str = "train.json") -> Path:
    path = root / name
    path.write_text(json.dumps(value))
    return path


def write_image(path: Path, height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Writes random pixels and returns them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def write_coco_set(root: Path, value: dict[str, Any] | None = None) -> dict[str, str]:
    """CONTENT or another as train and val with its images; the options of the reader."""
    value = content() if value is None else value
    write_json(root, value)
    for i, row in enumerate(value["images"]):
        write_image(root / "images" / row["file_name"], row["height"], row["width"], i)
    return {
        "root": str(root),
        "train_annotations": "train.json",
        "train_images": "images",
        "val_annotations": "train.json",
        "val_images": "images",
    }


class ArrayDataset(Dataset):
    """Images of one colour, its red the index; `broken`: indices whose file is spoilt."""

    def __init__(
        self,
        annotations: Annotations,
        broken: frozenset[int] = frozenset(),
        on_corrupt: OnInvalid = "error",
    ) -> None:
        super().__init__("arrays", annotations)
        self.broken, self.on_corrupt = broken, on_corrupt

    @property
    def handling(self) -> Handling:
        return Handling(on_corrupt=self.on_corrupt)

    def image(self, index: int) -> NDArray[np.uint8]:
        if index in self.broken:
            raise DataError(f"/images/{index}.png: cannot be read as an image")
        height, width = self.annotations.sizes[index]
        return np.full((height, width, 3), (index, 1, 2), np.uint8)


def make_dataset(
    sizes: list[tuple[int, int]],
    counts: list[int],
    broken: frozenset[int] = frozenset(),
    *,
    first_id: int = 100,
    on_corrupt: OnInvalid = "error",
) -> ArrayDataset:
    """Images of (height, width) with so many objects of 4 x 5 px, of classes 0, 1, 2 in turn."""
    rows = Rows()
    for i, (size, count) in enumerate(zip(sizes, counts, strict=True)):
        rows.image_ids.append(first_id + i)
        rows.file_names.append(f"{i}.png")
        rows.sizes.append(size)
        for m in range(count):
            rows.owners.append(i)
            rows.xywh.append((float(m), 2.0, 4.0, 5.0))
            rows.labels.append(1 + m % 3)
            rows.crowd.append(m == 2)
            rows.areas.append(20.0)
            rows.ids.append(len(rows.ids))
    categories = {1: "one", 2: "two", 3: "three"}
    packed = pack(rows, source="arrays", categories=categories)
    return ArrayDataset(packed, broken, on_corrupt)


def assert_same_batches(
    a: Sequence[tuple[Batch, Targets]], b: Sequence[tuple[Batch, Targets]]
) -> None:
    """Bit for bit, every field."""
    assert len(a) == len(b) > 0
    for pair, other in zip(a, b, strict=True):
        for left, right in zip(pair, other, strict=True):
            for item in fields(left):
                x, y = getattr(left, item.name), getattr(right, item.name)
                assert torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y, item.name
