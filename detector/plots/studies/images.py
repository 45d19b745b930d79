"""The same images at several moments of training, with what the detector found in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from detector.plots.style import COLORS, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RIGHT, WRONG = COLORS[2], COLORS[1]

IOU = 0.5
"""From which on a detection of the right class is right."""

MOST_SHOWN = 100
"""Detections that are drawn of an image."""


@dataclass(frozen=True)
class Found:
    """An image at a moment: boxes (S, 4) xywh in pixels, whether each is right (S,).

    objects: how many there are to be found.
    """

    boxes: np.ndarray
    right: np.ndarray
    objects: int


def highest(detections: Sequence[Mapping[str, Any]], truth: Sequence[Mapping[str, Any]]) -> Found:
    """Of an image: as many detections as it has objects, those of the highest scores.

    Scores of losses mean different things, so no threshold would be fair to all; a rank is. Each
    object is found once, by the best score that overlaps it by `IOU`.
    """
    ranked = sorted(detections, key=lambda row: -row["score"])
    ranked = ranked[: min(len(truth), MOST_SHOWN)]
    free = list(range(len(truth)))
    right = []
    for row in ranked:
        same = [i for i in free if truth[i]["category_id"] == row["category_id"]]
        overlaps = [iou(row["bbox"], truth[i]["bbox"]) for i in same]
        hit = bool(overlaps) and max(overlaps) >= IOU
        right.append(hit)
        if hit:
            free.remove(same[int(np.argmax(overlaps))])
    boxes = np.array([row["bbox"] for row in ranked], dtype=float).reshape(-1, 4)
    return Found(boxes, np.array(right, dtype=bool), len(truth))


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Of two boxes xywh."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = max(width, 0.0) * max(height, 0.0)
    union = a[2] * a[3] + b[2] * b[3] - both
    return both / union if union > 0 else 0.0


def draw_moments(
    pictures: Sequence[Any],
    sizes: Sequence[tuple[float, float]],
    moments: Mapping[str, Sequence[Found]],
    *,
    width: float,
) -> Figure:
    """A row for each moment, a column for each image.

    pictures: (H, W, 3), possibly smaller than `sizes` (w, h), which boxes are in.
    """
    from matplotlib.figure import Figure

    cell = width / len(pictures) * max(height / across for across, height in sizes)
    figure = Figure(figsize=(width, len(moments) * (cell + 0.12) + 0.1), layout="constrained")
    axes = figure.subplots(len(moments), len(pictures), squeeze=False)
    for row, (name, found) in zip(axes, moments.items(), strict=True):
        for axis, picture, size, one in zip(row, pictures, sizes, found, strict=True):
            _image(axis, picture, size, one)
        row[0].set_ylabel(name)
    return figure


def _image(axis: Axes, picture: Any, size: tuple[float, float], found: Found) -> None:
    from matplotlib.patches import Rectangle

    axis.imshow(picture, extent=(0, size[0], size[1], 0), interpolation="lanczos")
    for (x, y, w, h), right in sorted(zip(found.boxes, found.right, strict=True), key=_is_right):
        color = RIGHT if right else WRONG
        axis.add_patch(
            Rectangle((x, y), w, h, fill=False, edgecolor=color, linewidth=1.0, clip_on=True)
        )
    axis.set(xlim=(0, size[0]), ylim=(size[1], 0), xticks=(), yticks=())
    title = f"{int(found.right.sum())} of {found.objects} found"
    axis.set_title(title, fontsize=6, pad=2, color=INK)


def _is_right(entry: tuple[Any, Any]) -> bool:
    return bool(entry[1])
