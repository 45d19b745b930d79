"""Fits calibrators and thresholds to a checkpoint, and stores them in a copy of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from detector.analysis import held_out
from detector.analysis.analysis import Costs
from detector.analysis.calibrators import Calibrator, Link
from detector.analysis.held_out import Halves
from detector.config import Precision as PrecisionName
from detector.config.registry import LOSSES, MATCHERS
from detector.config.schema import require
from detector.evaluation import coco
from detector.evaluation.text import aligned, digits
from detector.inference import anchor_calibration as anchors
from detector.inference.calibrated import Calibration, link_of
from detector.inference.evaluate import at_root, val_set
from detector.inference.graph import GraphPredictor, load_graph
from detector.inference.load import is_graph
from detector.inference.predictor import Predictor, config_of, restore
from detector.inference.restate import restate
from detector.inference.score import detect_all, evaluation_images
from detector.runs import checkpoint
from detector.runs.checkpoint import write_atomically
from detector.runs.run_folder import RunFolder
from detector.runtime import distributed
from detector.runtime.distributed import World

ALONE = World(0, 1, torch.device("cpu"))
"""For what every process looks at whole."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Fit:
    """How a calibrator is learnt. method, target, min_detections: of `held_out.fit`. miss,
    false_alarm: what each costs, for the operating point "cost"; false_alarms_per_image: of a
    class, for "fppi". draws, seed: of the intervals, and of the half that is learnt from."""

    method: str = "platt"
    target: str = "hit"
    min_detections: int = 50
    miss: float = 1.0
    false_alarm: float = 1.0
    false_alarms_per_image: float = 0.1
    draws: int = 500
    seed: int = 0


def calibrate(
    path: str | Path,
    output: str | Path,
    *,
    fit: Fit = Fit(),
    overwrite: bool = False,
    with_anchors: bool = False,
    data_root: str | None = None,
    device: str = "auto",
    precision: PrecisionName | None = None,
) -> dict[str, Any]:
    """Writes a copy of the checkpoint or exported graph at `path` that holds a calibrator and
    operating points, and a table of all methods beside it; returns the table.

    Everything is learnt on half of the val images, drawn by seed, and measured on the other half.
    with_anchors: the calibration of all anchors before NMS is measured too. data_root: where the
    data lie now. A graph is calibrated by what it finds itself, which in 8 bits is not what its
    checkpoint finds. Raises ConfigError for a link that is not known, an output that is there
    already and what a graph cannot hold, DataError where there is nothing to learn from.
    """
    graph = load_graph(path) if is_graph(path) else None
    saved = checkpoint.load(path) if graph is None else {}
    trained = config_of(saved, str(path)) if graph is None else graph.config
    config = at_root(trained, data_root)
    evaluation = replace(config.evaluation, limit=None)
    config = replace(config, evaluation=evaluation, precision=precision or config.precision)
    output = Path(output)
    require_output(output, Path(path), overwrite=overwrite)
    if graph is not None:
        require_of_graph(graph, fit.method, with_anchors=with_anchors, precision=precision)
    num_classes = len(saved["classes"]) if graph is None else len(graph.classes)
    link = link_of(LOSSES.build(config.loss, num_classes), config.rating)
    needs_link = fit.method == "link_inverse" or with_anchors
    require(
        link is not None or not needs_link,
        f"{'anchors' if with_anchors else 'method'}: the loss {config.loss.name} has no link "
        "inverse that is known",
    )
    world = distributed.start(device)
    try:
        if graph is None:
            predictor = restore(saved, config, str(path), world.device)
        else:
            predictor, graph.config = graph, config
        dataset = val_set(predictor.classes, predictor.category_ids, config, str(path))
        rows = detect_all(predictor, dataset, world)
        stored, found = learn(coco.ground_truth(dataset.annotations), rows, link, fit)
        if with_anchors:
            assert link is not None
            assert isinstance(predictor, Predictor)  # by `require_of_graph`
            batches = evaluation_images(predictor, dataset, ALONE)
            matcher = MATCHERS.build(config.matcher)
            found["anchors"] = anchors.anchor_calibration(
                predictor, matcher, batches, link, draws=fit.draws, seed=fit.seed
            )
        if world.is_main:
            if graph is None:
                output.parent.mkdir(parents=True, exist_ok=True)
                checkpoint.save(output, {**saved, checkpoint.CALIBRATION: stored.to_dict()})
            else:
                restate(Path(path), output, {**graph.meaning, "calibration": stored.to_dict()})
            write_table(output, found)
        return found
    finally:
        distributed.stop()


def require_output(output: Path, source: Path, *, overwrite: bool) -> None:
    """Raises ConfigError where the copy cannot be written, before anything is computed."""
    suffix = source.suffix.lower() if is_graph(source) else ".pt"
    require(
        output.suffix == suffix, f"output: {output} given, a name that ends in {suffix} is needed"
    )
    is_other = output.resolve() != source.resolve()
    require(is_other, f"output: {output} is the checkpoint, which is kept as it is")
    is_free = overwrite or not output.exists()
    require(is_free, f"output: {output} is already there; overwrite=true replaces it")
    RunFolder(output.parent).require_writable()


def require_of_graph(
    graph: GraphPredictor, method: str, *, with_anchors: bool, precision: str | None
) -> None:
    """Raises ConfigError for what cannot be learnt from an exported graph, or stored in one."""
    require(
        not graph.gives_calibrated,
        f"checkpoint: {graph.source} has a calibrator inside; an export with calibrated=false, or "
        "its checkpoint, can be calibrated",
    )
    require(
        method != "link_inverse",
        "method: link_inverse needs this project's losses, which a graph is without; platt can be "
        "stored in one",
    )
    require(not with_anchors, "anchors: true given, which takes a checkpoint")
    require(precision is None, f"precision: {precision} given, a graph has its own")
    require(
        graph.meaning["threshold"] == 0,
        f"checkpoint: {graph.source} gives nothing below a score of {graph.meaning['threshold']}; "
        "an export with threshold=0 can be calibrated",
    )


def write_table(output: Path, found: dict[str, Any]) -> None:
    """The table beside the copy, as JSON, and in the terminal."""
    text = json.dumps(found, indent=1) + "\n"
    write_atomically(output.with_suffix(".json"), text.encode())
    print("\n".join(lines(found)))
    print(f"written: {output}, {output.with_suffix('.json')}")


def learn(
    truth: dict[str, list[Row]], rows: list[Row], link: Link | None, fit: Fit
) -> tuple[Calibration, dict[str, Any]]:
    """What is to be stored, and the tables of all methods. truth, rows: in COCO's formats."""
    halves = held_out.halve(truth, rows, seed=fit.seed)
    fitted = {
        method: held_out.fit(
            halves, method, link=link, target=fit.target, min_detections=fit.min_detections
        )
        for method in held_out.methods_for(link)
    }
    stored = calibration(halves, fitted[fit.method], fit)
    return stored, tables(truth, rows, halves, fitted, stored, fit)


def calibration(halves: Halves, calibrator: Calibrator | None, fit: Fit) -> Calibration:
    """What is stored: a calibrator and the thresholds before and after it, all of one half."""
    costs = Costs(fit.miss, fit.false_alarm, fit.false_alarms_per_image)
    after = held_out.mapped(halves.fit, calibrator)
    return Calibration(
        calibrator=calibrator,
        raw=held_out.choose_points(halves.fit[0.5], costs),
        calibrated=held_out.choose_points(after[0.5], costs),
        note=f"{fit.method} to {fit.target} on {int(halves.chosen.sum())} images of val, "
        f"seed {fit.seed}",
    )


def tables(
    truth: dict[str, list[Row]],
    rows: list[Row],
    halves: Halves,
    fitted: dict[str, Calibrator | None],
    stored: Calibration,
    fit: Fit,
) -> dict[str, Any]:
    """All methods, and the thresholds that were chosen, on the images nothing was learnt from."""
    methods = {
        method: {
            "AP": held_out.average_precision(truth, rows, halves, own),
            "pooled": [] if own is None else [halves.packed.classes[k] for k in own.fallbacks],
            **held_out.measured([halves], [own], draws=fit.draws, seed=fit.seed),
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
