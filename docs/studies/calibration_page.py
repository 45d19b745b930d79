"""The part of docs/calibration.md that holds the numbers of the study, made from its JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detector.analysis.calibrators import KINDS
from detector.analysis.held_out import SHOWN, cell
from detector.errors import ConfigError
from detector.evaluation.text import digits, markdown

BEGIN = "<!-- begin: numbers of the study, written by docs/studies/calibration_study.py -->"
END = "<!-- end: numbers of the study -->"

Table = Mapping[str, Any]

MAIN = ("shown", "D-ECE")
"""The measure by which losses are compared in words."""


def of_page(found: Table) -> dict[str, Any]:
    """Those numbers of a study that the page is made of, a twentieth of all."""
    losses = {
        loss: {
            **part,
            "mean": {method: _of_table(row) for method, row in part["mean"].items()},
            "runs": {
                seed: {method: _kept(row, [MAIN], ["value"]) for method, row in run.items()}
                for seed, run in part["runs"].items()
            },
        }
        for loss, part in found["losses"].items()
    }
    changes = {
        loss: {method: _of_table(row) for method, row in methods.items()}
        for loss, methods in found["against"]["changes"].items()
    }
    conventions = {name: found["conventions"][name] for name, _ in SHOWN}
    against = {**found["against"], "changes": changes}
    return {**found, "conventions": conventions, "losses": losses, "against": against}


def _of_table(row: Table) -> dict[str, Any]:
    """AP, where the row has it, and the measures that a table has columns for."""
    measures = [(which, name) for name, which in SHOWN]
    kept = _kept(row, measures, ["value", "low", "high", "change"])
    return {"AP": row["AP"], **kept} if "AP" in row else kept


def _kept(row: Table, measures: Sequence[tuple[str, str]], keys: Sequence[str]) -> dict[str, Any]:
    """{which: {measure: numbers}} of some measures, and of their numbers those with these keys."""
    kept: dict[str, Any] = {}
    for which, name in measures:
        numbers = row[which][name]
        kept.setdefault(which, {})[name] = {key: numbers[key] for key in keys if key in numbers}
    return kept


def as_json(value: Any, indent: int = 0) -> str:
    """JSON with a line for each measure, and for whatever else fits into one."""
    text = json.dumps(value)
    is_line = indent + len(text) < 90 or (isinstance(value, dict) and "value" in value)
    if is_line or not isinstance(value, dict):
        return text
    begin = " " * (indent + 1)
    lines = [f"{begin}{json.dumps(key)}: {as_json(v, indent + 1)}" for key, v in value.items()]
    return "{\n" + ",\n".join(lines) + "\n" + " " * indent + "}"


def write_block(page: Path, found: Table) -> None:
    """Replaces what lies between the two comments. Raises ConfigError where they are missing."""
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise ConfigError(f"page: {page} has no place for the numbers ({BEGIN} ... {END})")
    page.write_text(f"{head}{BEGIN}\n{block(found)}\n{END}{tail}", encoding="utf-8")


def block(found: Table) -> str:
    """All tables and sentences as Markdown."""
    parts = [
        introduction(found),
        means(found),
        by_run(found),
        comparison(found),
        "\n".join(sentences(found)),
    ]
    return "\n\n".join(part for part in parts if part)


def introduction(found: Table) -> str:
    """What was measured on what."""
    seeds = "; ".join(
        f"{name} (seeds {', '.join(map(str, loss['seeds']))}; AP of all val images "
        f"{', '.join(digits(ap) for ap in loss['AP']['seeds'])})"
        for name, loss in found["losses"].items()
    )
    steps = " or ".join(map(str, found["steps"]))
    images = found["images"]
    return (
        f"Data `{found['data']}`, {steps} steps. Calibrators were fitted on {images['fit']} val "
        f"images and everything below measured on the other {images['test']}, drawn by seed "
        f"{found['seed']}. Runs: {seeds}."
    )


def means(found: Table) -> str:
    """A row for each loss and calibrator: means over seeds, with intervals by image."""
    heads = [f"{name}, {which}" for name, which in SHOWN]
    rows = [
        [name, method, digits(row["AP"]), *(cell(row[which][key]) for key, which in SHOWN)]
        for name, loss in found["losses"].items()
        for method, row in loss["mean"].items()
    ]
    title = (
        "Means over the seeds, with 95 % intervals from drawing images (the same ones for all "
        f"seeds, {found['draws']} draws):"
    )
    return f"{title}\n\n" + markdown([["loss", "calibrator", "AP", *heads], *rows])


def by_run(found: Table) -> str:
    """D-ECE of what is shown, a run each, by calibrator: how far seeds lie apart."""
    which, name = MAIN
    methods = ["none", *KINDS]
    rows = []
    for loss, part in found["losses"].items():
        for seed, run in part["runs"].items():
            cells = [digits(run[m][which][name]["value"], 4) if m in run else "-" for m in methods]
            rows.append([loss, seed, *cells])
    title = f"{name} of the {which} detections of each run:"
    return f"{title}\n\n" + markdown([["loss", "seed", *methods], *rows])


def comparison(found: Table) -> str:
    """Each loss against the first one: changes of measures, with intervals; nothing for one."""
    rows = [
        [name, method, *(_span(row[which][key]) for key, which in SHOWN)]
        for name, methods in found["against"]["changes"].items()
        for method, row in methods.items()
    ]
    if not rows:
        return ""
    title = (
        f"Against {found['against']['loss']}, under the same calibrator: differences, below 0 "
        "where the loss named is better, with 95 % intervals from drawing the same images for both:"
    )
    heads = [f"{name}, {which}" for name, which in SHOWN]
    return f"{title}\n\n" + markdown([["loss", "calibrator", *heads], *rows])


def _span(change: Table) -> str:
    """A change with its interval, where there is one."""
    if change["value"] is None:
        return "-"
    by = f"{change['value']:+.4f}"
    if change["low"] is None:
        return by
    return f"{by} ({change['low']:+.4f} .. {change['high']:+.4f})"


def sentences(found: Table) -> list[str]:
    """What the numbers say, in words that depend on them alone."""
    which, name = MAIN
    before = {
        loss: part["mean"]["none"][which][name]
        for loss, part in found["losses"].items()
        if part["mean"]["none"][which][name]["value"] is not None
    }
    order = sorted(before, key=lambda loss: before[loss]["value"])
    ranked = ", ".join(f"{loss} {cell(before[loss])}" for loss in order)
    lines = [f"- Before any calibrator, {name} of the {which} detections, best first: {ranked}."]
    for loss in order:
        after = {
            method: row[which][name]
            for method, row in found["losses"][loss]["mean"].items()
            if method != "none"
        }
        if after:
            words = "; ".join(f"{method} {_direction(row)}" for method, row in after.items())
            lines.append(f"- {loss}: {words}.")
    return lines


def _direction(row: Table) -> str:
    """What a calibrator does to a measure, as far as its interval tells."""
    change = row["change"]
    if change["value"] == 0:
        return "changes nothing at all"
    span = _span(change)
    if change["low"] is None:
        return f"changes it by {span}"
    if change["high"] < 0:
        return f"lowers it, {span}"
    if change["low"] > 0:
        return f"raises it, {span}"
    return f"cannot be told from none, {span}"
