"""From a model and a data set to detections, and from these to the numbers and their files."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from detector.config import Config, EvaluationConfig
from detector.data.annotations import Annotations
from detector.data.loader import evaluation_batches
from detector.data.readers.base import Dataset
from detector.data.transforms import Augmentation
from detector.data.workers import Batches, explained
from detector.distributed import World
from detector.engine.figures import Pixels, write_figures, write_worst
from detector.engine.precision import Precision
from detector.engine.run_folder import RunFolder
from detector.evaluation import coco
from detector.evaluation.analysis import analyse
from detector.evaluation.calibrators import Calibrator
from detector.evaluation.held_out import rescored
from detector.layouts import Layout
from detector.model_config import PostprocessConfig
from detector.models.postprocess import postprocess
from detector.structures import Batch, Targets, to_device

Row = dict[str, Any]
Truth = dict[str, list[Row]]


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
) -> list[Row]:
    """Detections of all images as rows of COCO's results format, in the order of the batches."""
    rows: list[Row] = []
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


@dataclass(frozen=True)
class Subject:
    """A model to be evaluated, on what images, and how."""

    model: nn.Module
    layout: Layout
    dataset: Dataset
    augment: Augmentation
    config: Config
    world: World
    precision: Precision

    def batches(self, rank: int, world_size: int) -> Batches:
        """The share of a rank of the images that the config's evaluation asks for."""
        return evaluation_batches(
            self.dataset,
            self.augment,
            images_per_group=self.config.evaluation.images_per_group,
            rank=rank,
            world_size=world_size,
            num_workers=self.config.loader.workers,
            timeout=self.config.loader.timeout,
            limit=self.config.evaluation.limit,
        )


def detect_all(subject: Subject) -> list[Row]:
    """Sorted rows of the images that the config's evaluation asks for, the same on every rank."""
    world = subject.world
    with explained():
        rows = detect(
            subject.model,
            subject.layout,
            subject.batches(world.rank, world.size),
            category_ids=subject.dataset.annotations.category_ids,
            config=subject.config.model.postprocess,
            device=world.device,
            precision=subject.precision,
        )
    return coco.sort_results([row for part in world.gather(rows) for row in part])


def score(
    subject: Subject,
    *,
    folder: RunFolder | None = None,
    calibrator: Calibrator | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """COCO metrics of a model on a data set, the same on every rank, with the seconds they took.

    Written with the detections to metrics.json and detections.json where a folder is given; of an
    analysis, the pictures too, and it has intervals only then, since they take the most time.
    calibrator: maps the scores first. seed: of the intervals.
    """
    began = time.perf_counter()
    rows = detect_all(subject)
    config, world, dataset = subject.config, subject.world, subject.dataset
    metrics: dict[str, Any] = {}
    if world.is_main:
        annotations = first(dataset.annotations, config.evaluation.limit)
        truth = coco.ground_truth(annotations)
        if calibrator is not None:
            rows = coco.sort_results(rescored(rows, calibrator, annotations.category_ids))
        has_end = folder is not None
        metrics = measure(truth, rows, config.evaluation, with_intervals=has_end, seed=seed)
        if folder is not None:
            index = {int(image_id): i for i, image_id in enumerate(dataset.annotations.image_ids)}
            write_pictures(
                truth, rows, metrics, config.evaluation, folder, lambda i: dataset.image(index[i])
            )
        metrics["seconds"] = time.perf_counter() - began
        if folder is not None:
            folder.path.mkdir(parents=True, exist_ok=True)
            folder.detections.write_text(json.dumps(rows))
            write_metrics(folder.metrics, metrics)
    return world.broadcast(metrics)


def measure(
    truth: Truth,
    rows: list[Row],
    config: EvaluationConfig,
    *,
    with_intervals: bool = True,
    seed: int = 0,
) -> dict[str, Any]:
    """COCO's numbers, with `analysis` where the config asks for it."""
    metrics = coco.evaluate(truth, rows, evaluator=config.evaluator)
    if config.analysis:
        draws = config.draws if with_intervals else 0
        report = analyse(truth, rows, draws=draws, seed=seed, top=max(config.worst, 5))
        metrics["analysis"] = report.to_dict()
    return metrics


def write_pictures(
    truth: Truth,
    rows: list[Row],
    metrics: dict[str, Any],
    config: EvaluationConfig,
    folder: RunFolder,
    pixels: Pixels | None,
) -> None:
    """Those of the analysis, where there is one and pictures are wanted.

    pixels: image id to (H, W, 3) pixels; None: the images are not there to be drawn on.
    """
    if "analysis" not in metrics or not config.pictures:
        return
    write_figures(metrics["analysis"], folder.figures)
    if pixels is not None:
        write_worst(metrics["analysis"], truth, rows, pixels, folder.worst, config.worst)


def write_metrics(path: Path, metrics: dict[str, Any]) -> None:
    """metrics.json."""
    path.write_text(json.dumps(metrics, indent=1) + "\n")


def first(annotations: Annotations, limit: int | None) -> Annotations:
    """Those of the first images by id."""
    return annotations if limit is None else annotations.select(range(min(limit, len(annotations))))
