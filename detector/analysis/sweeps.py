"""What is right, wrong and missed at each threshold on the score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detector.analysis.matching import Outcomes


@dataclass(frozen=True)
class Sweep:
    """Sums over the detections with a score of at least each of L thresholds.

    thresholds (L,): inf, which keeps nothing, then every score that occurs, falling; right (L,)
    true and wrong (L,) false positives; distance (L,): sum of 1 - IoU over the true positives;
    missed (L,): objects not found; num_objects.
    """

    thresholds: np.ndarray
    right: np.ndarray
    wrong: np.ndarray
    distance: np.ndarray
    missed: np.ndarray
    num_objects: int

    def lowest(self, cost: np.ndarray) -> int:
        """The place of the lowest cost (L,); of equal ones that which keeps the fewest."""
        return int(np.argmin(cost))


def sweep(found: Outcomes, label: int | None = None) -> Sweep:
    """The sums of one class, or of all together."""
    mine = np.ones(len(found), dtype=bool) if label is None else found.labels == label
    objects = found.count_objects()
    num_objects = int(objects.sum() if label is None else objects[label])
    return sweep_arrays(found.scores[mine], found.hits[mine], found.ious[mine], num_objects)


def sweep_arrays(scores: np.ndarray, hits: np.ndarray, ious: np.ndarray, num_objects: int) -> Sweep:
    """The sums of detections (S,). Equal scores are kept or left out together."""
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    ends = np.flatnonzero(np.diff(falling, append=-np.inf))
    right = _sums(hits[order], ends)
    distance = _sums(np.where(hits, 1 - ious, 0.0)[order], ends)
    return Sweep(
        thresholds=np.concatenate([[np.inf], falling[ends]]),
        right=right,
        wrong=np.concatenate([[0], ends + 1]) - right,
        distance=distance,
        missed=num_objects - right,
        num_objects=num_objects,
    )


def _sums(values: np.ndarray, ends: np.ndarray) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)[ends]])
