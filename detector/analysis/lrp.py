"""Localisation recall precision error: misses, false alarms and loose boxes in one number.

Oksuz et al. 2018 and 2021, "One Metric to Measure them All", arXiv 2011.10772. 0 is perfect, 1 is
useless:

    LRP = (sum over true positives of (1 - IoU) / (1 - tau) + wrong + missed)
          / (right + wrong + missed)

The optimal LRP of a class is its least over the thresholds on the score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detector.analysis import bootstrap
from detector.analysis.bootstrap import Statistic
from detector.analysis.curves import mean
from detector.analysis.matching import Outcomes
from detector.analysis.sweeps import Sweep, sweep

CONVENTION = (
    "COCO greedy matching per class at IoU {tau:g}, crowds left out; components: mean 1 - IoU of "
    "true positives, 1 - precision, 1 - recall; mean over classes with objects"
)


@dataclass(frozen=True)
class LRP:
    """Of one class at one threshold on the score, detections with at least that score.

    value; localisation: mean 1 - IoU of true positives, None without any; false_positives:
    1 - precision, None without detections; false_negatives: 1 - recall. Value and
    false_negatives are None for a class without objects. threshold: None keeps no detection.
    """

    value: float | None
    localisation: float | None
    false_positives: float | None
    false_negatives: float | None
    threshold: float | None


def errors(sums: Sweep, tau: float) -> np.ndarray:
    """(L,) LRP at each threshold; 1 where there is nothing at all."""
    everything = sums.right + sums.wrong + sums.missed
    cost = sums.distance / (1 - tau) + sums.wrong + sums.missed
    return np.divide(cost, everything, out=np.ones_like(cost), where=everything > 0)


def at(sums: Sweep, place: int, tau: float) -> LRP:
    """LRP and its components at the threshold with index `place`."""
    right, wrong = float(sums.right[place]), float(sums.wrong[place])
    threshold = float(sums.thresholds[place])
    objects = sums.num_objects
    return LRP(
        value=float(errors(sums, tau)[place]) if objects else None,
        localisation=float(sums.distance[place]) / right if right else None,
        false_positives=wrong / (right + wrong) if right + wrong else None,
        false_negatives=1 - right / objects if objects else None,
        threshold=threshold if np.isfinite(threshold) else None,
    )


def optimal(found: Outcomes) -> list[LRP]:
    """The optimal LRP of each of K classes. Of equal ones that with the highest threshold."""
    tau = found.threshold
    sweeps = [sweep(found, k) for k in range(len(found.classes))]
    return [at(sums, sums.lowest(errors(sums, tau)), tau) for sums in sweeps]


def at_thresholds(found: Outcomes, thresholds: Sequence[float | None]) -> list[LRP]:
    """The LRP of each of K classes at its own threshold; None keeps no detection."""
    result = []
    for k, threshold in enumerate(thresholds):
        sums = sweep(found, k)
        kept = 0 if threshold is None else int((sums.thresholds >= threshold).sum()) - 1
        result.append(at(sums, kept, found.threshold))
    return result


def summary(values: Sequence[LRP]) -> dict[str, Any]:
    """Means over the classes for which a number is defined, and how many classes have objects."""
    names = ("value", "localisation", "false_positives", "false_negatives")
    # A class without objects has false positives but no LRP: it would bend one component only.
    counted = [value for value in values if value.value is not None]
    columns = {name: [getattr(value, name) for value in counted] for name in names}
    return {
        **{name: mean(np.array(column, dtype=np.float64)) for name, column in columns.items()},
        "classes": len(counted),
    }


def statistic(found: Outcomes, thresholds: Sequence[float | None]) -> Statistic:
    """The mean LRP of the classes at fixed thresholds as a function of sums over images."""
    number = len(found.classes)
    limits = np.array([np.inf if limit is None else limit for limit in thresholds])
    kept = found.select(found.scores >= limits[found.labels])
    missed = kept.object_found < 0
    cost = np.where(kept.hits, (1 - kept.ious) / (1 - found.threshold), 1.0)
    # Every detection and every missed object is one event; the objects say which classes count.
    images = np.concatenate([kept.images, kept.object_images[missed]])
    labels = np.concatenate([kept.labels, kept.object_labels[missed]])
    costs = np.concatenate([cost, np.ones(int(missed.sum()))])
    shape = (found.num_images, 3 * number)
    sums = bootstrap.per_image(
        np.concatenate([images, images, kept.object_images]),
        np.concatenate([labels, labels + number, kept.object_labels + 2 * number]),
        np.concatenate([costs, np.ones(len(images)), np.ones(len(kept.object_images))]),
        shape,
    )
    return Statistic(sums, _mean_over_classes)


def _mean_over_classes(sums: np.ndarray) -> np.ndarray:
    """(R,) mean of cost / events over the classes with objects, nan without any; sums (R, 3K)."""
    costs, events, objects = np.split(sums, 3, axis=1)
    there = objects > 0
    ratios = np.divide(costs, events, out=np.zeros_like(costs), where=there)
    number = there.sum(axis=1)
    return np.divide(ratios.sum(axis=1), number, out=np.full(len(sums), np.nan), where=number > 0)
