"""The images to look at first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detector.analysis.matching import Outcomes


@dataclass(frozen=True)
class Image:
    """count: false positives or missed objects of an image; weight: what it was ranked by."""

    image_id: int
    count: int
    weight: float


@dataclass(frozen=True)
class WorstImages:
    """false_positives: by the sum of their scores, so that confident ones weigh more; misses: by
    their number. The worst first, of equal ones that with the lower id; images without are left
    out.
    """

    false_positives: list[Image]
    misses: list[Image]


def worst_images(shown: Outcomes, image_ids: np.ndarray, *, top: int = 20) -> WorstImages:
    """At most `top` of each kind among the detections that are shown; image_ids (I,) rising."""
    wrong = ~shown.hits
    number = shown.num_images
    alarms = np.bincount(shown.images[wrong], minlength=number)
    weights = np.bincount(shown.images[wrong], weights=shown.scores[wrong], minlength=number)
    missed = np.bincount(shown.object_images[shown.object_found < 0], minlength=number)
    return WorstImages(
        false_positives=_ranked(image_ids, alarms, weights, top),
        misses=_ranked(image_ids, missed, missed.astype(np.float64), top),
    )


def _ranked(ids: np.ndarray, counts: np.ndarray, weights: np.ndarray, top: int) -> list[Image]:
    order = np.argsort(-weights, kind="stable")
    order = order[counts[order] > 0][:top]
    return [Image(int(ids[i]), int(counts[i]), float(weights[i])) for i in order]
