"""The findings as plain numbers: what audit.json holds and what tables are made of."""

from __future__ import annotations

import itertools
import math
import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from detector.laboratory.audit import classes
from detector.laboratory.audit.counts import Counts

if TYPE_CHECKING:
    from detector.laboratory.audit.outcome import Audit

EDGES = (0, 16, 32, 64, 128, 256, math.inf)
"""Pixels, sides of objects at the model's size: the sides of RetinaNet's levels, and below."""


def summary(found: Audit) -> dict[str, Any]:
    """Everything but pictures, as JSON takes it."""
    counts = found.counts
    overrides = [o for item in found.advice for o in item.overrides]
    return {
        "data": found.dataset.name,
        "images": len(counts.image_sides),
        "image_size": np.median(counts.image_sides, axis=0).astype(int).tolist(),
        "classes": list(found.dataset.annotations.classes),
        "matcher": found.config.matcher.name,
        "loss": found.config.loss.name,
        "now": totals(counts),
        "advised": totals(found.advised),
        "levels": levels(counts),
        "sizes": sizes(counts),
        "per_class": per_class(found),
        "losses": [asdict(row) for row in found.losses],
        "advice": [asdict(item) | {"overrides": item.overrides} for item in found.advice],
        "overrides": overrides,
        "paste": " ".join(shlex.quote(o) for o in overrides),
        "seconds": round(found.seconds, 2),
    }


def totals(counts: Counts) -> dict[str, Any]:
    """Sums over everything."""
    positives, neutral = int(counts.positives.sum()), int(counts.neutral.sum())
    background, anchors = int(counts.background.sum()), int(counts.anchors.sum())
    return {
        "anchors": anchors,
        "positives": positives,
        "background": background,
        "background_per_positive": ratio(background, positives),
        "ignored": neutral,
        "ignored_share": neutral / anchors,
        "prior_any": counts.prior(1),
        **of_group(counts, np.ones(len(counts.labels), bool)),
    }


def levels(counts: Counts) -> list[dict[str, Any]]:
    """A row for each level, finest first."""
    parts = zip(
        *(a.tolist() for a in (counts.strides, counts.anchors, counts.positives, counts.neutral)),
        strict=True,
    )
    return [
        {
            "level": f"P{int(math.log2(stride))}",
            "stride": stride,
            "anchors": anchors,
            "positives": positives,
            "background": anchors - positives - neutral,
            "background_per_positive": ratio(anchors - positives - neutral, positives),
            "ignored_share": neutral / anchors,
        }
        for stride, anchors, positives, neutral in parts
    ]


def sizes(counts: Counts) -> list[dict[str, Any]]:
    """A row for each range of object sizes."""
    side = np.sqrt(counts.sides.prod(1))
    background = int(counts.background.sum())
    result = []
    for low, high in itertools.pairwise(EDGES):
        group = of_group(counts, (side >= low) & (side < high))
        name = f"{low} px and more" if math.isinf(high) else f"{low} to {high} px"
        per = ratio(background, group["positives"])
        result.append({"size": name, **group, "background_per_positive": per})
    return result


def per_class(found: Audit) -> list[dict[str, Any]]:
    """A row for each class with what would help it. Its background: valid anchors not of it."""
    counts = found.counts
    valid = int((counts.anchors - counts.neutral).sum())
    changes = {item.topic: item.changes for item in found.advice}
    result = []
    for k, row in enumerate(found.classes):
        group = of_group(counts, counts.labels == k)
        per = ratio(valid - group["positives"], group["positives"])
        known = asdict(row)
        helps = classes.helps(row, found.classes, changes)
        advice = [asdict(item) | {"overrides": item.overrides} for item in helps]
        name = known.pop("name")
        rest = {"background_per_positive": per, "advice": advice}
        result.append({"class": name, **group, **known, **rest})
    return result


def of_group(counts: Counts, which: NDArray[np.bool_]) -> dict[str, Any]:
    """The objects of a group (B,): how many, their anchors, and who goes short."""
    objects = int(which.sum())
    positives = int(counts.matched[which].sum())
    return {
        "objects": objects,
        "positives": positives,
        "positives_per_object": ratio(positives, objects),
        "unreached": int(counts.unreached[which].sum()),
        "forced": int(counts.forced[which].sum()),
        "mean_best_iou": float(counts.overlaps[which].mean()) if objects else None,
    }


def ratio(a: float, b: float) -> float | None:
    """a / b; None where b is 0."""
    return a / b if b else None
