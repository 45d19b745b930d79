"""From a model and a data set to detections, and from these to the numbers and their files."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from detector.config import EvaluationConfig
from detector.config.model import PostprocessConfig
from detector.data.annotations import Annotations
from detector.data.loader import evaluation_batches
from detector.data.readers.base import Dataset
from detector.data.renamed import Renamed
from detector.data.workers import Batches, explained
from detector.evaluation import coco
from detector.runs.checkpoint import write_atomically
from detector.runs.run_folder import RunFolder
from detector.runtime.distributed import World
from detector.runtime.memory import out_of_memory
from detector.runtime.signals import Interrupted, StopRequest
from detector.structures import Batch, Targets

if TYPE_CHECKING:
    from detector.analysis.calibrators import Calibrator
    from detector.inference.graph import GraphPredictor
    from detector.inference.pictures import Pixels
    from detector.inference.predictor import Predictor

    Scored = Predictor | GraphPredictor

Row = dict[str, Any]
Truth = dict[str, list[Row]]


def evaluation_images(predictor: Scored, dataset: Dataset, world: World) -> Batches:
    """The share of this process of the images that the config's evaluation asks for, in batches."""
    config = predictor.config
    return evaluation_batches(
        dataset,
        predictor.augment,
        images_per_group=config.evaluation.images_per_group,
        rank=world.rank,
        world_size=world.size,
        num_workers=config.loader.workers,
        timeout=config.loader.timeout,
        limit=config.evaluation.limit,
    )


def detect(
    predictor: Scored,
    batches: Iterable[tuple[Batch, Targets]],
    is_ended: Callable[[], bool] = lambda: False,
) -> list[Row]:
    """Detections of all images as rows of COCO's results format, in the order of the batches.

    is_ended: is asked before each batch. Raises Interrupted where it says so.
    """
    rows: list[Row] = []
    settings = settings_of(predictor)
    for batch, _ in batches:
        if is_ended():
            raise Interrupted("stopped while images were scored")
        found = predictor.detect(batch, settings)
        for image_id, detections in zip(batch.image_ids, found, strict=True):
            rows += detections.to_coco(image_id)
    return rows


def settings_of(predictor: Scored) -> PostprocessConfig:
    """The post-processing of an evaluation: as many detections as it is to count."""
    settings, most = predictor.config.model.postprocess, predictor.config.evaluation.max_detections
    if most <= coco.MAX_DETECTIONS:
        return settings
    return replace(settings, detections_per_image=max(most, settings.detections_per_image))


def detect_all(
    predictor: Scored, dataset: Dataset, world: World, stop: StopRequest | None = None
) -> list[Row]:
    """Sorted rows of the images that the config's evaluation asks for, the same on every rank.

    Raises Interrupted on every rank once `stop` was requested on any of them.
    """
    batches = evaluation_images(predictor, dataset, world)
    # On a terminal only, and gone when it is done: the step's own line stands below it.
    is_hidden = None if world.is_main else True  # None: where stderr is no terminal
    bar = tqdm(batches, "scoring", unit="batch", leave=False, ncols=80, disable=is_hidden)
    with explained(), out_of_memory(lambda: too_many(predictor.config.evaluation)):
        if stop is None:
            rows = detect(predictor, bar)
        else:
            rounds = most_batches(predictor.config.evaluation, len(dataset), world.size)
            rows = detect_in_step(predictor, bar, world, stop, rounds)
    return coco.sort_results([row for part in world.gather(rows) for row in part])


def too_many(config: EvaluationConfig) -> str:
    """What is said where the images that are scored at a time find no room."""
    number = config.images_per_group
    less = (
        f"evaluation.images_per_group={number // 2}" if number > 1 else "a smaller augment.max_size"
    )
    return f"out of memory in an evaluation with {number} images at a time; {less}"


def detect_in_step(
    predictor: Scored,
    batches: Iterable[tuple[Batch, Targets]],
    world: World,
    stop: StopRequest,
    rounds: int,
) -> list[Row]:
    """`detect` in as many rounds on every rank, whatever its share: in each, all learn whether any
    is asked to stop."""

    def is_ended() -> bool:
        nonlocal rounds
        rounds -= 1
        return world.any(stop.requested)

    rows = detect(predictor, batches, is_ended)
    while rounds > 0:
        if is_ended():
            raise Interrupted("stopped while images were scored")
    return rows


def most_batches(config: EvaluationConfig, num_images: int, world_size: int) -> int:
    """Of an evaluation, on the rank that has the most."""
    num_images = num_images if config.limit is None else min(config.limit, num_images)
    return math.ceil(math.ceil(num_images / config.images_per_group) / world_size)


def score(
    predictor: Scored,
    dataset: Dataset,
    world: World,
    *,
    folder: RunFolder | None = None,
    calibrator: Calibrator | None = None,
    seed: int = 0,
    stop: StopRequest | None = None,
    facts: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """COCO metrics of a model on a data set, the same on every rank, with the seconds they took.

    Written with the detections to metrics.json and detections.json where a folder is given; of an
    analysis, the pictures too, and it has intervals only then, since they take the most time.
    calibrator: maps the scores first. seed: of the intervals. stop: is obeyed soon, with
    Interrupted on every rank; nothing is written then. facts: are added to the metrics. Raises
    StorageError where a file cannot be written.
    """
    began = time.perf_counter()
    rows = detect_all(predictor, dataset, world, stop)
    config = predictor.config.evaluation

    def on_main() -> dict[str, Any]:
        found = rows
        annotations = first(dataset.annotations, config.limit)
        no_room = "out of memory while detections are counted; a smaller evaluation.limit"
        interrupting = stop.breaks() if stop is not None else nullcontext()
        with interrupting, out_of_memory(lambda: no_room):
            truth = coco.ground_truth(annotations)
            if calibrator is not None:
                from detector.analysis.held_out import rescored  # loaded where it is used

                ids = annotations.category_ids
                found = coco.sort_results(rescored(found, calibrator, ids))
            has_folder = folder is not None
            metrics = measure(truth, found, config, with_intervals=has_folder, seed=seed)
        if folder is not None:
            index = {int(image_id): i for i, image_id in enumerate(dataset.annotations.image_ids)}
            write_pictures(truth, found, metrics, config, folder, lambda i: dataset.image(index[i]))
        metrics |= facts or {}
        metrics["seconds"] = time.perf_counter() - began
        if folder is not None:
            folder.path.mkdir(parents=True, exist_ok=True)
            own = dataset.in_own_ids(found) if isinstance(dataset, Renamed) else found
            write_atomically(folder.detections, json.dumps(own).encode())
            write_metrics(folder.metrics, metrics)
        return metrics

    return world.from_main(on_main)


def measure(
    truth: Truth,
    rows: list[Row],
    config: EvaluationConfig,
    *,
    with_intervals: bool = True,
    seed: int = 0,
) -> dict[str, Any]:
    """COCO's numbers, with `analysis` where the config asks for it."""
    most = config.max_detections
    metrics = coco.evaluate(truth, rows, evaluator=config.evaluator, max_detections=most)
    if with_intervals and (beyond := coco.beyond_the_limit(truth, most, config.evaluator)):
        metrics["warnings"] = [beyond]
    if config.analysis:
        from detector.analysis.analysis import analyse  # loaded where it is used

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
    from detector.inference.pictures import write_figures, write_worst  # loaded where it is used

    write_figures(metrics["analysis"], folder.figures)
    if pixels is not None:
        write_worst(metrics["analysis"], truth, rows, pixels, folder.worst, config.worst)


def write_metrics(path: Path, metrics: dict[str, Any]) -> None:
    """metrics.json. Raises StorageError where it cannot be written."""
    write_atomically(path, f"{json.dumps(metrics, indent=1)}\n".encode())


def first(annotations: Annotations, limit: int | None) -> Annotations:
    """Those of the first images by id."""
    return annotations if limit is None else annotations.select(range(min(limit, len(annotations))))
