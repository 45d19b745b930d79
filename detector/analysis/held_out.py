"""Calibrators and thresholds learnt on one half of the images, and measured on the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from detector.analysis import calibration, calibrators, lrp, operating_points
from detector.analysis.analysis import Costs, counted
from detector.analysis.calibrators import Calibrator, Link
from detector.analysis.matching import Outcomes
from detector.analysis.operating_points import OperatingPoints
from detector.analysis.packing import Packed, pack
from detector.evaluation import coco
from detector.evaluation.text import aligned, digits

Row = dict[str, Any]
Sets = dict[float, Outcomes]
"""Outcomes at each IoU of `calibration.TAUS`."""

NONE = "none"
METHODS = (NONE, *calibrators.KINDS)

SHOWN = (
    ("D-ECE", "all"),
    ("D-ECE", "shown"),
    ("LaECE_0", "shown"),
    ("Brier", "all"),
    ("NLL", "all"),
)
"""The measures of a table, and of which detections; the JSON has all."""


@dataclass(frozen=True)
class Halves:
    """chosen (I,): the images to learn from; fit, test: what was found on them and on the rest."""

    packed: Packed
    chosen: np.ndarray
    fit: Sets
    test: Sets

    @property
    def shown(self) -> OperatingPoints:
        """The thresholds of optimal LRP of the images to learn from.

        Calibration then is measured on the same detections before and after.
        """
        return operating_points.choose(self.fit[0.5], "lrp")


def halve(truth: Mapping[str, list[Row]], rows: Sequence[Row], *, seed: int) -> Halves:
    """Both halves of the images, drawn by seed; of an odd number the second has one more."""
    packed = pack(truth, rows)
    number = packed.num_images
    chosen = np.zeros(number, dtype=bool)
    chosen[np.random.default_rng(seed).permutation(number)[: number // 2]] = True
    found = counted(packed)
    fit = {tau: part.on_images(chosen) for tau, part in found.items()}
    return Halves(packed, chosen, fit, {t: part.on_images(~chosen) for t, part in found.items()})


def fit(
    halves: Halves, method: str, *, link: Link | None, target: str, min_detections: int
) -> Calibrator | None:
    """The calibrator of a method; None for "none". Raises UserError where it cannot be had."""
    if method == NONE:
        return None
    if method == "link_inverse":
        return calibrators.link_inverse(link)
    found = halves.fit[0.5 if target == "hit" else 0.0]
    return calibrators.fit(method, found, target=target, min_detections=min_detections)


def methods_for(link: Link | None) -> tuple[str, ...]:
    """Those that a loss has: without a known link not its inverse."""
    return tuple(m for m in METHODS if m != "link_inverse" or link is not None)


def mapped(found: Sets, calibrator: Calibrator | None) -> Sets:
    """The same detections with calibrated scores."""
    if calibrator is None:
        return found
    return {tau: calibrators.apply(part, calibrator) for tau, part in found.items()}


def kept(found: Sets, points: OperatingPoints) -> Sets:
    """The detections that the thresholds show."""
    return {tau: part.select(points.keep(part.scores, part.labels)) for tau, part in found.items()}


def measured(
    halves: Sequence[Halves], fitted: Sequence[Calibrator | None], *, draws: int, seed: int
) -> dict[str, dict[str, Any]]:
    """{"all" | "shown": {measure: its number}} of the images to measure on.

    Means over several sets of detections on the same images, each with its own calibrator;
    `change` is against the scores as they were.
    """
    tables = {}
    for name, before in sets(halves, [None] * len(halves)).items():
        after = [mapped(*pair) for pair in zip(before, fitted, strict=True)]
        measures = calibration.measure_mean(after, draws=draws, seed=seed)
        changes = calibration.changes(before, after, draws=draws, seed=seed)
        tables[name] = {
            key: {**asdict(value), "change": asdict(changes[key])}
            for key, value in measures.items()
        }
    return tables


def sets(halves: Sequence[Halves], fitted: Sequence[Calibrator | None]) -> dict[str, list[Sets]]:
    """{"all" | "shown": the detections to measure on, with calibrated scores}."""
    pairs = list(zip(halves, fitted, strict=True))
    return {
        "all": [mapped(own.test, calibrator) for own, calibrator in pairs],
        "shown": [mapped(kept(own.test, own.shown), calibrator) for own, calibrator in pairs],
    }


def average_precision(
    truth: Mapping[str, list[Row]],
    rows: Sequence[Row],
    halves: Halves,
    calibrator: Calibrator | None,
) -> float | None:
    """COCO's AP, by pycocotools, of the images to measure on."""
    ids = set(halves.packed.image_ids[~halves.chosen].tolist())
    part = {
        "images": [row for row in truth["images"] if row["id"] in ids],
        "categories": truth["categories"],
        "annotations": [row for row in truth["annotations"] if row["image_id"] in ids],
    }
    found = [row for row in rows if row["image_id"] in ids]
    if calibrator is not None:
        found = rescored(found, calibrator, halves.packed.category_ids.tolist())
    return coco.evaluate(part, coco.sort_results(found))["AP"]


def rescored(rows: Sequence[Row], calibrator: Calibrator, category_ids: Sequence[int]) -> list[Row]:
    """Copies of rows with calibrated scores; category_ids: of the K classes."""
    place = {category: k for k, category in enumerate(category_ids)}
    scores = np.array([row["score"] for row in rows], dtype=np.float64)
    labels = np.array([place[row["category_id"]] for row in rows], dtype=np.int64)
    new = calibrator(scores, labels).tolist()
    return [{**row, "score": score} for row, score in zip(rows, new, strict=True)]


def choose_points(found: Outcomes, costs: Costs) -> dict[str, OperatingPoints]:
    """Thresholds by each criterion."""
    return {
        name: operating_points.choose(
            found, name, miss=costs.miss, false_alarm=costs.false_alarm, rate=costs.rate
        )
        for name in operating_points.CRITERIA
    }


def reached(found: Outcomes, points: OperatingPoints) -> dict[str, Any]:
    """What thresholds reach on these images: LRP and its components, means over classes, and the
    false positives and missed objects of all classes together."""
    values = lrp.at_thresholds(found, points.thresholds)
    part = found.select(points.keep(found.scores, found.labels))
    return {
        **lrp.summary(values),
        "wrong": int((~part.hits).sum()),
        "missed": int((part.object_found < 0).sum()),
    }


def table(methods: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lines for a terminal, a method each: AP, and the measures with their intervals."""
    rows = [("calibrator", "AP", *(f"{name} ({which})" for name, which in SHOWN))]
    for method, found in methods.items():
        cells = [cell(found[which][name]) for name, which in SHOWN]
        rows.append((method, digits(found["AP"]), *cells))
    return aligned(rows)


def cell(row: Mapping[str, Any]) -> str:
    """A number with its interval, where there is one."""
    if row["low"] is None:
        return digits(row["value"], 4)
    return f"{digits(row['value'], 4)} ({digits(row['low'], 4)} .. {digits(row['high'], 4)})"
