"""From a checkpoint and image files to boxes: drawn on copies, and as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from detector import distributed
from detector.data.images import SUFFIXES, list_images, read_pixels, require_megapixels
from detector.data.loader import collate
from detector.data.transforms import Sample
from detector.distributed import World
from detector.engine import checkpoint
from detector.engine.calibrated import Calibration, calibration_of
from detector.engine.drawing import draw
from detector.engine.evaluate import config_of, restore
from detector.engine.marks import of_detections
from detector.engine.precision import choose
from detector.engine.run_folder import RunFolder
from detector.errors import DataError
from detector.models.postprocess import postprocess
from detector.registry import AUGMENTATIONS
from detector.schema import require
from detector.structures import Detections, to_device
from detector.tool_config import PredictConfig

PREDICTIONS = "predictions.json"

Detect = Callable[[NDArray[np.uint8]], Detections]
"""(H, W, 3) pixels -> what is found, in those pixels."""


@dataclass(frozen=True)
class Classes:
    """The names and category ids of the K classes."""

    names: tuple[str, ...]
    ids: tuple[int, ...]


def predict(config: PredictConfig) -> Path:
    """Detections of an image or of all images in a folder; the path of the JSON file.

    Needs nothing but the checkpoint. Writes a copy of each image with the boxes drawn, under its
    own name, and `predictions.json`. Raises ConfigError for what cannot work, before anything is
    written; DataError at the end, when all others are done, where files could not be read.
    """
    require_megapixels(config.max_megapixels)
    saved = checkpoint.load(config.checkpoint)
    source = Path(config.source)
    output = Path(config.output_dir or Path(config.checkpoint).parent / "predictions")
    names = find(source, output)[: config.limit]
    require_output(output, source, config.overwrite)
    world = distributed.start(config.device)
    try:
        detect = build_detect(saved, world, config)
        return _predict(names, source, output, detect, classes_of(saved), config.max_megapixels)
    finally:
        distributed.stop()


def _predict(
    names: list[str],
    source: Path,
    output: Path,
    detect: Detect,
    classes: Classes,
    max_megapixels: float,
) -> Path:
    folder = source if source.is_dir() else source.parent
    rows: list[dict[str, Any]] = []
    for name in tqdm(names, unit="image", disable=None):  # a bar on a terminal only
        try:
            pixels = read_pixels(folder / name, max_megapixels, key="max_megapixels")
        except DataError as error:
            tqdm.write(f"left out: {error}", file=sys.stderr)
            continue
        found = detect(pixels)
        rows.append(row(name, found, classes))
        save_drawn(output / copy_name(name), pixels, found, classes)
    output.mkdir(parents=True, exist_ok=True)
    path = output / PREDICTIONS
    path.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
    print(f"{len(rows)} images, {sum(len(r['boxes']) for r in rows)} objects; written: {path}")
    left_out = len(names) - len(rows)
    if left_out:
        raise DataError(f"source={source}: {left_out} of {len(names)} files cannot be read (above)")
    return path


def classes_of(saved: dict[str, Any]) -> Classes:
    """Those of a checkpoint."""
    return Classes(tuple(saved["classes"]), tuple(saved["category_ids"]))


def find(source: Path, output: Path) -> list[str]:
    """Names of the images, relative to their folder; those below the output are no source.

    Raises ConfigError where there is no such file or folder, DataError where it holds no image.
    """
    if source.is_file():
        return [source.name]
    require(source.is_dir(), f"source: {source} is not a file or a folder")
    names = list_images(source)
    if source.resolve() in output.resolve().parents:  # what an earlier call has drawn
        drawn = output.resolve()
        names = [name for name in names if not (source / name).resolve().is_relative_to(drawn)]
    if not names:
        raise DataError(f"source={source}: holds no images ({', '.join(SUFFIXES)})")
    return names


def require_output(output: Path, source: Path, overwrite: bool) -> None:
    """Raises ConfigError where the images themselves, or other files, would be overwritten."""
    RunFolder(output).require_writable()
    folder = source if source.is_dir() else source.parent
    is_other = output.resolve() != folder.resolve()
    require(is_other, f"output_dir: {output} is the folder of the source, which is kept as it is")
    is_free = overwrite or not (output.is_dir() and any(output.iterdir()))
    require(
        is_free,
        f"output_dir: {output} is not a new or empty folder; overwrite=true writes into it",
    )


def build_detect(saved: dict[str, Any], world: World, config: PredictConfig) -> Detect:
    """What finds the objects above the threshold, with the model and the config of a checkpoint.

    One image at a time, so that nothing it finds depends on the others.
    """
    trained = config_of(saved, config.checkpoint)
    if config.precision is not None:
        trained = replace(trained, precision=config.precision)
    precision = choose(trained.precision, world.device)
    model, layout = restore(saved, trained, world, precision)
    model.eval()
    augment = AUGMENTATIONS.build(trained.augment)
    needs_stored = config.calibrated or config.threshold == "auto"
    stored = calibration_of(saved, config.checkpoint) if needs_stored else None
    settings = replace(trained.model.postprocess, score_threshold=first_threshold(config))
    pick = picker(config, stored)

    @torch.no_grad()
    def detect(pixels: NDArray[np.uint8]) -> Detections:
        batch, _ = collate([(augment.evaluate(without_objects(pixels)), 0, 0)])
        batch = to_device(batch, world.device)
        with precision.autocast(world.device):
            predictions = model(batch)
        return pick(postprocess(predictions, layout, batch, settings)[0])

    return detect


def first_threshold(config: PredictConfig) -> float:
    """What is left out before NMS already; 0 where scores still change or classes differ."""
    if config.threshold == "auto" or config.calibrated:
        return 0.0
    return config.threshold


def picker(config: PredictConfig, stored: Calibration | None) -> Callable[[Detections], Detections]:
    """What calibrates detections and leaves out those that are not to be shown.

    Raises ConfigError where the checkpoint has no calibrator or not these operating points.
    """
    if stored is None:
        return lambda found: found
    calibrator = stored.calibrator if config.calibrated else None
    if config.calibrated:
        require(calibrator is not None, "calibrated: true given, but method=none was stored")
    points = (stored.calibrated if config.calibrated else stored.raw)[config.operating_point]

    def pick(found: Detections) -> Detections:
        scores, labels = found.scores.cpu().double().numpy(), found.labels.cpu().numpy()
        mapped = scores if calibrator is None else calibrator(scores, labels)
        if config.threshold == "auto":
            kept = points.keep(mapped, labels)
        else:
            kept = mapped > config.threshold
        order = np.argsort(-mapped, kind="stable")  # each class has its own map
        order = torch.from_numpy(order[kept[order]]).to(found.labels.device)
        new = torch.from_numpy(mapped).to(found.scores)
        return Detections(found.boxes[order], new[order], found.labels[order])

    return pick


def without_objects(pixels: NDArray[np.uint8]) -> Sample:
    """A sample of (H, W, 3) pixels of which nothing is known."""
    return Sample(
        image=pixels,
        boxes=np.zeros((0, 4), np.float32),
        labels=np.zeros(0, np.int64),
        crowd=np.zeros(0, np.bool_),
        scale=np.ones(2, np.float32),
    )


def row(name: str, found: Detections, classes: Classes) -> dict[str, Any]:
    """An image's entry in the JSON file; boxes are xyxy in pixels of the file."""
    labels = found.labels.tolist()
    return {
        "file": name,
        "boxes": found.boxes.tolist(),
        "scores": found.scores.tolist(),
        "labels": [classes.names[k] for k in labels],
        "category_ids": [classes.ids[k] for k in labels],
    }


def copy_name(name: str) -> str:
    """The name of an image's drawn copy: its own, so that no two images share one."""
    return name if Path(name).suffix.lower() in SUFFIXES else f"{name}.png"


def save_drawn(path: Path, pixels: NDArray[np.uint8], found: Detections, classes: Classes) -> None:
    """Writes the copy in the format of its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(pixels, of_detections(found, classes.names)).save(path, quality=95)
