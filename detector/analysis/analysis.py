"""Everything that can be told of detections besides COCO's twelve numbers, in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from detector.analysis import (
    bootstrap,
    calibration,
    curves,
    errors,
    false_alarms,
    lrp,
    operating_points,
    reliability,
)
from detector.analysis.curves import Curves, mean
from detector.analysis.matching import (
    COCO_THRESHOLDS,
    Matching,
    Outcomes,
    Pairs,
    match,
    outcomes,
    overlapping,
)
from detector.analysis.operating_points import OperatingPoints
from detector.analysis.packing import Packed, pack
from detector.analysis.report import Report
from detector.analysis.worst import worst_images
from detector.errors import DataError

DRAWS = 500
"""Of the bootstrap: the ends of a 95 % interval then lie on the 12th value from either end."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Costs:
    """What a missed object and a false alarm cost, in any one unit. rate: false alarms of a class
    that are allowed per image, for the point "fppi"."""

    miss: float
    false_alarm: float
    rate: float = 0.1


def analyse(
    ground_truth: Mapping[str, list[Row]],
    detections: Sequence[Row],
    *,
    costs: Costs | None = None,
    points: OperatingPoints | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    top: int = 20,
) -> Report:
    """What `Report` lists, from COCO's ground truth and results as `detector.evaluation.coco` has
    them.

    costs: adds operating points of least cost. points: which detections are shown (calibration of
    what is shown, worst images); by default the optimal LRP thresholds of these very detections.
    draws: of the bootstrap, 0 for no intervals. top: length of the lists of worst images.

    Raises DataError for what `packing.pack` refuses and for scores outside [0, 1].
    """
    packed = pack(ground_truth, detections)
    _check_scores(packed)
    pairs = overlapping(packed)
    matching = match(packed, COCO_THRESHOLDS, pairs=pairs)
    found = counted(packed, pairs)
    half = found[0.5]
    optimal = lrp.optimal(half)
    chosen = operating_points.choose(half, "lrp") if points is None else points
    shown = {tau: part.select(chosen.keep(part.scores, part.labels)) for tau, part in found.items()}
    kinds = errors.classify(packed, matching)
    return Report(
        **_average_precision(packed, matching, pairs),
        images=packed.num_images,
        objects=len(half.object_labels),
        detections=len(packed.found),
        calibration={
            "all": _as_dicts(calibration.measure(found, draws=draws, seed=seed)),
            "shown": _as_dicts(calibration.measure(shown, draws=draws, seed=seed)),
        },
        shown_by=chosen.criterion + (" of these detections" if points is None else ""),
        reliability={
            group: _as_dicts(named) for group, named in reliability.diagrams(half).items()
        },
        lrp=_lrp(half, optimal, draws, seed),
        operating_points=_points(half, costs),
        errors=errors.costs(packed, matching, kinds),
        errors_per_class=_errors_per_class(packed, kinds),
        worst_images=asdict(worst_images(shown[0.5], packed.image_ids, top=top)),
        false_alarms=false_alarms.table(half, draws=draws, seed=seed),
    )


def counted(packed: Packed, pairs: Pairs | None = None) -> dict[float, Outcomes]:
    """The detections that count at each IoU that a measure of calibration needs, 0.5 among them."""
    matching = match(packed, calibration.TAUS, pairs=pairs)
    return {tau: outcomes(packed, matching, i) for i, tau in enumerate(calibration.TAUS)}


def _check_scores(packed: Packed) -> None:
    scores = packed.found.scores
    wrong = np.flatnonzero((scores < 0) | (scores > 1))
    if len(wrong):
        i = wrong[0]
        raise DataError(
            f"detections[{packed.found.rows[i]}] (image "
            f"{packed.image_ids[packed.found.images[i]]}): score {scores[i]} given; calibration "
            "needs scores in [0, 1]"
        )


def _average_precision(packed: Packed, matching: Matching, pairs: Pairs) -> dict[str, Any]:
    """AP and AR per class, by size and by crowding, and the curves at IoU 0.5."""
    every = curves.draw_matching(packed, matching)
    sizes = curves.by_size(packed, pairs)
    crowding = curves.by_crowding(packed, matching)
    objects = curves.count_objects(packed, matching.ignored_objects)
    found = np.bincount(packed.found.labels, minlength=packed.num_classes)
    columns = {
        "AP": every.ap(),
        "AP50": every.precision[:, 0].mean(axis=1),
        "AR": every.ar(),
        **{f"AP {name}": part.ap() for name, part in sizes.items()},
    }
    return {
        "per_class": {
            name: {
                "objects": int(objects[k]),
                "detections": int(found[k]),
                **{title: bootstrap.known(column[k]) for title, column in columns.items()},
            }
            for k, name in enumerate(packed.classes)
        },
        "by_size": {name: _means(part) for name, part in sizes.items()},
        "by_crowding": {
            name: {"images": images, **_means(part)} for name, (images, part) in crowding.items()
        },
        "precision_recall": {
            "iou": 0.5,
            "recall": curves.RECALLS.tolist(),
            "classes": curves.points(every, packed.classes),
        },
    }


def _means(part: Curves) -> dict[str, float | None]:
    """Over the classes that have objects in this part."""
    return {
        "AP": mean(part.ap()),
        "AP50": mean(part.precision[:, 0].mean(axis=1)),
        "AR": mean(part.ar()),
    }


def _lrp(found: Outcomes, optimal: list[lrp.LRP], draws: int, seed: int) -> dict[str, Any]:
    thresholds = [value.threshold for value in optimal]
    statistic = lrp.statistic(found, thresholds)
    span = bootstrap.intervals({"": statistic}, found.num_images, draws=draws, seed=seed)[""]
    return {
        "optimal": {**lrp.summary(optimal), "low": span.low, "high": span.high},
        "per_class": {
            name: asdict(value) for name, value in zip(found.classes, optimal, strict=True)
        },
        "convention": lrp.CONVENTION.format(tau=found.threshold),
    }


def _points(found: Outcomes, costs: Costs | None) -> dict[str, Any]:
    rate = Costs.rate if costs is None else costs.rate
    points = {
        name: operating_points.choose(found, name, rate=rate) for name in ("lrp", "f1", "fppi")
    }
    if costs is not None:
        points["cost"] = operating_points.choose(
            found, "cost", miss=costs.miss, false_alarm=costs.false_alarm
        )
    return {name: point.to_dict() for name, point in points.items()}


def _errors_per_class(packed: Packed, found: errors.Errors) -> dict[str, dict[str, int]]:
    """{class: {kind: number}}; a false positive under the class it was given."""
    number = packed.num_classes
    columns = {
        name: np.bincount(packed.found.labels[found.kinds == i], minlength=number)
        for i, name in enumerate(errors.KINDS)
    }
    columns["missed"] = np.bincount(packed.objects.labels[found.missed], minlength=number)
    return {
        name: {kind: int(column[k]) for kind, column in columns.items()}
        for k, name in enumerate(packed.classes)
    }


def _as_dicts(named: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: asdict(value) for name, value in named.items()}
