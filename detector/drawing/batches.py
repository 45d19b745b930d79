"""What is drawn of batches."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detector.drawing.drawing import Mark
from detector.structures import Batch, Matches, Targets

STRIPE = 8
"""Pixels: the width of the stripes that stand for padding."""


def striped(batch: Batch) -> NDArray[np.uint8]:
    """(N, H, W, 3) pixels of a batch with the padding striped in grey."""
    pixels = batch.images.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy().copy()
    height, width = pixels.shape[1:3]
    rows, columns = np.mgrid[:height, :width]
    stripes = np.where((rows + columns) // STRIPE % 2, 150, 200).astype(np.uint8)
    for image, (h, w) in zip(pixels, batch.sizes.tolist(), strict=True):
        is_padding = (rows >= h) | (columns >= w)
        image[is_padding] = stripes[is_padding, None]
    return pixels


def of_objects(
    i: int, targets: Targets, classes: tuple[str, ...], found: Matches | None = None
) -> list[Mark]:
    """What is drawn on the `i`-th image: its objects, and the anchors that have one."""
    result = []
    labels, crowd = targets.labels[i].tolist(), targets.crowd[i].tolist()
    for m, (box, label) in enumerate(zip(targets.boxes[i].tolist(), labels, strict=True)):
        if label < 0:  # the image has fewer objects than another
            continue
        text = f"{classes[label]} (crowd)" if crowd[m] else classes[label]
        if found is not None and not crowd[m]:
            text += f": {int((found.objects[i] == m).sum())}"
        result.append(Mark(tuple(box), label, text, is_dashed=crowd[m]))
    if found is not None:
        chosen = found.foreground[i]
        boxes, owners = found.anchors.boxes[chosen].tolist(), found.labels[i, chosen].tolist()
        result += [Mark(tuple(b), k, is_thin=True) for b, k in zip(boxes, owners, strict=True)]
    return result
