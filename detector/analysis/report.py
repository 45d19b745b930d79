"""What an analysis found, as plain numbers and as tables."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from detector.evaluation.text import aligned, digits

Table = dict[str, Any]


@dataclass(frozen=True)
class Report:
    """Plain dicts, lists, numbers and None (not defined), ready for JSON.

    per_class: {class: objects, detections, AP, AP50, AR, AP by size}.
    by_size, by_crowding: {group: AP, AP50, AR, means over classes; images}.
    precision_recall: the recalls and per class precision and score at IoU 0.5.
    calibration: {"all" | "shown": {measure: value, low, high, floor, detections, convention}};
    shown_by: how the shown ones were chosen.
    reliability: {"all" | "class" | "size": {name: diagram}}.
    lrp: the mean of the optimal LRP with its components and interval, the same per class, and the
    convention.
    operating_points: {criterion: thresholds per class, and the precision and recall there}.
    errors: {kind: count, delta_ap50}; errors_per_class: {class: {kind: count}}.
    worst_images: {"false_positives" | "misses": [image_id, count, weight]}.
    false_alarms: {class, or "all classes": recall and threshold at each rate of false alarms};
    empty in a report of an older version.
    """

    images: int
    objects: int
    detections: int
    per_class: Table
    by_size: Table
    by_crowding: Table
    precision_recall: Table
    calibration: dict[str, Table]
    shown_by: str
    reliability: dict[str, Table]
    lrp: Table
    operating_points: Table
    errors: Table
    errors_per_class: Table
    worst_images: dict[str, list[Table]]
    false_alarms: dict[str, list[Table]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Everything, under the names above."""
        return asdict(self)

    def scalars(self) -> dict[str, float]:
        """{"calibration/all/D-ECE": 0.1}: the single numbers that are defined, for a log."""
        groups = {
            f"calibration/{which}": {name: row["value"] for name, row in table.items()}
            for which, table in self.calibration.items()
        }
        parts = ("value", "localisation", "false_positives", "false_negatives")
        groups["optimal_lrp"] = {name: self.lrp["optimal"][name] for name in parts}
        groups["delta_ap50"] = {name: row["delta_ap50"] for name, row in self.errors.items()}
        for title, table in (("size", self.by_size), ("crowding", self.by_crowding)):
            groups[f"AP_by_{title}"] = {name: row["AP"] for name, row in table.items()}
        return {
            f"{group}/{name}": value
            for group, table in groups.items()
            for name, value in table.items()
            if value is not None
        }

    def table(self) -> list[str]:
        """Lines for a terminal: tables with an empty line between them."""
        return "\n\n".join("\n".join(part) for part in self._parts()).split("\n")

    def _parts(self) -> list[list[str]]:
        return [
            self._calibration(),
            self._conventions(),
            self._lrp(),
            self._groups("size", self.by_size),
            self._groups("objects per image", self.by_crowding),
            self._classes(),
            *([self._false_alarms()] if self.false_alarms else []),
            self._errors(),
            *(self._worst(name) for name in self.worst_images),
        ]

    def _calibration(self) -> list[str]:
        rows = [("calibration", "of", "value", "95 % interval", "noise", "detections")]
        for which, table in self.calibration.items():
            for name, row in table.items():
                low, high = digits(row["low"], 4), digits(row["high"], 4)
                span = f"{low} .. {high}" if row["low"] is not None else "-"
                value, floor = digits(row["value"], 4), digits(row["floor"], 4)
                rows.append((name, which, value, span, floor, str(row["detections"])))
        return aligned(rows)

    def _conventions(self) -> list[str]:
        words = [f"{name}: {row['convention']}" for name, row in self.calibration["all"].items()]
        return [
            *words,
            "noise: what 95 of 100 calibrated sets like this one stay below",
            f"shown: detections kept by {self.shown_by}",
        ]

    def _lrp(self) -> list[str]:
        head = ("optimal LRP", "value", "localisation", "false pos.", "false neg.", "threshold")
        best = self.lrp["optimal"]
        rows = [head, ("mean", *_lrp_cells(best), "")]
        for name, row in self.lrp["per_class"].items():
            rows.append((name, *_lrp_cells(row), digits(row["threshold"])))
        return [*aligned(rows), self.lrp["convention"]]

    def _groups(self, title: str, groups: Table) -> list[str]:
        rows = [(title, "AP", "AP50", "AR")]
        for name, row in groups.items():
            rows.append((name, digits(row["AP"]), digits(row["AP50"]), digits(row["AR"])))
        return aligned(rows)

    def _classes(self) -> list[str]:
        f1 = self.operating_points["f1"]
        keys = ("AP", "AP50", "AR", "AP small", "AP medium", "AP large")
        head = ("class", "objects", *keys, "F1 threshold", "precision", "recall")
        rows: list[tuple[str, ...]] = [head]
        for k, (name, row) in enumerate(self.per_class.items()):
            point = (f1[part][k] for part in ("thresholds", "precision", "recall"))
            cells = [digits(row[key]) for key in keys]
            rows.append((name, str(row["objects"]), *cells, *map(digits, point)))
        return aligned(rows)

    def _false_alarms(self) -> list[str]:
        head = ("at most, per image", "class", "recall", "95 % interval", "threshold", "came out")
        rows: list[tuple[str, ...]] = [(*head, "on images without objects")]
        for name, reached in self.false_alarms.items():
            for row in reached:
                low, high = digits(row["low"]), digits(row["high"])
                span = f"{low} .. {high}" if row["low"] is not None else "-"
                cells = (digits(row[key]) for key in ("threshold", "false_alarms", "on_empty"))
                rate = f"{row['rate']:g} false alarms"
                rows.append((rate, name, digits(row["recall"]), span, *cells))
        return aligned(rows)

    def _errors(self) -> list[str]:
        rows = [("error", "count", "costs AP50")]
        for name, row in self.errors.items():
            rows.append((name, str(row["count"]), digits(row["delta_ap50"])))
        return aligned(rows)

    def _worst(self, name: str) -> list[str]:
        title = f"images with the most {name.replace('_', ' ')}"
        rows = [(title, "count")]
        rows += [(str(row["image_id"]), str(row["count"])) for row in self.worst_images[name][:5]]
        return aligned(rows)


def _lrp_cells(row: Table) -> tuple[str, ...]:
    names = ("value", "localisation", "false_positives", "false_negatives")
    return tuple(digits(row[name]) for name in names)
