"""What runs recorded about their training, gathered by loss; whatever is absent is left out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from detector.laboratory.compare.study import Plain

GAMMAS = ("0", "0.5", "1", "2")

MOMENTS = ("start", "middle", "end")


@dataclass(frozen=True)
class Records:
    """The records of a study. Losses and seeds without a record are not in the dicts.

    steps: by loss, a list for each seed; final: by loss, one for each seed; images: by loss, the
    folder and the content of images.json of the first seed that has them.
    """

    steps: dict[str, list[list[Plain]]]
    final: dict[str, list[Plain]]
    images: dict[str, tuple[Path, Plain]]


def read(folder: Path, runs: Sequence[Plain]) -> Records:
    """Those of the runs of results.json in the folder of a study."""
    records = Records({}, {}, {})
    for run in runs:
        if run["state"] != "done":  # no number is of these, so no picture either
            continue
        probe, loss = folder / run["folder"] / "probe", run["loss"]
        steps = read_lines(probe / "steps.jsonl")
        if steps:
            records.steps.setdefault(loss, []).append(steps)
        final = read_json(probe / "final.json")
        if final:
            records.final.setdefault(loss, []).append(final)
        images = read_json(probe / "images.json")
        if images and loss not in records.images:
            records.images[loss] = probe, images
    return records


def read_lines(path: Path) -> list[Plain]:
    """The lines of a file of JSON lines; empty where there is none that can be read."""
    try:
        return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    except (OSError, ValueError):
        return []


def read_json(path: Path) -> Plain | None:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def over_training(steps: dict[str, list[list[Plain]]], value: Any) -> dict[str, list[Any]]:
    """For each loss, for each seed, (step, value) of the lines for which `value` is not None."""
    result = {}
    for loss, runs in steps.items():
        found = [[(row["step"], value(row)) for row in run] for run in runs]
        kept = [[(step, v) for step, v in run if v is not None] for run in found]
        if any(kept):
            result[loss] = [run for run in kept if run]
    return result


def first_and_last(runs: Sequence[Sequence[Plain]], key: str) -> Plain | None:
    """Histograms `key` of all seeds together, at the first and at the last record of each.

    Those between other edges than the latest, of an older version, are left out.
    """
    known = [[row[key] for row in run if row.get(key)] for run in runs]
    edges = next((run[-1]["edges"] for run in reversed(known) if run), None)
    known = [[row for row in run if row["edges"] == edges] for run in known]
    known = [run for run in known if run]
    if not known:
        return None
    result: Plain = {"edges": edges}
    for moment, place in (("first", 0), ("last", -1)):
        result[moment] = {
            name: np.sum([run[place][name] for run in known], axis=0)
            for name in ("foreground", "background")
        }
    return result


def cumulative(parts: Sequence[Plain], name: str) -> dict[str, tuple[Any, Any]] | None:
    """Figure 4 of the focal paper for the anchors `name` of all seeds together; by gamma.

    Shares (B + 1,) of the anchors, the least loss first, and of the sum of their losses. Within a
    bin every anchor is taken to have the bin's mean. None where there is no loss at all.
    """
    known = [part[name] for part in parts if part.get(name)]
    if not known:
        return None
    counts = np.sum([part["counts"] for part in known], axis=0)
    there = counts > 0
    curves = {}
    for gamma in GAMMAS:
        losses = np.sum([part["losses"][gamma] for part in known], axis=0)[there]
        order = np.argsort(losses / counts[there], kind="stable")
        if losses.sum() > 0:
            curves[gamma] = _shares(counts[there][order]), _shares(losses[order])
    return curves or None


def _shares(values: np.ndarray) -> np.ndarray:
    return np.append(0.0, np.cumsum(values) / values.sum())
