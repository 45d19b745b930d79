"""A data set as files, and the figures that say how hard it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from detector.data.annotations import Annotations
from detector.data.loader import evaluation_batches
from detector.data.readers.base import Dataset, Split
from detector.data.transforms import Augmentation
from detector.structures import Batch, Matches, Targets

SMALL = 32
"""Pixels: COCO calls an object small whose area is below SMALL squared."""


def write_coco(dataset: Dataset, folder: Path, split: Split) -> Path:
    """Writes PNG images and COCO JSON; the path of the JSON.

    The layout is `annotations/instances_{split}.json` and `{split}/000001.png`: what `data=coco`
    reads with train_annotations=annotations/instances_train.json, train_images=train and the same
    for val. PNG keeps every pixel, JSON every digit: the files give the same batches.
    """
    images = folder / split
    images.mkdir(parents=True, exist_ok=True)
    names = [f"{image_id:06d}.png" for image_id in dataset.annotations.image_ids]
    for index, name in enumerate(names):
        Image.fromarray(dataset.image(index)).save(images / name, compress_level=1)
    path = folder / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(coco_content(dataset.annotations, names)))
    return path


def coco_content(annotations: Annotations, names: list[str]) -> dict[str, list[dict[str, Any]]]:
    """The content of a COCO file; names: of the I image files."""
    a = annotations
    owners = np.repeat(a.image_ids, np.diff(a.starts))
    return {
        "images": [
            {"id": int(image_id), "file_name": name, "height": int(size[0]), "width": int(size[1])}
            for image_id, name, size in zip(a.image_ids, names, a.sizes, strict=True)
        ],
        "annotations": [
            {
                "id": int(a.ids[b]),
                "image_id": int(owners[b]),
                "category_id": a.category_ids[a.labels[b]],
                "bbox": a.xywh[b].tolist(),
                "area": float(a.areas[b]),
                "iscrowd": int(a.crowd[b]),
            }
            for b in range(len(owners))
        ],
        "categories": [
            {"id": category, "name": name}
            for category, name in zip(a.category_ids, a.classes, strict=True)
        ],
    }


def figures(
    dataset: Dataset,
    augment: Augmentation,
    match: Callable[[Batch, Targets], Matches],
    *,
    limit: int | None = None,
) -> dict[str, float]:
    """How crowded, small and unbalanced the objects are; from the first `limit` images.

    match: what the matcher makes of a batch at the model's size. Sizes of objects are those in the
    file, crowds left out. foreground, background: anchors of an image on average.
    """
    foreground = background = 0
    for batch, targets in evaluation_batches(dataset, augment, images_per_group=8, limit=limit):
        matches = match(batch, targets)
        foreground += int(matches.foreground.sum())
        background += int(matches.background.sum())
    num_images = len(dataset) if limit is None else min(limit, len(dataset))
    annotations = dataset.annotations.select(range(num_images))
    areas = annotations.areas[~annotations.crowd]
    return {
        "images": num_images,
        "objects": len(areas),
        "objects_per_image": len(areas) / num_images,
        "images_without_objects": int((np.diff(annotations.starts) == 0).sum()),
        "share_under_32_px": float((areas < SMALL**2).mean()) if len(areas) else 0.0,
        "foreground_anchors": foreground / num_images,
        "background_anchors": background / num_images,
        "background_per_foreground": background / max(foreground, 1),
    }


def table(values: dict[str, float]) -> str:
    """The figures, one a line."""
    return "\n".join(f"{key.replace('_', ' '):<26}{value:>10,.6g}" for key, value in values.items())
