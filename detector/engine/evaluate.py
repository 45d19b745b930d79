"""COCO's numbers, and an analysis where it is asked for: of a run, a checkpoint, or a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from detector import distributed
from detector.config import Config, EvaluationConfig, from_plain
from detector.data.images import read_pixels, require_folder
from detector.data.readers.base import Dataset
from detector.distributed import World
from detector.engine import checkpoint
from detector.engine.calibrated import calibration_of
from detector.engine.figures import Pixels
from detector.engine.precision import Precision, choose
from detector.engine.run_folder import RunFolder
from detector.engine.score import Subject, measure, score, write_metrics, write_pictures
from detector.engine.setup import Setup, State, prepare
from detector.engine.weights import weights_to_evaluate
from detector.errors import ConfigError, DataError
from detector.evaluation import coco, files
from detector.evaluation.report import Report
from detector.layouts import Layout
from detector.models.detector import build_detector
from detector.plots.style import require_matplotlib
from detector.registry import AUGMENTATIONS, DATASETS, LOSSES, REGISTRIES, require_known
from detector.tool_config import EvaluateConfig


def evaluate(setup: Setup, state: State, folder: RunFolder | None) -> dict[str, Any]:
    """Metrics of the run's evaluated model on the val split."""
    subject = Subject(
        state.evaluated_model,
        state.criterion.layout,
        setup.val_set,
        setup.augment,
        setup.config,
        setup.world,
        setup.precision,
    )
    return score(subject, folder=folder, seed=setup.config.seed)


def report(metrics: dict[str, Any], folder: RunFolder) -> None:
    """Prints the COCO table, the per-class AP, the analysis and where everything lies."""
    print(coco.table(metrics))
    evaluator = metrics["evaluator"]
    print(f"by {evaluator['name']} {evaluator['version']}, {metrics['images']} images\n")
    if "analysis" in metrics:
        print("\n".join(Report(**metrics["analysis"]).table()), end="\n\n")
    names = {"config": folder.config, "log": folder.log, "metrics": folder.metrics}
    names |= {"detections": folder.detections, "last": folder.last, "best": folder.best}
    names |= {"figures": folder.figures, "worst": folder.worst}
    for name, path in names.items():
        if path.exists():
            print(f"{name:>10}  {path}")


def require_pictures(config: EvaluationConfig) -> None:
    """Raises ConfigError where pictures are to be drawn at the end and cannot be."""
    if config.analysis and config.pictures:
        require_matplotlib()


def evaluate_checkpoint(asked: EvaluateConfig) -> dict[str, Any]:
    """Scores a checkpoint on the val split of its own data; nothing but the file is needed.

    Writes metrics.json, detections.json and the pictures of an analysis into `output_dir`
    (default: `evaluation` beside the checkpoint). Raises ConfigError for a file that is no
    checkpoint, DataError where the data do not have its classes.
    """
    path = str(asked.checkpoint)
    saved = checkpoint.load(path)
    config = at_root(config_of(saved, path), asked.data_root)
    config = replace(config, evaluation=as_asked(config.evaluation, asked))
    if asked.precision is not None:
        config = replace(config, precision=asked.precision)
    require_pictures(config.evaluation)
    folder = RunFolder(Path(asked.output_dir or Path(path).parent / "evaluation"))
    folder.require_writable()
    world = distributed.start(asked.device)
    try:
        return _evaluate_checkpoint(asked, saved, config, world, folder)
    finally:
        distributed.stop()


def _evaluate_checkpoint(
    asked: EvaluateConfig,
    saved: dict[str, Any],
    config: Config,
    world: World,
    folder: RunFolder,
) -> dict[str, Any]:
    path = str(asked.checkpoint)
    subject = subject_of(saved, config, world, path)
    stored = calibration_of(saved, path) if asked.calibrated else None
    calibrator = stored.calibrator if stored else None
    metrics = score(subject, folder=folder, calibrator=calibrator, seed=asked.seed)
    if world.is_main:
        report(metrics, folder)
    return metrics


def evaluate_detections(asked: EvaluateConfig) -> dict[str, Any]:
    """Scores COCO results of any detector against a COCO ground truth, with an analysis.

    Writes metrics.json and the pictures into `output_dir` (default: `evaluation` beside the
    results). Raises DataError that names the file and the entry for what makes no sense.
    """
    source = Path(str(asked.detections))
    config = as_asked(EvaluationConfig(analysis=True), asked)
    require_pictures(config)
    folder = RunFolder(Path(asked.output_dir or source.parent / "evaluation"))
    folder.require_writable()
    truth = files.read_ground_truth(Path(str(asked.annotations)))
    rows = files.read_detections(source, truth)
    if config.analysis:
        files.check_scores(source, rows)
    rows = coco.sort_results(rows)
    pixels = pixels_of(truth, asked.images) if asked.images is not None else None
    metrics = measure(truth, rows, config, seed=asked.seed)
    folder.path.mkdir(parents=True, exist_ok=True)
    write_metrics(folder.metrics, metrics)
    write_pictures(truth, rows, metrics, config, folder, pixels)
    report(metrics, folder)
    return metrics


def pixels_of(truth: files.Truth, images: str) -> Pixels:
    """Reads the image of an id from a folder. Raises DataError where there is no such folder."""
    folder = require_folder(Path(images), "images")
    names = {row["id"]: row.get("file_name") for row in truth["images"]}

    def read(image_id: int) -> Any:
        name = names[image_id]
        if not isinstance(name, str):
            raise DataError(f"annotations: image {image_id} has no file_name to be drawn from")
        return read_pixels(folder / name, 100.0, key="images")

    return read


def as_asked(config: EvaluationConfig, asked: EvaluateConfig) -> EvaluationConfig:
    """The evaluation with what a call of the tool says of it."""
    return replace(
        config,
        analysis=config.analysis if asked.analysis is None else asked.analysis,
        evaluator=asked.evaluator or config.evaluator,
        draws=asked.draws,
        pictures=asked.pictures,
        worst=asked.worst,
    )


def at_root(config: Config, data_root: str | None) -> Config:
    """The config with its data where they lie now. Raises DataError where they do not."""
    options = dict(config.data.options)
    if data_root is not None:
        if "root" not in options:
            raise ConfigError(f"data_root: {config.data.name} data have no root")
        options["root"] = data_root
    root = options.get("root")
    if isinstance(root, str) and not Path(root).expanduser().is_dir():
        raise DataError(
            f"data.root={root}: there is no such folder; data_root= says where the data lie now"
        )
    return replace(config, data=replace(config.data, options=options))


def val_set(saved: dict[str, Any], config: Config, path: str) -> Dataset:
    """The val split. Raises DataError where its classes are not those of the checkpoint."""
    dataset = DATASETS.build(config.data).read("val")
    annotations = dataset.annotations
    known = (tuple(saved["classes"]), tuple(saved["category_ids"]))
    if known != (annotations.classes, annotations.category_ids):
        raise DataError(
            f"{dataset.name}: classes {list(annotations.classes)}, but {path} was trained on "
            f"{saved['classes']}"
        )
    return dataset


def config_of(saved: dict[str, Any], path: str) -> Config:
    """The config in a checkpoint. Raises ConfigError where it names parts that are not known."""
    config = from_plain(saved["config"])
    require_known({kind: getattr(config, kind) for kind in REGISTRIES}, config.plugins, path)
    return config


def subject_of(saved: dict[str, Any], config: Config, world: World, path: str) -> Subject:
    """The model of a checkpoint and the val split of its data. path: of the checkpoint."""
    precision = choose(config.precision, world.device)
    dataset = val_set(saved, config, path)
    model, layout = restore(saved, config, world, precision)
    augment = AUGMENTATIONS.build(config.augment)
    return Subject(model, layout, dataset, augment, config, world, precision)


def restore(
    saved: dict[str, Any], config: Config, world: World, precision: Precision
) -> tuple[nn.Module, Layout]:
    """The model of a checkpoint as it is evaluated, and what its outputs mean."""
    layout = LOSSES.build(config.loss, len(saved["classes"])).layout
    model = build_detector(config.backbone, config.model, layout, 0.01, pretrained=False)
    model.load_state_dict(weights_to_evaluate(saved))
    return prepare(model, config, world, precision), layout
