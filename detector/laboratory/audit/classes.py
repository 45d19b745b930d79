"""Class by class: how many objects, whether anchors reach them, what they weigh, what would help.

A mean over all objects is that of the most frequent class. The class that a detector was ordered
for is often the rarest, and may go without an anchor or a gradient while every mean looks well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.config import Config
from detector.config.registry import LOSSES
from detector.criterion.weighting import effective_number_weights
from detector.data.annotations import Annotations
from detector.laboratory.audit.counts import Counts
from detector.laboratory.audit.overrides import Advice

BETA = 0.9999
"""Of the effective number where it is advised: of the four values that Cui et al. 2019 (arXiv
1901.05555, table 2) try, the one under which weights differ most."""

RARE = 0.5
"""A class is rare where it has less than this times the objects of a class on average."""

POOR = 0.1
"""Share of the objects of a class that may go without a fitting anchor, or be narrower than a
cell, before that is said of the class."""


@dataclass(frozen=True)
class ClassFacts:
    """What is known of one class, crowds left out.

    objects, images: how many objects, and how many images that hold one. share: of all objects.
    reached: the share of its objects that have an anchor which overlaps them enough, now; advised:
    the same with the advice taken. side: median square root of the area, small: the width or height
    that one in ten stays below, both in pixels at the model's size. below_cell: the share of
    objects narrower than a cell of the finest level. weight: what `class_weights=effective_number`
    with beta `BETA` would give; a mean over the classes is 1. All shares and sizes are None for a
    class without objects.
    """

    name: str
    objects: int
    images: int
    share: float
    reached: float | None
    advised: float | None
    side: float | None
    small: float | None
    below_cell: float | None
    weight: float


def weights(annotations: Annotations, beta: float = BETA) -> NDArray[np.float64]:
    """(K,) what `class_weights=effective_number` would give each class in a training."""
    labels = annotations.labels[~annotations.crowd]
    return effective_number_weights(np.bincount(labels, minlength=len(annotations.classes)), beta)


def reached_share(counts: Counts, which: NDArray[np.bool_]) -> float | None:
    """The share of a group of objects, (B,), that an anchor overlaps enough."""
    return float((counts.unforced[which] > 0).mean()) if which.any() else None


def facts(now: Counts, then: Counts, annotations: Annotations) -> list[ClassFacts]:
    """A row for each class. now, then: counted as the config is, and with the advice taken."""
    given = weights(annotations)
    rows = []
    for k, name in enumerate(annotations.classes):
        mine = now.labels == k
        objects = int(mine.sum())
        short = now.sides[mine].min(1)
        rows.append(
            ClassFacts(
                name,
                objects,
                len(np.unique(now.images[mine])),
                objects / len(now.labels),
                reached_share(now, mine),
                reached_share(then, then.labels == k),
                float(np.median(np.sqrt(now.sides[mine].prod(1)))) if objects else None,
                float(np.quantile(short, POOR)) if objects else None,
                float((short < now.strides[0]).mean()) if objects else None,
                float(given[k]),
            )
        )
    return rows


def is_rare(row: ClassFacts, num_classes: int) -> bool:
    """Whether a class has few objects beside the others; one without any cannot be learned."""
    return row.objects > 0 and row.share < RARE / num_classes


def refusal(config: Config) -> str | None:
    """Why class weights cannot be advised for a config; None where they can."""
    if config.class_weights is not None:
        return "class_weights is set already"
    if not LOSSES.get(config.loss.name).separable:
        return f"loss={config.loss.name} takes no class weights"
    return None


def weight_changes(config: Config) -> dict[str, Any]:
    """The overrides that weigh rare classes up; none where the config cannot have them."""
    if refusal(config):
        return {}
    return {"class_weights": "effective_number", "effective_number_beta": BETA}


def helps(
    row: ClassFacts, rows: list[ClassFacts], changes: dict[str, dict[str, Any]]
) -> list[Advice]:
    """What would help a class; empty where it needs nothing.

    changes: by topic, what the advice for all classes together sets.
    """
    if row.objects == 0 or row.reached is None or row.advised is None or row.below_cell is None:
        return [Advice("no objects", "it has no object in these images, so it cannot be learned.")]
    found = []
    if row.below_cell > POOR:
        reason = f"{row.below_cell:.0%} of its objects are narrower than a cell of the finest level"
        found.append(with_changes("image size", reason, changes))
    if 1 - row.reached > POOR:
        reason = (
            f"an anchor fits {row.reached:.0%} of its objects now, {row.advised:.0%} with advice"
        )
        found.append(with_changes("anchors", reason, changes))
    if is_rare(row, len(rows)):
        most = max(rows, key=lambda other: other.objects)
        reason = (
            f"it has {row.share:.1%} of the objects, {most.name} {most.share:.1%}; weighted by the "
            f"effective number it counts {row.weight:.2f}, {most.name} {most.weight:.2f}"
        )
        found.append(with_changes("class weights", reason, changes))
    return found


def with_changes(topic: str, reason: str, changes: dict[str, dict[str, Any]]) -> Advice:
    """A finding on a class, with what the advice for all classes sets on the same topic."""
    return Advice(topic, f"{reason}.", changes.get(topic, {}))
