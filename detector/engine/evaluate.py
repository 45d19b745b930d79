"""From a model and a data set to COCO's numbers and the files that hold them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from detector import distributed
from detector.config import Config, from_plain
from detector.data.annotations import Annotations
from detector.data.loader import evaluation_batches
from detector.data.readers.base import Dataset
from detector.data.transforms import Augmentation
from detector.distributed import World
from detector.engine import checkpoint
from detector.engine.precision import Precision, choose
from detector.engine.run_folder import RunFolder
from detector.engine.setup import Setup, State, prepare
from detector.engine.weights import weights_to_evaluate
from detector.errors import ConfigError, DataError
from detector.evaluation import coco
from detector.layouts import Layout
from detector.model_config import PostprocessConfig
from detector.models.detector import build_detector
from detector.models.postprocess import postprocess
from detector.registry import AUGMENTATIONS, DATASETS, LOSSES, REGISTRIES, require_known
from detector.structures import Batch, Targets, to_device


@torch.no_grad()
def detect(
    model: nn.Module,
    layout: Layout,
    batches: Iterable[tuple[Batch, Targets]],
    *,
    category_ids: tuple[int, ...],
    config: PostprocessConfig,
    device: torch.device,
    precision: Precision,
) -> list[dict[str, Any]]:
    """Detections of all images as rows of COCO's results format, in the order of the batches."""
    rows: list[dict[str, Any]] = []
    model.eval()
    for batch, _ in batches:
        batch = to_device(batch, device)
        with precision.autocast(device):
            predictions = model(batch)
        for image_id, found in zip(
            batch.image_ids, postprocess(predictions, layout, batch, config), strict=True
        ):
            rows += coco.results(
                image_id,
                found.boxes.cpu().double().numpy(),
                found.scores.cpu().double().numpy(),
                found.labels.cpu().numpy(),
                category_ids,
            )
    return rows


def score(
    model: nn.Module,
    layout: Layout,
    dataset: Dataset,
    *,
    augment: Augmentation,
    config: Config,
    world: World,
    precision: Precision,
    folder: RunFolder | None = None,
) -> dict[str, Any]:
    """COCO metrics of a model on a data set, the same on every rank, with the seconds they took.

    Written with the detections to metrics.json and detections.json where a folder is given.
    """
    began = time.perf_counter()
    batches = evaluation_batches(
        dataset,
        augment,
        images_per_group=config.evaluation.images_per_group,
        rank=world.rank,
        world_size=world.size,
        num_workers=config.loader.workers,
        timeout=config.loader.timeout,
        limit=config.evaluation.limit,
    )
    rows = detect(
        model,
        layout,
        batches,
        category_ids=dataset.annotations.category_ids,
        config=config.model.postprocess,
        device=world.device,
        precision=precision,
    )
    rows = coco.sort_results([row for part in world.gather(rows) for row in part])
    metrics: dict[str, Any] = {}
    if world.is_main:
        truth = coco.ground_truth(_first(dataset.annotations, config.evaluation.limit))
        metrics = coco.evaluate(truth, rows, evaluator=config.evaluation.evaluator)
        metrics["seconds"] = time.perf_counter() - began
        if folder is not None:
            folder.path.mkdir(parents=True, exist_ok=True)
            folder.detections.write_text(json.dumps(rows))
            folder.metrics.write_text(json.dumps(metrics, indent=1) + "\n")
    return world.broadcast(metrics)


def evaluate(setup: Setup, state: State, folder: RunFolder | None) -> dict[str, Any]:
    """COCO metrics of the run's evaluated model on the val split."""
    return score(
        state.evaluated_model,
        state.loss.layout,
        setup.val_set,
        augment=setup.augment,
        config=setup.config,
        world=setup.world,
        precision=setup.precision,
        folder=folder,
    )


def report(metrics: dict[str, Any], folder: RunFolder) -> None:
    """Prints the COCO table, the per-class AP and where everything lies."""
    print(coco.table(metrics))
    names = {"config": folder.config, "log": folder.log, "metrics": folder.metrics}
    names |= {"detections": folder.detections, "last": folder.last, "best": folder.best}
    for name, path in names.items():
        if path.exists():
            print(f"{name:>10}  {path}")


def evaluate_checkpoint(
    path: str,
    *,
    output_dir: str | None = None,
    device: str = "auto",
    precision: str | None = None,
    evaluator: str | None = None,
    data_root: str | None = None,
) -> dict[str, Any]:
    """Scores a checkpoint on the val split of its own data; nothing but the file is needed.

    Writes metrics.json and detections.json into `output_dir` (default: `evaluation` beside the
    checkpoint). data_root: where the data lie on this machine, if elsewhere. Raises ConfigError
    for a file that is no checkpoint, DataError where the data do not have its classes.
    """
    saved = checkpoint.load(path)
    config = config_of(saved, path)
    if data_root is not None:
        if "root" not in config.data.options:
            raise ConfigError(f"data_root: {config.data.name} data have no root")
        config.data.options["root"] = data_root
    root = config.data.options.get("root")
    if isinstance(root, str) and not Path(root).expanduser().is_dir():
        raise DataError(
            f"data.root={root}: there is no such folder; data_root= says where the data lie now"
        )
    if evaluator is not None:
        config = replace(config, evaluation=replace(config.evaluation, evaluator=evaluator))
    if precision is not None:
        config = replace(config, precision=precision)
    world = distributed.start(device)
    try:
        return _evaluate_checkpoint(path, saved, config, world, output_dir)
    finally:
        distributed.stop()


def _evaluate_checkpoint(
    path: str,
    saved: dict[str, Any],
    config: Config,
    world: World,
    output_dir: str | None,
) -> dict[str, Any]:
    folder = RunFolder(Path(output_dir) if output_dir else Path(path).parent / "evaluation")
    folder.require_writable()
    precision = choose(config.precision, world.device)
    dataset = DATASETS.build(config.data).read("val")
    annotations = dataset.annotations
    known = (tuple(saved["classes"]), tuple(saved["category_ids"]))
    if known != (annotations.classes, annotations.category_ids):
        raise DataError(
            f"{dataset.name}: classes {list(annotations.classes)}, but {path} was trained on "
            f"{saved['classes']}"
        )
    model, layout = restore(saved, config, world, precision)
    metrics = score(
        model,
        layout,
        dataset,
        augment=AUGMENTATIONS.build(config.augment),
        config=config,
        world=world,
        precision=precision,
        folder=folder,
    )
    if world.is_main:
        report(metrics, folder)
    return metrics


def config_of(saved: dict[str, Any], path: str) -> Config:
    """The config in a checkpoint. Raises ConfigError where it names parts that are not known."""
    config = from_plain(saved["config"])
    require_known({kind: getattr(config, kind) for kind in REGISTRIES}, config.plugins, path)
    return config


def restore(
    saved: dict[str, Any], config: Config, world: World, precision: Precision
) -> tuple[nn.Module, Layout]:
    """The model of a checkpoint as it is evaluated, and what its outputs mean."""
    layout = LOSSES.build(config.loss, len(saved["classes"])).layout
    model = build_detector(config.backbone, config.model, layout, 0.01, pretrained=False)
    model.load_state_dict(weights_to_evaluate(saved))
    return prepare(model, config, world, precision), layout


def _first(annotations: Annotations, limit: int | None) -> Annotations:
    return annotations if limit is None else annotations.select(range(min(limit, len(annotations))))
