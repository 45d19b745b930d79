"""The tables of the page: means over the finished seeds, with the least and the greatest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from detector.evaluation.text import digits
from detector.laboratory.compare.study import Plain
from detector.laboratory.compare.tables import CALIBRATORS, MEASURE
from detector.laboratory.compare.verdict import ranking

ACCURACY = ("AP", "AP50", "AP75", "APs", "APm", "APl")


@dataclass(frozen=True)
class Cell:
    """text: the mean. span: the least and the greatest seed, empty for one seed or none."""

    text: str
    span: str = ""
    best: bool = False


@dataclass(frozen=True)
class Column:
    """value: of a run, None where it has none. sign: 1 where more is better, -1 less, 0 neither."""

    title: str
    value: Callable[[Plain], float | None]
    sign: int = 1
    places: int = 3


@dataclass(frozen=True)
class Table:
    """head: the first is that of the losses. rows: name of the loss, number of seeds, cells."""

    head: list[str]
    rows: list[tuple[str, int, list[Cell]]]


def tables(content: Plain) -> dict[str, Table]:
    """Those of the page by name."""
    return {
        "accuracy": table(content, accuracy(content)),
        "classes": table(content, by_class(content)),
        "calibration": table(content, calibration()),
        "cost": table(content, cost()),
    }


def table(content: Plain, columns: Sequence[Column]) -> Table:
    """The highest mean AP first, then the losses without any. The best mean is marked."""
    summary = content["summary"]
    names = [row["loss"] for row in ranking(summary)]
    names += [row["loss"] for row in summary if row["AP"] is None]
    runs = {
        name: [r for r in content["runs"] if r["loss"] == name and r["state"] == "done"]
        for name in names
    }
    means = [[mean(list(map(column.value, runs[name]))) for column in columns] for name in names]
    bests = [_best(column, [row[i] for row in means]) for i, column in enumerate(columns)]
    rows = []
    for name, row in zip(names, means, strict=True):
        cells = [
            _cell(column, value, list(map(column.value, runs[name])), best)
            for column, value, best in zip(columns, row, bests, strict=True)
        ]
        rows.append((name, len(runs[name]), cells))
    return Table(["loss", *(column.title for column in columns)], rows)


def mean(values: Sequence[float | None]) -> float | None:
    """Of the numbers there are; None without any."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _best(column: Column, values: Sequence[float | None]) -> float | None:
    """What is marked; nothing where there is a single loss, or all are equal."""
    known = [column.sign * value for value in values if value is not None]
    if not column.sign or len(set(known)) < 2:
        return None
    return column.sign * max(known)


def _cell(
    column: Column, value: float | None, values: Sequence[float | None], best: float | None
) -> Cell:
    known = [one for one in values if one is not None]
    span = ""
    if len(known) > 1:
        span = f"{digits(min(known), column.places)}\u2013{digits(max(known), column.places)}"
    return Cell(digits(value, column.places), span, value is not None and value == best)


def _of(*keys: str) -> Callable[[Plain], Any]:
    """The value that these keys lead to, None where one of them is absent."""

    def value(run: Plain) -> Any:
        found: Any = run
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        return found

    return value


def accuracy(content: Plain) -> list[Column]:
    """A size of which there is no object has no column."""
    done = [run for run in content["runs"] if run["state"] == "done"]
    there = [name for name in ACCURACY if any(_of(name)(run) is not None for run in done)]
    return [
        *(Column(name, _of(name)) for name in there or ACCURACY),
        Column("optimal LRP ↓", _of("optimal_lrp", "value"), -1),
    ]


def by_class(content: Plain) -> list[Column]:
    """AP of each class, in the order of the data."""
    names = next((list(run["per_class"]) for run in content["runs"] if "per_class" in run), [])
    return [Column(name, _of("per_class", name)) for name in names]


def calibration() -> list[Column]:
    """`MEASURE` before and after each calibrator."""
    return [
        Column(kind.replace("_", " "), _of("calibration", kind, MEASURE), -1)
        for kind in CALIBRATORS
    ]


def cost() -> list[Column]:
    return [
        Column("images / s", _of("images_per_second"), 0, 1),
        Column("seconds of training", _of("seconds"), 0, 0),
        Column("peak memory in GB", _of("memory_gb"), 0, 2),
    ]
