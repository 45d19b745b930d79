"""Precision and recall as COCO draws them, with AP and AR by class, size and crowding.

The published twelve numbers come from the evaluator (`coco.evaluate`); here the same rule is
applied to parts for which the evaluator has no number, and to what an error costs. Proven equal to
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detector.analysis.matching import (
    AREAS,
    COCO_THRESHOLDS,
    Matching,
    Pairs,
    match,
)
from detector.analysis.packing import Packed

RECALLS = np.linspace(0.0, 1.0, 101)

CROWDING = (1, 5, 10, 20)
"""Smallest number of objects of an image in each group; ours, about the quartiles of COCO."""


@dataclass(frozen=True)
class Curves:
    """Of K classes at T IoU thresholds.

    precision (K, T, 101) at the recalls 0, 0.01 .. 1, the best at that recall or a greater one;
    scores (K, T, 101): the lowest score needed for that recall, 0 where it is not reached;
    recall (K, T): the greatest. nan for a class without objects.
    """

    precision: np.ndarray
    scores: np.ndarray
    recall: np.ndarray

    def ap(self) -> np.ndarray:
        """(K,) mean precision over recalls and thresholds, nan for a class without objects."""
        return self.precision.mean(axis=(1, 2))

    def ar(self) -> np.ndarray:
        """(K,) mean over thresholds of the greatest recall."""
        return self.recall.mean(axis=1)


def draw(
    labels: np.ndarray,
    scores: np.ndarray,
    hits: np.ndarray,
    ignored: np.ndarray,
    num_objects: np.ndarray,
) -> Curves:
    """Curves of detections with labels (S,), scores (S,), and hits and ignored (T, S).

    num_objects (K,): to be found. Equal scores stay in the order given.
    """
    shape = (len(num_objects), len(hits))
    precision = np.full((*shape, len(RECALLS)), np.nan)
    levels = np.full((*shape, len(RECALLS)), np.nan)
    recall = np.full(shape, np.nan)
    order = np.lexsort((-scores, labels))
    bounds = np.searchsorted(labels[order], np.arange(len(num_objects) + 1))
    for k in np.flatnonzero(num_objects):
        mine = order[bounds[k] : bounds[k + 1]]
        counted = ~ignored[:, mine]
        true = np.cumsum(hits[:, mine] & counted, axis=1, dtype=np.float64)
        false = np.cumsum(~hits[:, mine] & counted, axis=1, dtype=np.float64)
        recall[k] = true[:, -1] / num_objects[k] if len(mine) else 0.0
        # The evaluator divides by this sum too, so that there is no 0 / 0.
        ratio = true / (false + true + np.spacing(1))
        best = np.maximum.accumulate(ratio[:, ::-1], axis=1)[:, ::-1]
        for t in range(shape[1]):
            place = np.searchsorted(true[t] / num_objects[k], RECALLS, side="left")
            precision[k, t] = np.append(best[t], 0.0)[place]
            levels[k, t] = np.append(scores[mine], 0.0)[place]
    return Curves(precision, levels, recall)


def count_objects(packed: Packed, ignored: np.ndarray) -> np.ndarray:
    """(K,) objects that have to be found; ignored (B,) do not."""
    return np.bincount(packed.objects.labels[~ignored], minlength=packed.num_classes)


def draw_matching(packed: Packed, matching: Matching) -> Curves:
    """The curves of everything found, at the thresholds of a matching."""
    return draw(
        packed.found.labels,
        packed.found.scores,
        matching.hits,
        matching.ignored,
        count_objects(packed, matching.ignored_objects),
    )


def by_size(packed: Packed, pairs: Pairs) -> dict[str, Curves]:
    """Curves of small, medium and large objects by COCO's rule, over its ten thresholds."""
    return {
        name: draw_matching(packed, match(packed, COCO_THRESHOLDS, pairs=pairs, area=area))
        for name, area in AREAS.items()
    }


def by_crowding(
    packed: Packed, matching: Matching, *, least: Sequence[int] = CROWDING
) -> dict[str, tuple[int, Curves]]:
    """{"5-9": (images, curves)}: of images by how many objects, crowds left out, they hold.

    Images without any object are in no group: there is nothing to find in them.
    """
    counts = packed.count_objects()
    groups = {}
    for low, high in zip(least, [*least[1:], None], strict=True):
        chosen = (counts >= low) & (True if high is None else counts < high)
        found = chosen[packed.found.images]
        away = matching.ignored_objects | ~chosen[packed.objects.images]
        curves = draw(
            packed.found.labels[found],
            packed.found.scores[found],
            matching.hits[:, found],
            matching.ignored[:, found],
            count_objects(packed, away),
        )
        groups[_span(low, high)] = (int(chosen.sum()), curves)
    return groups


def _span(low: int, high: int | None) -> str:
    if high is None:
        return f"{low}+"
    return str(low) if high == low + 1 else f"{low}-{high - 1}"


def mean(values: np.ndarray) -> float | None:
    """The mean of what is not nan; None where there is nothing."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else None


def points(curves: Curves, classes: Sequence[str], index: int = 0) -> dict[str, Any]:
    """{class: {"precision", "score"}} at `RECALLS` for one threshold; classes without objects are
    left out.
    """
    return {
        name: {
            "precision": curves.precision[k, index].tolist(),
            "score": curves.scores[k, index].tolist(),
        }
        for k, name in enumerate(classes)
        if not np.isnan(curves.recall[k, index])
    }
