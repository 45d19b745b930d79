"""Recall at so many false alarms per image: what one who hunts rare things ships by.

The free-response curve of Bunch et al. 1977, "A free response approach to the measurement and
characterization of radiographic-observer performance": right detections over objects, against false
positives over images. Images without any object count in the second as all others do: where things
are rare they are nearly all there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detector.analysis import bootstrap
from detector.analysis.bootstrap import Statistic
from detector.analysis.matching import Outcomes
from detector.analysis.sweeps import Sweep, sweep

RATES = (0.1, 1.0, 10.0)
"""False alarms per image at which recall is told."""

ALL = "all classes"
"""The row of one threshold for all classes, whose false alarms add up."""


@dataclass(frozen=True)
class Reached:
    """What is found at a rate of false alarms.

    rate: at most so many false positives per image; threshold: the score from which detections are
    kept, the highest that finds as much, None where none may be kept. recall: of the objects, with
    low and high of its interval at that threshold. false_alarms: per image, as they came out;
    on_empty: the same per image without any object. None: no objects, no such images.
    """

    rate: float
    threshold: float | None
    recall: float | None
    low: float | None
    high: float | None
    false_alarms: float
    on_empty: float | None


def table(
    found: Outcomes, *, rates: Sequence[float] = RATES, draws: int = 0, seed: int = 0
) -> dict[str, list[dict[str, Any]]]:
    """{class, or `ALL`: a `Reached` for each rate}, at the IoU of `found`.

    A class has a threshold of its own, and only its own false alarms count.
    """
    labels = {ALL: None, **{name: k for k, name in enumerate(found.classes)}}
    return {
        name: [vars(reached(found, rate, label, draws=draws, seed=seed)) for rate in rates]
        for name, label in labels.items()
    }


def reached(
    found: Outcomes, rate: float, label: int | None = None, *, draws: int = 0, seed: int = 0
) -> Reached:
    """What one class, or all with one threshold, reach at a rate of false alarms per image."""
    sums = sweep(found, label)
    place = within(sums, rate, found.num_images)
    threshold = float(sums.thresholds[place])
    mine = np.ones(len(found), dtype=bool) if label is None else found.labels == label
    kept = mine & (found.scores >= threshold)
    recall = recall_of(found, kept, label)
    span = bootstrap.intervals({"": recall}, found.num_images, draws=draws, seed=seed)[""]
    is_empty = np.bincount(found.object_images, minlength=found.num_images) == 0
    wrong_on_empty = int((kept & ~found.hits & is_empty[found.images]).sum())
    return Reached(
        rate=rate,
        threshold=threshold if np.isfinite(threshold) else None,
        recall=recall.of_all(),
        low=span.low,
        high=None if span.high is None else min(1.0, span.high),
        false_alarms=float(sums.wrong[place]) / max(1, found.num_images),
        on_empty=wrong_on_empty / int(is_empty.sum()) if is_empty.any() else None,
    )


def within(sums: Sweep, rate: float, num_images: int) -> int:
    """The place of the highest threshold that finds as much as can be found at that rate."""
    allowed = int(np.searchsorted(sums.wrong, rate * num_images, side="right")) - 1
    return int(np.searchsorted(sums.right, sums.right[allowed], side="left"))


def recall_of(found: Outcomes, kept: np.ndarray, label: int | None) -> Statistic:
    """The share of objects that the kept detections find, as a function of sums over images."""
    objects = found.object_images
    if label is not None:
        objects = objects[found.object_labels == label]
    right = found.images[kept & found.hits]
    sums = bootstrap.per_image(
        np.concatenate([right, objects]),
        np.concatenate([np.zeros(len(right), int), np.ones(len(objects), int)]),
        np.ones(len(right) + len(objects)),
        (found.num_images, 2),
    )
    return Statistic(sums, _ratio)


def _ratio(sums: np.ndarray) -> np.ndarray:
    right, objects = sums.T
    return np.divide(right, objects, out=np.full(len(sums), np.nan), where=objects > 0)
