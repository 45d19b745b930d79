"""Fits calibrators and thresholds to a checkpoint, and stores them in a copy of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from detector import distributed
from detector.config import Config
from detector.distributed import World
from detector.engine import anchors, checkpoint
from detector.engine.calibrated import KEY, Calibration, link_of
from detector.engine.checkpoint import write_atomically
from detector.engine.evaluate import at_root, config_of, subject_of
from detector.engine.run_folder import RunFolder
from detector.engine.score import detect_all
from detector.evaluation import coco, held_out
from detector.evaluation.analysis import Costs
from detector.evaluation.calibrators import Calibrator, Link
from detector.evaluation.held_out import Halves
from detector.evaluation.text import aligned, digits
from detector.registry import LOSSES, MATCHERS
from detector.schema import require
from detector.tool_config import CalibrateConfig

Row = dict[str, Any]


def calibrate(asked: CalibrateConfig) -> dict[str, Any]:
    """Writes the copy, and a table of all methods beside it; returns the table.

    Everything is learnt on half of the val images, drawn by seed, and measured on the other half.
    Raises ConfigError for a link that is not known and an output that is there already, DataError
    where there is nothing to learn from.
    """
    saved = checkpoint.load(asked.checkpoint)
    config = at_root(config_of(saved, asked.checkpoint), asked.data_root)
    if asked.precision is not None:
        config = replace(config, precision=asked.precision)
    output = Path(asked.output)
    require_output(output, asked)
    link = link_of(LOSSES.build(config.loss, len(saved["classes"])))
    needs_link = asked.method == "link_inverse" or asked.anchors
    require(
        link is not None or not needs_link,
        f"{'anchors' if asked.anchors else 'method'}: the loss {config.loss.name} has no link "
        "inverse that is known",
    )
    world = distributed.start(asked.device)
    try:
        found = _calibrate(asked, saved, config, world, link, output)
    finally:
        distributed.stop()
    return found


def require_output(output: Path, asked: CalibrateConfig) -> None:
    """Raises ConfigError where the copy cannot be written, before anything is computed."""
    require(output.suffix == ".pt", f"output: {output} given, a name that ends in .pt is needed")
    is_other = output.resolve() != Path(asked.checkpoint).resolve()
    require(is_other, f"output: {output} is the checkpoint, which is kept as it is")
    is_free = asked.overwrite or not output.exists()
    require(is_free, f"output: {output} is already there; overwrite=true replaces it")
    RunFolder(output.parent).require_writable()


def _calibrate(
    asked: CalibrateConfig,
    saved: dict[str, Any],
    config: Config,
    world: World,
    link: Link | None,
    output: Path,
) -> dict[str, Any]:
    config = replace(config, evaluation=replace(config.evaluation, limit=None))
    subject = subject_of(saved, config, world, asked.checkpoint)
    rows = detect_all(subject)
    truth = coco.ground_truth(subject.dataset.annotations)
    halves = held_out.halve(truth, rows, seed=asked.seed)
    fitted = {method: _fit(halves, method, link, asked) for method in held_out.methods_for(link)}
    stored = calibration(halves, fitted[asked.method], asked)
    found = tables(truth, rows, halves, fitted, stored, asked)
    if asked.anchors:
        assert link is not None
        found["anchors"] = anchors.anchor_calibration(
            subject.model,
            subject.layout,
            MATCHERS.build(config.matcher),
            subject.batches(0, 1),
            link,
            device=world.device,
            precision=subject.precision,
            draws=asked.draws,
            seed=asked.seed,
        )
    if world.is_main:
        output.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.save(output, {**saved, KEY: stored.to_dict()})
        text = json.dumps(found, indent=1) + "\n"
        write_atomically(output.with_suffix(".json"), text.encode())
        print("\n".join(lines(found)))
        print(f"written: {output}, {output.with_suffix('.json')}")
    return found


def _fit(
    halves: Halves, method: str, link: Link | None, asked: CalibrateConfig
) -> Calibrator | None:
    return held_out.fit(
        halves, method, link=link, target=asked.target, min_detections=asked.min_detections
    )


def calibration(
    halves: Halves, calibrator: Calibrator | None, asked: CalibrateConfig
) -> Calibration:
    """What is stored: a calibrator and the thresholds before and after it, all of one half."""
    costs = Costs(asked.miss, asked.false_alarm)
    after = held_out.mapped(halves.fit, calibrator)
    return Calibration(
        calibrator=calibrator,
        raw=held_out.choose_points(halves.fit[0.5], costs),
        calibrated=held_out.choose_points(after[0.5], costs),
        note=f"{asked.method} to {asked.target} on {int(halves.chosen.sum())} images of val, "
        f"seed {asked.seed}",
    )


def tables(
    truth: dict[str, list[Row]],
    rows: list[Row],
    halves: Halves,
    fitted: dict[str, Calibrator | None],
    stored: Calibration,
    asked: CalibrateConfig,
) -> dict[str, Any]:
    """All methods, and the thresholds that were chosen, on the images nothing was learnt from."""
    methods = {
        method: {
            "AP": held_out.average_precision(truth, rows, halves, own),
            "pooled": [] if own is None else [halves.packed.classes[k] for k in own.fallbacks],
            **held_out.measured([halves], [own], draws=asked.draws, seed=asked.seed),
        }
        for method, own in fitted.items()
    }
    return {
        "stored": stored.note,
        "images": {"fit": int(halves.chosen.sum()), "test": int((~halves.chosen).sum())},
        "methods": methods,
        "operating_points": {
            name: {**points.to_dict(), "test": held_out.reached(halves.test[0.5], points)}
            for name, points in stored.raw.items()
        },
    }


def lines(found: dict[str, Any]) -> list[str]:
    """The tables for a terminal."""
    images = found["images"]
    rows = [("threshold", "LRP", "precision", "recall", "wrong", "missed")]
    for name, points in found["operating_points"].items():
        part = points["test"]
        precision, recall = (
            digits(None if part[key] is None else 1 - part[key])
            for key in ("false_positives", "false_negatives")
        )
        counts = (str(part["wrong"]), str(part["missed"]))
        rows.append((name, digits(part["value"]), precision, recall, *counts))
    text = [
        f"learnt on {images['fit']} images, measured on the other {images['test']}; 95 % intervals",
        "",
        *held_out.table(found["methods"]),
        "shown: kept by the thresholds of optimal LRP, the same detections for all calibrators",
        *(
            f"{method}: too few detections, map of all classes: {', '.join(row['pooled'])}"
            for method, row in found["methods"].items()
            if row["pooled"]
        ),
        "",
        *aligned(rows),
        "precision and recall: means over classes; wrong and missed: of all classes",
    ]
    if "anchors" in found:
        text += ["", *aligned(anchors.table(found["anchors"])), found["anchors"]["convention"]]
        text.append(f"above: raw score above {found['anchors']['above']:g}")
    return [*text, "", f"stored: {found['stored']}"]
