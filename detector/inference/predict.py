"""From a checkpoint and image files to boxes: drawn on copies, and as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from detector.config import Precision as PrecisionName
from detector.config.schema import require
from detector.data.handling import require_megapixels
from detector.data.images import SUFFIXES, list_images
from detector.errors import DataError
from detector.inference.calling import ImageModel, Threshold
from detector.inference.detections import Detections
from detector.inference.graph import load_graph
from detector.inference.load import is_graph
from detector.inference.predictor import config_of, restore
from detector.inference.preprocess import Decoding, decode, decoding_of
from detector.runs import checkpoint
from detector.runs.run_folder import RunFolder
from detector.runtime import distributed

PREDICTIONS = "predictions.json"


def predict(
    path: str | Path,
    source: str | Path,
    *,
    output_dir: str | Path | None = None,
    overwrite: bool = False,
    limit: int | None = None,
    threshold: Threshold = 0.3,
    operating_point: str = "lrp",
    calibrated: bool = False,
    max_megapixels: float = 100.0,
    device: str = "auto",
    precision: PrecisionName | None = None,
) -> Path:
    """Detections of an image or of all images in a folder; the path of the JSON file.

    Needs nothing but the checkpoint, or the exported graph, at `path`. Writes a copy of each image
    with the boxes drawn, under its own name, and `predictions.json` into `output_dir` (default:
    `predictions` beside the checkpoint). limit: the first images only. The other options are those
    of `Predictor` and `load`. Images are computed one at a time, so that nothing that is found
    depends on the others.

    Raises ConfigError for what cannot work, before anything is written; DataError at the end, when
    all others are done, where files could not be read.
    """
    require_megapixels(max_megapixels)
    saved = None if is_graph(path) else checkpoint.load(path)
    source, output = Path(source), Path(output_dir or Path(path).parent / "predictions")
    names = find(source, output)[:limit]
    require_output(output, source, overwrite)
    world = distributed.start(device)
    try:
        if saved is None:
            require(precision is None, f"precision: {precision} given, a graph has its own")
            model: ImageModel = load_graph(path)
        else:
            config = config_of(saved, str(path))
            config = replace(config, precision=precision or config.precision)
            model = restore(saved, config, str(path), world.device)
        call = partial(
            model, threshold=threshold, operating_point=operating_point, calibrated=calibrated
        )
        how = decoding_of(model.config.data.options)
        return _predict(names, source, output, call, max_megapixels, how)
    finally:
        distributed.stop()


def _predict(
    names: list[str],
    source: Path,
    output: Path,
    detect: Callable[[NDArray[np.uint8]], Detections],
    max_megapixels: float,
    how: Decoding,
) -> Path:
    folder = source if source.is_dir() else source.parent
    rows: list[dict[str, Any]] = []
    for name in tqdm(names, unit="image", disable=None):  # a bar on a terminal only
        try:
            pixels = decode(folder / name, max_megapixels=max_megapixels, how=how)
        except DataError as error:
            tqdm.write(f"left out: {error}", file=sys.stderr)
            continue
        detections = detect(pixels)
        rows.append({"file": name, **detections.to_dict()})
        save_drawn(output / copy_name(name), pixels, detections)
    output.mkdir(parents=True, exist_ok=True)
    path = output / PREDICTIONS
    path.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
    print(f"{len(rows)} images, {sum(len(r['boxes']) for r in rows)} objects; written: {path}")
    left_out = len(names) - len(rows)
    if left_out:
        raise DataError(f"source={source}: {left_out} of {len(names)} files cannot be read (above)")
    return path


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


def copy_name(name: str) -> str:
    """The name of an image's drawn copy: its own, so that no two images share one."""
    return name if Path(name).suffix.lower() in SUFFIXES else f"{name}.png"


def save_drawn(path: Path, pixels: NDArray[np.uint8], detections: Detections) -> None:
    """Writes the copy in the format of its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    detections.draw(pixels).save(path, quality=95)
