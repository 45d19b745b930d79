"""One comparison after another on ever harder data: where does each loss break?"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detector.config import from_plain
from detector.config.registry import AUGMENTATIONS, DATASETS, MATCHERS
from detector.data.export import figures
from detector.laboratory.compare import study
from detector.laboratory.compare.compare import compare
from detector.laboratory.compare.comparison import Comparison
from detector.laboratory.compare.study import Compose, Files, Plain
from detector.models.anchors import AnchorGenerator
from detector.plots.style import PAGE, save, styled
from detector.runtime.signals import StopRequest
from detector.structures import Batch, Matches, Targets

MEASURED = 200
"""Train images from which the imbalance is measured."""

SWEEP = "sweep.json"


@dataclass(frozen=True)
class Step:
    """words: its overrides. plain, compose: as of `compare`, with them."""

    words: tuple[str, ...]
    plain: Plain
    compose: Compose


def sweep(config: Comparison, compose: Compose, folder: Path, program: Sequence[str]) -> int:
    """A study for each step of `config.sweep`, then sweep.json and sweep.png; the exit code.

    program: as of `compare`. The code is that of the first study with a run that failed; the others
    are done all the same. Raises Preempted after a signal.
    """
    steps = [with_words(tuple(shlex.split(text)), compose) for text in config.sweep]
    codes, found, stop = [], [], StopRequest()
    for number, step in enumerate(steps, 1):
        print(f"step {number} of {len(steps)}: {' '.join(step.words) or 'as it is'}", flush=True)
        files = Files(folder / f"step_{number}")
        codes.append(compare(config, step.compose, step.plain, files.folder, program, stop))
        found.append(read_step(number, step, files, folder))
        study.write_json(folder / SWEEP, {"command": study.command(), "steps": found})
    pictures = draw(found, folder) if len(found) > 1 else []
    for path in (folder / SWEEP, *pictures):
        print(f"written: {path}")
    return next((code for code in codes if code), 0)


def with_words(words: tuple[str, ...], compose: Compose) -> Step:
    """The step of these overrides."""

    def within(more: Sequence[str]) -> Plain:
        return compose([*words, *more])

    return Step(words, compose(words), within)


def read_step(number: int, step: Step, files: Files, folder: Path) -> Plain:
    """What a step made of the data, and the AP of each loss on it."""
    results = study.read_json(files.results)
    return {
        "step": number,
        "overrides": list(step.words),
        "folder": str(files.folder.relative_to(folder)),
        "data": imbalance(step.plain),
        "losses": {
            row["loss"]: {
                "AP": row["AP"],
                "low": row["AP_low"],
                "high": row["AP_high"],
                "seeds": row["seeds_done"],
                "APs": [
                    run["AP"]
                    for run in results["runs"]
                    if run["loss"] == row["loss"] and run["state"] == "done"
                ],
            }
            for row in results["summary"]
        },
        "verdict": results["verdict"],
    }


def imbalance(plain: Plain) -> dict[str, float]:
    """The figures of the train split as the matcher sees it; of its first `MEASURED` images."""
    config = from_plain(plain)
    matcher, anchors = MATCHERS.build(config.matcher), AnchorGenerator(config.model.anchors)

    def matched(batch: Batch, targets: Targets) -> Matches:
        height, width = batch.images.shape[-2:]
        return matcher(anchors.for_image(height, width), targets, None)

    train = DATASETS.build(config.data).read("train")
    limit = min(MEASURED, len(train))
    return figures(train, AUGMENTATIONS.build(config.augment), matched, limit=limit)


def draw(steps: Sequence[Plain], folder: Path) -> list[Path]:
    """AP of each loss over the steps, with the range of its seeds; the measured imbalance below."""
    with styled():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(PAGE, 3.8), layout="constrained")
        axes: Any = figure.subplots()
        for i, loss in enumerate(steps[0]["losses"]):
            rows = [step["losses"].get(loss, {}) for step in steps]
            places = [k for k, row in enumerate(rows) if row.get("AP") is not None]
            columns = {key: [rows[k][key] for k in places] for key in ("AP", "low", "high")}
            colour = f"C{i % 10}"
            axes.plot(places, columns["AP"], color=colour, marker="osD^vPX*<>"[i % 10], label=loss)
            axes.fill_between(
                places, columns["low"], columns["high"], color=colour, alpha=0.15, linewidth=0
            )
        axes.set_xticks(range(len(steps)), [label(step) for step in steps])
        axes.set_xlabel("step of the sweep, and its background anchors for each foreground anchor")
        axes.set_ylabel("AP on the val images")
        axes.set_ylim(bottom=0)
        figure.legend(loc="outside upper center", ncols=min(3, len(steps[0]["losses"])))
        seeds = max(row["seeds"] for step in steps for row in step["losses"].values())
        if seeds > 1:
            axes.set_title(f"band: least and greatest of {seeds} seeds", fontsize="small")
        return save(figure, folder, "sweep", ("png", "svg"))


def label(step: Plain) -> str:
    """Such as "2" over "450 : 1"."""
    return f"{step['step']}\n{step['data']['background_per_foreground']:,.0f} : 1"
