"""Outcomes and data sets whose truth is known, made by hand or drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from detector.analysis.matching import Outcomes

Row = dict[str, Any]

SLOTS = 36
"""Places of an image, 50 pixels apart, each with one detection and perhaps an object."""


def make_outcomes(
    scores: Sequence[float],
    ious: Sequence[float],
    *,
    labels: Sequence[int] | None = None,
    images: Sequence[int] | None = None,
    missed: Sequence[tuple[int, int]] = (),
    num_images: int = 1,
    num_classes: int = 1,
    threshold: float = 0.5,
) -> Outcomes:
    """Detections with these scores; one with an IoU above 0 has found an object of its own.

    missed: (image, label) of objects that nothing found.
    """
    overlap = np.array(ious, dtype=np.float64)
    hits = overlap > 0
    label = np.zeros(len(overlap), dtype=int) if labels is None else np.array(labels)
    image = np.zeros(len(overlap), dtype=int) if images is None else np.array(images)
    lost = np.array(missed, dtype=int).reshape(-1, 2)
    return Outcomes(
        threshold=threshold,
        classes=tuple(f"class {k}" for k in range(num_classes)),
        num_images=num_images,
        scores=np.array(scores, dtype=np.float64),
        labels=label,
        images=image,
        areas=np.full(len(overlap), 100.0),
        hits=hits,
        ious=overlap,
        object_images=np.concatenate([image[hits], lost[:, 0]]),
        object_labels=np.concatenate([label[hits], lost[:, 1]]),
        object_found=np.concatenate([np.flatnonzero(hits), np.full(len(lost), -1)]),
    )


def random_outcomes(seed: int, *, num_classes: int = 3, num_images: int = 7) -> Outcomes:
    """60 detections with scores of two decimals, which lie on edges of bins too."""
    rng = np.random.default_rng(seed)
    ious = np.where(rng.random(60) < 0.5, rng.uniform(0.5, 1, 60), 0.0)
    return make_outcomes(
        rng.integers(0, 101, 60) / 100,
        ious.tolist(),
        labels=rng.integers(0, num_classes, 60).tolist(),
        images=rng.integers(0, num_images, 60).tolist(),
        missed=[(int(rng.integers(num_images)), k) for k in range(num_classes)],
        num_images=num_images,
        num_classes=num_classes,
    )


def drawn_set(
    seed: int,
    distortion: Callable[[np.ndarray], np.ndarray],
    *,
    num_images: int = 150,
    iou: float = 1.0,
) -> tuple[dict[str, list[Row]], list[Row]]:
    """COCO ground truth and results whose posterior is known: uniform on [0, 1].

    A detection whose object is there with probability p scores distortion(p); where it is there,
    it overlaps by `iou`. Nothing else is in the images.
    """
    rng = np.random.default_rng(seed)
    side = int(np.sqrt(SLOTS))
    corners = 50.0 * np.stack(np.divmod(np.arange(SLOTS), side), axis=1)
    # Of two boxes of width 40, one moved by d, the IoU is (40 - d) / (40 + d).
    shift = 40 * (1 - iou) / (1 + iou)
    objects, found = [], []
    for image in range(1, num_images + 1):
        posterior = rng.random(SLOTS)
        there = rng.random(SLOTS) < posterior
        for (x, y), score, is_there in zip(corners, distortion(posterior), there, strict=True):
            box = [float(x), float(y), 40.0, 40.0]
            row = {"image_id": image, "category_id": 1}
            found.append({**row, "bbox": [box[0] + shift, *box[1:]], "score": float(score)})
            if is_there:
                objects.append({**row, "bbox": box, "area": 1600.0, "iscrowd": 0})
    images = [{"id": image, "height": 300, "width": 300} for image in range(1, num_images + 1)]
    annotations = [{**row, "id": i + 1} for i, row in enumerate(objects)]
    categories = [{"id": 1, "name": "thing"}]
    return {"images": images, "categories": categories, "annotations": annotations}, found
