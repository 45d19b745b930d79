"""COCO dicts as arrays, in the order in which pycocotools takes them.

I  images, by rising id
K  classes, by rising category id
B  objects, crowds included
S  detections
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from detector.evaluation import coco

MAX_DETECTIONS = 100
"""Per image and class, the highest scores first: COCO's last maxDets."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Objects:
    """Ground truth by image, then class, then as given.

    images (B,) in [0, I); labels (B,) in [0, K); boxes (B, 4) xywh in pixels; areas (B,) as in the
    file; crowd (B,) bool; rows (B,): the place in the list of annotations.
    """

    images: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Found:
    """Detections by image, then class, then falling score, then as given.

    images (S,); labels (S,); boxes (S, 4) xywh in pixels; areas (S,) of the boxes; scores (S,);
    rows (S,): the place in the list of detections.
    """

    images: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    scores: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Packed:
    """A data set and what was found on it. image_ids (I,); classes: K names; category_ids (K,)."""

    image_ids: np.ndarray
    classes: tuple[str, ...]
    category_ids: np.ndarray
    objects: Objects
    found: Found

    @property
    def num_images(self) -> int:
        return len(self.image_ids)

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def count_objects(self) -> np.ndarray:
        """(I,) objects of an image that are no crowd."""
        single = self.objects.images[~self.objects.crowd]
        return np.bincount(single, minlength=self.num_images)


def pack(
    ground_truth: Mapping[str, list[Row]],
    detections: Sequence[Row],
    *,
    max_detections: int = MAX_DETECTIONS,
) -> Packed:
    """Arrays of COCO's ground truth and results; of an image and class at most `max_detections`.

    Raises DataError for ids that are not in the ground truth or are there twice, and for scores
    and boxes that are not finite.
    """
    coco.check_ground_truth(ground_truth)
    coco.check_detections(ground_truth, detections)
    image_ids = np.array(sorted(row["id"] for row in ground_truth["images"]), dtype=np.int64)
    categories = sorted(ground_truth["categories"], key=lambda row: row["id"])
    category_ids = np.array([row["id"] for row in categories], dtype=np.int64)
    return Packed(
        image_ids=image_ids,
        classes=tuple(str(row["name"]) for row in categories),
        category_ids=category_ids,
        objects=_objects(ground_truth["annotations"], image_ids, category_ids),
        found=_found(detections, image_ids, category_ids, max_detections),
    )


def _objects(rows: Sequence[Row], image_ids: np.ndarray, category_ids: np.ndarray) -> Objects:
    images, labels, boxes = _columns(rows, image_ids, category_ids)
    areas = boxes[:, 2] * boxes[:, 3]
    given = np.array([row.get("area", np.nan) for row in rows], dtype=np.float64)
    areas = np.where(np.isnan(given), areas, given)
    crowd = np.array([bool(row.get("iscrowd", 0)) for row in rows], dtype=bool)
    order = np.lexsort((labels, images))
    return Objects(images[order], labels[order], boxes[order], areas[order], crowd[order], order)


def _found(
    rows: Sequence[Row], image_ids: np.ndarray, category_ids: np.ndarray, limit: int
) -> Found:
    images, labels, boxes = _columns(rows, image_ids, category_ids)
    scores = np.fromiter((row["score"] for row in rows), np.float64, len(rows))
    order = np.lexsort((-scores, labels, images))
    keys = images[order] * len(category_ids) + labels[order]
    order = order[ranks(keys) < limit]
    areas = boxes[:, 2] * boxes[:, 3]
    return Found(images[order], labels[order], boxes[order], areas[order], scores[order], order)


def _columns(
    rows: Sequence[Row], image_ids: np.ndarray, category_ids: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image indices (L,), labels (L,) and boxes (L, 4) of L rows whose ids are known."""
    images = np.fromiter((row["image_id"] for row in rows), np.int64, len(rows))
    labels = np.fromiter((row["category_id"] for row in rows), np.int64, len(rows))
    # An array of doubles grows by 32 bytes a row; a list of lists would take ten times as much.
    boxes = array("d")
    for row in rows:
        boxes.extend(row["bbox"])
    return (
        np.searchsorted(image_ids, images),
        np.searchsorted(category_ids, labels),
        np.array(boxes, dtype=np.float64).reshape(-1, 4),
    )


def ranks(keys: np.ndarray) -> np.ndarray:
    """(L,) how many equal keys stand before each of the sorted keys (L,)."""
    return np.arange(len(keys)) - np.searchsorted(keys, keys, side="left")


def pairs_of(
    found_keys: np.ndarray, object_keys: np.ndarray, *, at_most: int = 1 << 20
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Indices (P,) of detections and (P,) of objects that have one key, in portions.

    Keys are sorted, one per detection and object. The pairs of a detection are in one portion,
    which has about `at_most` pairs, so that memory does not grow with the number of images.
    """
    first = np.searchsorted(object_keys, found_keys, side="left")
    counts = np.searchsorted(object_keys, found_keys, side="right") - first
    portions = np.cumsum(counts) // at_most
    cuts = [0, *(np.flatnonzero(np.diff(portions)) + 1), len(found_keys)]
    for start, end in pairwise(cuts):
        number = counts[start:end]
        found = np.repeat(np.arange(start, end), number)
        within = np.arange(len(found)) - np.repeat(np.cumsum(number) - number, number)
        yield found, first[found] + within
