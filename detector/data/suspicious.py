"""What is suspicious about boxes, though each may be right: told, and left as it is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FEWEST = 4
"""Boxes below which nothing is said: of three, all may fit anything."""

NEARLY_ALL = 0.99
SOME = 0.1
"""Shares of the boxes of a split."""

LARGEST = 1e9
"""Pixels; with a larger number among them, boxes are of no form at all."""

SLACK = 1.0
"""Pixels by which a right box may leave its image: of rounding."""


def as_corners(
    numbers: NDArray[np.float64],
    sizes: NDArray[np.int32],
    areas: NDArray[np.float64] | None = None,
    *,
    centred: bool = False,
) -> str | None:
    """A warning where the four numbers of boxes fit only if they are read as two corners.

    numbers (B, 4) read as left, top, width, height in pixels, or where `centred` as centre and
    sides; sizes (B, 2), height and width of each box's image; areas (B,) as stated, in square
    pixels. A set is suspicious in which nearly
    all boxes are corners in the right order inside their image, and as sides some leave it, or
    their stated areas are those between the corners.
    """
    b = numbers
    if len(b) < FEWEST or not np.all(np.abs(b) < LARGEST):
        return None
    height, width = sizes[:, 0].astype(np.float64), sizes[:, 1].astype(np.float64)
    ordered = (b[:, 2] > b[:, 0]) & (b[:, 3] > b[:, 1])
    fits = ordered & (b[:, 2] <= width + SLACK) & (b[:, 3] <= height + SLACK)
    if fits.mean() < NEARLY_ALL:
        return None
    begin = b[:, :2] - b[:, 2:] / 2 if centred else b[:, :2]
    leaves = np.any(begin < -SLACK, axis=1) & centred
    leaves |= (begin[:, 0] + b[:, 2] > width + SLACK) | (begin[:, 1] + b[:, 3] > height + SLACK)
    between = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    sides = b[:, 2] * b[:, 3]
    by_area = False
    if areas is not None:
        is_between = np.abs(areas - between) <= 0.02 * between
        is_sides = np.abs(areas - sides) <= 0.02 * sides
        by_area = bool(is_between.mean() > NEARLY_ALL - SOME and is_sides.mean() < SOME)
    if leaves.mean() < SOME and not by_area:
        return None
    form, way = ("centre and sides", "labels of this form are needed")
    if not centred:
        form, way = ("left, top, width, height", "data.boxes=corners reads them so")
    return (
        f"{int(leaves.sum())} of {len(b)} boxes leave their image if they are read as {form}, and "
        f"nearly all fit as two corners; {way}"
    )


def as_shares(numbers: NDArray[np.float64]) -> str | None:
    """A warning where all boxes (B, 4), read in pixels, lie between 0 and 1."""
    if len(numbers) < FEWEST or not np.all(np.isfinite(numbers)):
        return None
    if numbers.min() < 0 or numbers.max() > 1:
        return None
    return (
        "all numbers of the boxes lie between 0 and 1: they may be shares of the image and not "
        "pixels, which are needed"
    )


def areas_disagree(xywh: NDArray[np.float64], areas: NDArray[np.float64]) -> str | None:
    """A warning where stated areas are larger than their boxes (B, 4), which no outline can be."""
    if len(areas) < FEWEST:
        return None
    sides = xywh[:, 2] * xywh[:, 3]
    # Outlines are rounded to hundredths of a pixel and may touch the next one.
    larger = areas > 1.1 * sides + 4
    if larger.mean() < SOME:
        return None
    return (
        f"{int(larger.sum())} of {len(areas)} areas are larger than their boxes: the boxes may be "
        "of another form, or of another size of the image"
    )


def alike(classes: tuple[str, ...]) -> list[str]:
    """A warning for each two classes whose names differ in nothing that is read aloud."""
    groups: dict[str, list[str]] = {}
    for name in classes:
        groups.setdefault("".join(c for c in name.casefold() if c.isalnum()), []).append(name)
    return [
        f"classes {' and '.join(map(repr, names))} differ in nothing but case, spaces or signs"
        for key, names in groups.items()
        if len(names) > 1 and key
    ]
