"""AP of images drawn anew, without matching anything again.

A draw gives each image a weight: how often it was drawn. A detection counts as often as its image.
AP is then a function of sums of weights up to each true positive, so a draw costs a few cumulative
sums. COCO's rule: precision is the best at a recall or a greater one, read at 101 recalls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from detector.analysis.curves import RECALLS
from detector.analysis.matching import COCO_THRESHOLDS, Matching, match
from detector.analysis.packing import Packed


@dataclass(frozen=True)
class OfClass:
    """The detections of a class, by falling score.

    scores (S,); images (S,): of each; hits, counted (T, S) bool: right, and not ignored; objects
    (I,): how many of the class an image has.
    """

    scores: np.ndarray
    images: np.ndarray
    hits: np.ndarray
    counted: np.ndarray
    objects: np.ndarray


@dataclass(frozen=True)
class Resampled:
    """What a metric needs of a run, class by class; classes without objects are left out.

    value: (R,) the metric of a class on draws with weights (R, I); None: AP.
    """

    num_images: int
    classes: tuple[OfClass, ...]
    value: Callable[[OfClass, np.ndarray], np.ndarray] | None = None

    @staticmethod
    def of(
        packed: Packed,
        matching: Matching | None = None,
        only: int | None = None,
        value: Callable[[OfClass, np.ndarray], np.ndarray] | None = None,
    ) -> Resampled:
        """Matches once; by default at COCO's ten thresholds. only: one class in [0, K)."""
        matching = match(packed, COCO_THRESHOLDS) if matching is None else matching
        found, objects = packed.found, packed.objects
        wanted = ~matching.ignored_objects
        classes = []
        for k in range(packed.num_classes) if only is None else [only]:
            mine = np.flatnonzero(found.labels == k)
            mine = mine[np.argsort(-found.scores[mine], kind="stable")]
            owners = objects.images[wanted & (objects.labels == k)]
            if len(owners):
                classes.append(
                    OfClass(
                        scores=found.scores[mine],
                        images=found.images[mine],
                        hits=matching.hits[:, mine],
                        counted=~matching.ignored[:, mine],
                        objects=np.bincount(owners, minlength=packed.num_images),
                    )
                )
        return Resampled(packed.num_images, tuple(classes), value)

    def ap(self, weights: np.ndarray) -> np.ndarray:
        """(R,) AP, or the metric, of draws with weights (R, I); nan where no object was drawn."""
        columns = [(self.value or _class_ap)(part, weights) for part in self.classes]
        table = np.array(columns).reshape(len(columns), len(weights))
        there = ~np.isnan(table)
        number = there.sum(axis=0)
        total = np.where(there, table, 0.0).sum(axis=0)
        return np.divide(total, number, out=np.full(len(weights), np.nan), where=number > 0)


def _class_ap(part: OfClass, weights: np.ndarray) -> np.ndarray:
    """(R,) mean over thresholds of one class, nan for draws without an object of it."""
    objects = weights @ part.objects
    mine = weights[:, part.images]
    is_all_counted = bool(part.counted.all())
    every = np.cumsum(mine, axis=1)
    values = np.zeros((len(part.hits), len(weights)))
    for t, hits in enumerate(part.hits):
        places = np.flatnonzero(hits & part.counted[t])
        if not len(places):
            continue
        seen = every if is_all_counted else np.cumsum(mine * part.counted[t], axis=1)
        true = np.cumsum(mine[:, places], axis=1)
        # An image that was not drawn has weight 0: 0 / 0 is no precision at all.
        ratio = np.divide(true, seen[:, places], out=np.zeros_like(true), where=seen[:, places] > 0)
        best = np.maximum.accumulate(ratio[:, ::-1], axis=1)[:, ::-1]
        for r in np.flatnonzero(objects):
            place = np.searchsorted(true[r] / objects[r], RECALLS, side="left")
            values[t, r] = np.append(best[r], 0.0)[place].mean()
    return np.where(objects > 0, values.mean(axis=0), np.nan)
