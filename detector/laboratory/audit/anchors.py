"""Anchor scales and ratios that fit the objects of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.config.model import AnchorConfig

MOST_OBJECTS = 10_000
"""Objects that are fitted to, taken evenly; the fit has a handful of numbers to find."""

ROUNDS = 30
"""Of assigning and moving; it has nearly always settled after ten."""

SAME = 1.1
"""Ratios nearer than this factor are one: boxes of the same area then overlap by 0.95."""

Shapes = NDArray[np.float64]
"""(B, 2) width and height in pixels."""


@dataclass(frozen=True)
class Grid:
    """Scales and ratios (h / w), which every level has."""

    scales: tuple[float, ...]
    ratios: tuple[float, ...]


def fit(sides: Shapes, config: AnchorConfig, strides: Sequence[int]) -> Grid:
    """The grid of at most as many scales and ratios as now under which objects overlap best.

    k-means with the distance 1 - IoU (Redmon and Farhadi 2017, YOLO9000, arXiv 1612.08242, section
    2), with centres tied to what a pyramid can have: each level has every scale times its stride,
    and every ratio. An object belongs to the anchor that overlaps it most; then each ratio moves to
    the median of its objects' ratios and each scale to that of their sides, in logarithms. The best
    grid of all rounds is kept. It begins at quantiles of the ratios with scales that part an octave
    evenly, from the best of many smallest ones, and also at the present grid, than which it is
    never worse. Nothing is random.

    sides: (B, 2) of B >= 1 objects, width and height at the model's size.
    """
    picked = np.linspace(0, len(sides) - 1, min(len(sides), MOST_OBJECTS)).round().astype(int)
    sides = sides[picked]
    starts = [Grid(config.scales, config.ratios), even_start(sides, config, strides)]
    found = [refine(start, sides, config.size, strides) for start in starts]
    best = max(found, key=lambda grid: mean_overlap(grid, sides, config.size, strides))
    return Grid(rounded(best.scales), rounded(best.ratios))


def alike(labels: NDArray[np.int64], most: int) -> NDArray[np.intp]:
    """Indices of objects, as many of each class, evenly; those of a rare class more than once.

    At most `most`. labels: (B,) the class of each object.
    """
    classes, counts = np.unique(labels, return_counts=True)
    each = min(int(counts.max()), max(1, most // len(classes)))
    picked = []
    for k in classes:
        mine = np.flatnonzero(labels == k)
        picked.append(mine[np.linspace(0, len(mine) - 1, each).round().astype(int)])
    return np.concatenate(picked)


def even_start(sides: Shapes, config: AnchorConfig, strides: Sequence[int]) -> Grid:
    """Ratios at quantiles, scales evenly over the octave that fits best."""
    num = len(config.ratios)
    logs = np.log(sides[:, 1] / sides[:, 0])
    ratios = distinct(np.exp(np.quantile(logs, (np.arange(num) + 0.5) / num)))
    steps = 2 ** (np.arange(len(config.scales)) / len(config.scales))
    lowest = 2 ** np.arange(-3, 1.01, 0.125)
    grids = [Grid(tuple((low * steps).tolist()), ratios) for low in lowest]
    return max(grids, key=lambda grid: mean_overlap(grid, sides, config.size, strides))


def refine(grid: Grid, sides: Shapes, size: float, strides: Sequence[int]) -> Grid:
    """The best grid met while assigning objects and moving the grid to them."""
    best, best_overlap = grid, mean_overlap(grid, sides, size, strides)
    for _ in range(ROUNDS):
        moved = move(grid, sides, size, strides)
        overlap = mean_overlap(moved, sides, size, strides)
        if overlap > best_overlap:
            best, best_overlap = moved, overlap
        if moved == grid:
            break
        grid = moved
    return best


def move(grid: Grid, sides: Shapes, size: float, strides: Sequence[int]) -> Grid:
    """The grid with each scale and ratio at the median of the objects it serves best."""
    chosen = overlaps(grid, sides, size, strides).argmax(1)
    level, scale, ratio = np.unravel_index(chosen, shape_of(grid, strides))
    bases = np.asarray(strides)[level] * size
    log_scales = np.log(np.sqrt(sides.prod(1)) / bases)
    log_ratios = np.log(sides[:, 1] / sides[:, 0])
    return Grid(medians(grid.scales, log_scales, scale), medians(grid.ratios, log_ratios, ratio))


def medians(values: Sequence[float], logs: Shapes, owner: NDArray[np.intp]) -> tuple[float, ...]:
    """exp of the median of `logs` (B,) of each owner (B,); one without objects stays."""
    return tuple(
        float(np.exp(np.median(logs[owner == i]))) if (owner == i).any() else value
        for i, value in enumerate(values)
    )


def mean_overlap(grid: Grid, sides: Shapes, size: float, strides: Sequence[int]) -> float:
    """Mean over the objects of the best overlap of each."""
    return float(overlaps(grid, sides, size, strides).max(1).mean())


def overlaps(grid: Grid, sides: Shapes, size: float, strides: Sequence[int]) -> Shapes:
    """(B, T) IoU of objects with the anchors of the grid, levels first, then scales, then ratios.

    Centres are a quarter of the level's stride apart on both axes, which is the mean distance to
    the nearest cell: a coarse level with the right shape may still be too far from an object.
    """
    stride, scale, ratio = (
        axis.reshape(-1)
        for axis in np.meshgrid(np.asarray(strides, float), grid.scales, grid.ratios, indexing="ij")
    )
    side = stride * size * scale
    width, height = side / np.sqrt(ratio), side * np.sqrt(ratio)
    common = shared(sides[:, :1], width, stride / 4) * shared(sides[:, 1:], height, stride / 4)
    return common / (sides.prod(1)[:, None] + width * height - common)


def shared(a: Shapes, b: Shapes, distance: Shapes) -> Shapes:
    """Length that two intervals of lengths a and b have in common, their centres so far apart."""
    return np.clip(np.minimum((a + b) / 2 - distance, np.minimum(a, b)), 0, None)


def shape_of(grid: Grid, strides: Sequence[int]) -> tuple[int, int, int]:
    """(levels, scales, ratios)."""
    return len(strides), len(grid.scales), len(grid.ratios)


def distinct(values: Shapes) -> tuple[float, ...]:
    """Values in order, without those within `SAME` of the one before."""
    kept: list[float] = []
    for value in sorted(values.tolist()):
        if not kept or value > kept[-1] * SAME:
            kept.append(value)
    return tuple(kept)


def rounded(values: Sequence[float]) -> tuple[float, ...]:
    """Three significant digits, in order, each once."""
    return tuple(sorted({float(f"{value:.3g}") for value in values}))
