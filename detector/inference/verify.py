"""Whether an exported file finds what its checkpoint finds, and a table of the differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.evaluation.text import aligned
from detector.inference.calling import ImageModel
from detector.inference.detections import Detections

MARGIN = 1e-3
"""Of a score or an overlap: what lies nearer to a limit may fall on either side of it."""


@dataclass(frozen=True)
class Bounds:
    """When two detections are the same, and how many may have no partner.

    min_iou, max_score: of partners. above: detections of lower scores are not looked at. unmatched:
    share of those that may lack a partner without a reason. at_limits: share of those that may lack
    one since they lie at the last rank, at the threshold, or at the overlap that suppresses.
    """

    min_iou: float
    max_score: float
    above: float
    unmatched: float
    at_limits: float


BOUNDS = {
    "float32": Bounds(min_iou=0.99, max_score=1e-3, above=0.0, unmatched=0.0, at_limits=0.01),
    "float16": Bounds(min_iou=0.95, max_score=0.02, above=0.3, unmatched=0.01, at_limits=0.01),
}
"""By what a graph computes in. INT8 is judged by AP alone, see `MAX_LOSS_OF_AP`."""

MAX_LOSS_OF_AP = 0.01


@dataclass(frozen=True)
class Row:
    """How both agree on some images at one batch size.

    detections: of either, above the bounds' score. at_limits, unmatched: those without a partner,
    with and without a reason. score, box: the largest difference of a matched pair, pixels for a
    box.
    """

    name: str
    images: int
    detections: int
    at_limits: int
    unmatched: int
    score: float
    box: float

    def holds(self, bounds: Bounds) -> bool:
        """Whether it is within the bounds. Nothing found proves nothing."""
        return (
            self.detections > 0
            and self.unmatched <= bounds.unmatched * self.detections
            and self.at_limits <= bounds.at_limits * self.detections
        )


@dataclass(frozen=True)
class Agreement:
    """The rows, and the bounds that they were held against."""

    rows: tuple[Row, ...]
    bounds: Bounds

    @property
    def is_same(self) -> bool:
        """Whether every row is within the bounds."""
        return len(self.rows) > 0 and all(row.holds(self.bounds) for row in self.rows)

    def table(self) -> list[str]:
        """Lines for a terminal."""
        head = ("images", "detections", "at limits", "unmatched", "score", "box px", "")
        rows: list[tuple[str, ...]] = [("batch", *head)]
        for row in self.rows:
            counts = (row.images, row.detections, row.at_limits, row.unmatched)
            verdict = "" if row.holds(self.bounds) else "not the same"
            rows.append(
                (row.name, *map(str, counts), f"{row.score:.1e}", f"{row.box:.1e}", verdict)
            )
        return aligned(rows)

    def __str__(self) -> str:
        worst = max(self.rows, key=lambda row: (not row.holds(self.bounds), row.unmatched))
        if not worst.detections:
            return (
                f"nothing is found above a score of {self.bounds.above:g} on {worst.images} "
                "images, which proves nothing; images=FOLDER names others"
            )
        return (
            f"{worst.images} images, {worst.detections} detections: {worst.unmatched} without a "
            f"partner, scores differ by at most {worst.score:.1e}, boxes by {worst.box:.1e} px"
        )


def compare(
    predictor: ImageModel,
    graph: ImageModel,
    images: Sequence[NDArray[np.uint8]],
    bounds: Bounds = BOUNDS["float32"],
    *,
    threshold: float = 0.0,
    calibrated: bool = False,
    batches: Sequence[int] = (1, 3),
) -> Agreement:
    """How the two agree on (H, W, 3) images, alone and several at a time.

    threshold, calibrated: as both are called; the graph may have either inside.
    """
    rows = []
    for batch_size in batches:
        options = {"threshold": threshold, "calibrated": calibrated, "batch_size": batch_size}
        ours, theirs = predictor(images, **options), graph(images, **options)
        post = predictor.config.model.postprocess
        limits = (threshold, post.nms_iou, post.detections_per_image)
        pairs = [matched(a, b, bounds, *limits) for a, b in zip(ours, theirs, strict=True)]
        found, at_limits, unmatched, scores, boxes = zip(*pairs, strict=True)
        counts = (sum(found), sum(at_limits), sum(unmatched))
        rows.append(Row(str(batch_size), len(images), *counts, max(scores), max(boxes)))
    return Agreement(tuple(rows), bounds)


def matched(
    ours: Detections,
    theirs: Detections,
    bounds: Bounds = BOUNDS["float32"],
    threshold: float = 0.0,
    nms_iou: float = 0.5,
    most: int = 100,
) -> tuple[int, int, int, float, float]:
    """Detections of both; those at limits and others without a partner; the largest difference of a
    score and of a box.

    threshold, nms_iou, most: the limits that were applied. A detection above the bounds' score may
    have its partner below.
    """
    partner, difference = _partners(ours, theirs, bounds)
    overlap = _overlaps(ours, theirs)
    scores = np.concatenate([ours.scores, theirs.scores])
    is_alone = np.ones(len(scores), bool)
    pairs = np.flatnonzero(partner >= 0)
    is_alone[pairs], is_alone[len(ours) + partner[pairs]] = False, False
    is_full = max(len(ours), len(theirs)) >= most
    is_full = max(len(ours), len(theirs)) >= most
    near = _near_limits(scores, overlap, is_full, threshold, nms_iou)
    at_limits = is_alone & near
    while True:  # one that went or stayed by a hair takes those with it that it overlaps
        more = is_alone & ((overlap > nms_iou - MARGIN) & at_limits).any(1) & ~at_limits
        if not more.any():
            break
        at_limits |= more
    counted = scores > bounds.above if bounds.above > 0 else np.ones(len(scores), bool)
    shown = pairs[counted[pairs]]
    box = 0.0
    if len(shown):
        box = float(np.abs(ours.boxes[shown] - theirs.boxes[partner[shown]]).max())
    return (
        int(counted.sum()),
        int((at_limits & counted).sum()),
        int((is_alone & ~at_limits & counted).sum()),
        float(difference[shown].max()) if len(shown) else 0.0,
        box,
    )


def _partners(ours: Detections, theirs: Detections, bounds: Bounds) -> Any:
    """(S,) the place of each one's partner, -1 without; (S,) the difference of their scores.

    By falling score each takes the one with the most overlap that is left.
    """
    iou = iou_of(ours.boxes, theirs.boxes)
    gap = np.abs(ours.scores[:, None] - theirs.scores[None])
    is_fit = (ours.labels[:, None] == theirs.labels[None]) & (iou >= bounds.min_iou)
    iou = np.where(is_fit & (gap <= bounds.max_score), iou, -1.0)
    partner = np.full(len(ours), -1)
    for i in range(len(ours)):
        if iou.shape[1] and iou[i].max() >= 0:
            partner[i] = int(iou[i].argmax())
            iou[:, partner[i]] = -1.0
    difference = np.array([gap[i, j] if j >= 0 else 0.0 for i, j in enumerate(partner)])
    return partner, difference


def _overlaps(ours: Detections, theirs: Detections) -> NDArray[np.float64]:
    """(S, S) IoU of all detections of both with each other, 0 for other classes and for itself."""
    boxes = np.concatenate([ours.boxes, theirs.boxes])
    labels = np.concatenate([ours.labels, theirs.labels])
    iou = iou_of(boxes, boxes) * (labels[:, None] == labels[None])
    np.fill_diagonal(iou, 0.0)
    return iou


def _near_limits(
    scores: NDArray[Any],
    overlap: NDArray[np.float64],
    is_full: bool,
    threshold: float,
    nms_iou: float,
) -> NDArray[np.bool_]:
    """Which lie within MARGIN of the last rank, of the threshold or of the overlap of NMS."""
    near: Any = (np.abs(overlap - nms_iou) <= MARGIN).any(1)
    if threshold > 0:
        near |= scores <= threshold + MARGIN
    if is_full:
        near |= scores <= scores.min() + MARGIN
    return near


def iou_of(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """(S, T) of boxes (S, 4) and (T, 4)."""
    a, b = a.astype(np.float64)[:, None], b.astype(np.float64)[None]
    sides = np.maximum(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0)
    shared = np.prod(sides, -1)
    areas = [np.prod(x[..., 2:] - x[..., :2], -1) for x in (a, b)]
    return shared / np.maximum(areas[0] + areas[1] - shared, np.finfo(np.float64).tiny)
