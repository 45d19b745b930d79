"""From a checkpoint and image files to boxes: drawn on copies, and as JSON."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from detector.config import Precision as PrecisionName
from detector.config.schema import require
from detector.data.handling import Decoding, require_megapixels
from detector.data.images import MAX_NAMED
from detector.errors import DataError
from detector.inference.calling import ImageModel, Threshold
from detector.inference.detections import Detections
from detector.inference.graph import load_graph
from detector.inference.load import is_graph
from detector.inference.predictor import config_of, restore
from detector.inference.preprocess import decoding_of
from detector.inference.sources import Item, Sources, find
from detector.inference.written import Format, Written, storage
from detector.runs import checkpoint
from detector.runs.run_folder import CHECKPOINTS, RunFolder
from detector.runtime import distributed


def predict(
    path: str | Path,
    source: Sources,
    *,
    output_dir: str | Path | None = None,
    overwrite: bool = False,
    formats: Sequence[Format] = ("json",),
    draw: bool = True,
    crops: bool = False,
    limit: int | None = None,
    threshold: Threshold = 0.3,
    operating_point: str = "lrp",
    calibrated: bool = False,
    max_megapixels: float = 100.0,
    device: str = "auto",
    precision: PrecisionName | None = None,
) -> Path:
    """Detections of images and videos; the path of the JSON file.

    Needs nothing but the checkpoint, or the exported graph, at `path`. source: a file, a folder, a
    pattern such as "photos/*.jpg", a .txt with a path a line, or several of these. Writes a copy of
    each image with the boxes drawn, under its own name (`draw`), what is inside of each box
    (`crops`), `predictions.json` and what else `formats` says into `output_dir`; see `written`.
    Default: `predictions/NAME` of the source in the run's folder, or beside the checkpoint. limit:
    the first images only. The other options are those of `Predictor` and `load`. Images are
    computed one at a time, so that nothing that is found depends on the others.

    Raises ConfigError for what cannot work, before anything is written; DataError at the end, when
    all others are done, where files could not be read.
    """
    require_megapixels(max_megapixels)
    saved = None if is_graph(path) else checkpoint.load(path)
    output = Path(output_dir or default_output(Path(path), source))
    items = find(source, output)[:limit]
    require_output(output, items, overwrite)
    written = Written(output, formats, draw, crops)
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
        return _predict(items, written, call, max_megapixels, how)
    finally:
        distributed.stop()


def _predict(
    items: Sequence[Item],
    written: Written,
    detect: Callable[[NDArray[np.uint8]], Detections],
    max_megapixels: float,
    how: Decoding,
) -> Path:
    left_out: list[str] = []
    for item in tqdm(items, unit="image", ncols=80, disable=None):  # a bar on a terminal only
        try:
            pixels = item.read(max_megapixels, how)
        except DataError as error:
            tqdm.write(f"left out: {error}", file=sys.stderr)
            left_out.append(item.name)
            continue
        detections = detect(pixels)
        with storage(written.output):
            written.add(item.name, pixels, detections)
    with storage(written.output):
        paths = written.finish()
    num_objects = sum(map(len, written.found))
    listed = ", ".join(map(str, paths))
    print(f"{len(written.names)} images, {num_objects} objects; written: {listed}")
    if left_out:
        some = ", ".join(left_out[:MAX_NAMED]) + (", ..." if len(left_out) > MAX_NAMED else "")
        raise DataError(f"source: {len(left_out)} of {len(items)} images cannot be read: {some}")
    return paths[0]


def default_output(path: Path, source: Sources) -> Path:
    """`predictions/NAME` in the run's folder, or beside a checkpoint that lies elsewhere; NAME is
    that of the source, so that those of several folders lie beside each other."""
    parent = path.parent.parent if path.parent.name == CHECKPOINTS else path.parent
    is_one = isinstance(source, str | os.PathLike)
    words = re.findall(r"[\w-]+", Path(source).resolve().stem) if is_one else []
    return parent / "predictions" / ("_".join(words) or "images")


def require_output(output: Path, items: Sequence[Item], overwrite: bool) -> None:
    """Raises ConfigError where the images themselves, or other files, would be overwritten."""
    RunFolder(output).require_writable()
    written = output.resolve()
    for folder in {item.path.parent.resolve() for item in items}:
        require(
            written != folder,
            f"output_dir: {output} is the folder of the source, which is kept as it is",
        )
    is_free = overwrite or not (output.is_dir() and any(output.iterdir()))
    require(
        is_free,
        f"output_dir: {output} is not a new or empty folder; overwrite=true writes into it",
    )
