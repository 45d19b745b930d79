"""Reliability diagrams: how often detections of about one score are right, with their numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detector.analysis.calibration import bins, equal_width
from detector.analysis.matching import AREAS, Outcomes

SIZES = tuple(AREAS)
"""By the area of the detection's box: below 32^2, from 32^2, from 96^2 square pixels."""


@dataclass(frozen=True)
class Diagram:
    """B bins (low, high] of scores.

    edges (B + 1,); counts (B,) detections; right (B,) true positives among them; scores (B,) and
    targets (B,): means, None in an empty bin. targets are precision, or IoU for a diagram of it.
    """

    edges: list[float]
    counts: list[int]
    right: list[int]
    scores: list[float | None]
    targets: list[float | None]


def diagram(
    scores: np.ndarray, targets: np.ndarray, hits: np.ndarray, *, number: int = 10
) -> Diagram:
    """The diagram of detections (S,) with `number` bins of equal width over [0, 1]."""
    edges = equal_width(number)
    cells = bins(scores, edges)
    counts = np.bincount(cells, minlength=number)
    return Diagram(
        edges=edges.tolist(),
        counts=counts.tolist(),
        right=np.bincount(cells[hits], minlength=number).tolist(),
        scores=_means(cells, scores, counts),
        targets=_means(cells, targets, counts),
    )


def _means(cells: np.ndarray, values: np.ndarray, counts: np.ndarray) -> list[float | None]:
    sums = np.bincount(cells, weights=values, minlength=len(counts))
    return [float(s) / int(n) if n else None for s, n in zip(sums, counts, strict=True)]


def diagrams(found: Outcomes) -> dict[str, dict[str, Diagram]]:
    """{"all": {"all"}, "class": {name}, "size": {small, medium, large}} of true positives."""
    small, large = AREAS["small"][1], AREAS["medium"][1]
    sizes = np.searchsorted([small, large], found.areas, side="right")
    return {
        "all": {"all": _of(found, np.ones(len(found), dtype=bool))},
        "class": {name: _of(found, found.labels == k) for k, name in enumerate(found.classes)},
        "size": {name: _of(found, sizes == i) for i, name in enumerate(SIZES)},
    }


def _of(found: Outcomes, chosen: np.ndarray) -> Diagram:
    hits = found.hits[chosen]
    return diagram(found.scores[chosen], hits.astype(np.float64), hits)
