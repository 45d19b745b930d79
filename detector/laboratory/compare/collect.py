"""From the run folders of a study to its results: read, never trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from detector.analysis import calibration, lrp
from detector.analysis.analysis import counted
from detector.analysis.calibrators import KINDS, Calibrator, apply, fit, link_inverse
from detector.analysis.curves import draw_matching
from detector.analysis.matching import COCO_THRESHOLDS, Outcomes, match, overlapping
from detector.analysis.packing import Packed, pack
from detector.config import from_plain
from detector.config.registry import LOSSES
from detector.data.annotations import Annotations
from detector.errors import ConfigError, DataError
from detector.evaluation import coco
from detector.inference.calibrated import link_of
from detector.laboratory.compare import statistics, study, verdict
from detector.laboratory.compare.metric import Metric
from detector.laboratory.compare.resampling import Resampled
from detector.laboratory.compare.study import Files, Plain
from detector.laboratory.report.scores import score_counts
from detector.runs.run_folder import RunFolder
from detector.runs.side_files import read_record, read_records

METRICS = tuple(metric.name for metric in coco.METRICS)


def collect(files: Files, val: Annotations, *, draws: int, metric: Metric | None = None) -> Plain:
    """The content of results.json. val: the images that the runs were scored on. metric: by which
    they are compared; None: AP.

    Raises ConfigError where two losses of one seed did not see the same images.
    """
    metric = metric or Metric()
    asked = study.read_json(files.study)
    truth = coco.ground_truth(val)
    runs: list[Plain] = []
    resampled: dict[tuple[str, int], Resampled] = {}
    for loss in asked["losses"]:
        for seed in asked["seeds"]:
            run = {"loss": loss, "seed": seed, **read_run(files.run(loss, seed), files.folder)}
            if run["state"] == "done":
                facts, packed = analyse(files.run(loss, seed), truth)
                resampled[loss, seed] = metric.of(packed)
                run |= facts
                if metric.text not in run:  # COCO's own are those of the evaluator
                    run[metric.text] = metric_of(resampled[loss, seed])
            runs.append(run)
    require_same_images(runs)
    comparisons = statistics.comparisons(
        runs, resampled, asked["losses"], draws=draws, metric=metric.text
    )
    content = {
        "losses": asked["losses"],
        "arms": asked["arms"],
        "seeds": asked["seeds"],
        "steps": asked["steps"],
        "epochs": asked.get("epochs"),
        "metric": metric.text,
        "metric_in_words": metric.words,
        "lr_search": asked["lr_search"],
        "runs": runs,
        "summary": statistics.summary(runs, asked["losses"], metric.text),
        "comparisons": comparisons,
        "conventions": conventions(),
    }
    return {**content, "verdict": verdict.in_words(content)}


def metric_of(found: Resampled) -> float | None:
    """The metric of a run on the val images as they are, each once."""
    if not found.classes:
        return None
    return _known(float(found.ap(np.ones((1, found.num_images)))[0]))


def read_run(folder: Path, root: Path) -> Plain:
    """State, metrics, AP over training, time and memory of a run folder, as far as there are any.

    seconds: of training alone, over all its starts. images: the chain over what it was trained on.
    """
    run = RunFolder(folder)
    status = run.read_status()
    facts: Plain = {
        "folder": str(folder.relative_to(root)),
        "state": status["state"],
        "message": status.get("message", ""),
        "step": status.get("step", 0),
        "images": status.get("images"),
        "skipped": status.get("skipped", 0),
    }
    if facts["state"] != "done":
        return facts
    metrics = read_record(run.metrics, {"per_class": dict})
    log = _lines(run.log)
    speeds = [line["images_per_second"] for line in log]
    return {
        **facts,
        **{name: metrics[name] for name in METRICS},
        "per_class": metrics["per_class"],
        "ap_over_training": [
            {"step": line["step"], "AP": line["AP"], "AP50": line["AP50"]}
            for line in _lines(run.evaluations)
        ],
        "initial_loss": json.loads(run.initial.read_text()) if run.initial.exists() else None,
        "seconds": _seconds(log, run),
        "images_per_second": float(np.median(speeds)),
        "memory_gb": max(line["memory_gb"] for line in log),
    }


def _lines(path: Path) -> list[Plain]:
    return read_records(path, {"step": int}) if path.exists() else []


def _seconds(log: list[Plain], run: RunFolder) -> float:
    batch_size = _config(run)["batch_size"]
    steps = np.diff([line["step"] for line in log], prepend=0)
    speeds = np.array([line["images_per_second"] for line in log])
    return float((steps * batch_size / speeds).sum())


def _config(run: RunFolder) -> Plain:
    import yaml

    return yaml.safe_load(run.config.read_text())


def require_same_images(runs: list[Plain]) -> None:
    """Raises ConfigError where losses of one seed differ in their images or in the order of them.

    Runs that did not end are passed over: they have seen fewer.
    """
    done = [run for run in runs if run["state"] == "done"]
    for run in done:
        first = next(other for other in done if other["seed"] == run["seed"])
        if run["images"] != first["images"]:
            raise ConfigError(
                f"seed {run['seed']}: {first['loss']} and {run['loss']} were not trained on the "
                f"same images in the same order ({first['images']}, {run['images']}), so nothing "
                "is compared; look for a difference of data, augment, batch_size or steps"
            )


def analyse(folder: Path, truth: dict[str, list[Plain]]) -> tuple[Plain, Packed]:
    """Optimal LRP, and calibration before and after each calibrator, of a finished run."""
    run = RunFolder(folder)
    packed = pack(truth, json.loads(run.detections.read_text()))
    pairs = overlapping(packed)
    found = counted(packed, pairs)
    every = draw_matching(packed, match(packed, COCO_THRESHOLDS, pairs=pairs))
    fitted_on = halves(packed.num_images)
    config = from_plain(_config(run))
    loss = LOSSES.build(config.loss, packed.num_classes)
    return {
        "per_class_AP": dict(zip(packed.classes, map(_known, every.ap()), strict=True)),
        "optimal_lrp": lrp.summary(lrp.optimal(found[0.5])),
        "score_counts": score_counts(found[0.5]),
        "calibration": calibrated(found, fitted_on, link_of(loss, config.rating)),
        "calibration_images": {
            "fitted": int(fitted_on.sum()),
            "scored": int((~fitted_on).sum()),
        },
    }, packed


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def halves(num_images: int) -> np.ndarray:
    """(I,) bool: the images to fit calibrators on; the same for every run of a study."""
    chosen = np.zeros(num_images, dtype=bool)
    chosen[np.random.default_rng(0).permutation(num_images)[: num_images // 2]] = True
    return chosen


def calibrated(
    found: dict[float, Outcomes], fitted_on: np.ndarray, link: Any
) -> dict[str, dict[str, float | None] | None]:
    """{"raw" | calibrator: {measure: value}} on the images that no calibrator was fitted on.

    None for a calibrator that cannot be had: no known link, or nothing to fit on.
    """
    scored = {tau: part.on_images(~fitted_on) for tau, part in found.items()}
    result: dict[str, dict[str, float | None] | None] = {"raw": _measures(scored)}
    for kind in KINDS:
        calibrator = _calibrator(kind, found[0.5].on_images(fitted_on), link)
        result[kind] = calibrator and _measures(
            {tau: apply(part, calibrator) for tau, part in scored.items()}
        )
    return result


def _calibrator(kind: str, found: Outcomes, link: Any) -> Calibrator | None:
    if kind == "link_inverse":
        return None if link is None else link_inverse(link)
    try:
        return fit(kind, found)
    except DataError:  # no right or no wrong detections: there is nothing to learn from
        return None


def _measures(found: dict[float, Outcomes]) -> dict[str, float | None]:
    return {name: measure.value for name, measure in calibration.measure(found).items()}


def conventions() -> dict[str, str]:
    """What the numbers mean that papers define differently."""
    return {
        **{definition.name: definition.convention for definition in calibration.MEASURES},
        "optimal LRP": lrp.CONVENTION.format(tau=0.5),
        "calibrators": "fitted to right and wrong at IoU 0.5 on one half of the val images, all "
        "measures, raw ones too, of the other half",
    }
