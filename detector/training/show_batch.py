"""Batches as the model gets them, drawn: what is wrong with data can mostly be seen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from detector.config import Config
from detector.config.registry import AUGMENTATIONS, DATASETS, MATCHERS, SAMPLERS
from detector.config.schema import require
from detector.data.annotations import Annotations
from detector.data.loader import train_batches
from detector.data.readers.base import Dataset
from detector.drawing.batches import of_objects, striped
from detector.drawing.drawing import captioned, draw, grid
from detector.matchers.base import Matcher
from detector.models.anchors import AnchorGenerator
from detector.runs.run_folder import RunFolder
from detector.structures import Batch, Matches, Targets
from detector.training.setup import count_steps, split_batch

SMALL = 640
"""Pixels: images with a longer side below it are enlarged by a whole factor."""


def show_batches(train: Config, *, batches: int = 1, with_matches: bool = False) -> list[Path]:
    """Draws the first batches that a training of this config gets; the paths of the PNG files.

    The images are the pixels that go into the model, the stripes its padding, the dashed boxes
    crowds; `with_matches` the thin boxes are the positive anchors, and names are followed by how
    many an object has. Raises ConfigError for a matcher that needs a trained model.
    """
    folder = RunFolder(Path(train.output_dir or "runs/batches"))
    folder.require_writable()
    matcher = build_matcher(train) if with_matches else None
    anchors = AnchorGenerator(train.model.anchors)
    dataset = DATASETS.build(train.data).read("train")
    folder.path.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, (batch, targets) in enumerate(first_batches(train, dataset, batches), 1):
        height, width = batch.images.shape[-2:]
        found = matcher and matcher(anchors.for_image(height, width), targets, None)
        path = folder.path / f"batch_{number:03d}.png"
        picture(batch, targets, dataset.annotations, found).save(path)
        print(f"{path}: {summary(batch, targets, found)}")
        paths.append(path)
    return paths


def build_matcher(config: Config) -> Matcher:
    """The matcher of a config. Raises ConfigError where it asks what the model says."""
    matcher: Matcher = MATCHERS.build(config.matcher)
    require(
        not matcher.uses_predictions,
        f"matches: matcher={config.matcher.name} decides by what a model says, so there is nothing "
        "to show before training",
    )
    return matcher


def first_batches(config: Config, dataset: Dataset, count: int) -> Iterator[tuple[Batch, Targets]]:
    """So many micro-batches from the first step on, as one process trains on them."""
    micro_batch, accumulation = split_batch(config, 1)
    batches = train_batches(
        dataset,
        AUGMENTATIONS.build(config.augment),
        seed=config.seed,
        batch_size=config.batch_size,
        micro_batch=micro_batch,
        stop_step=-(-count // accumulation),
        num_steps=count_steps(config, len(dataset)),
        sampler=SAMPLERS.build(config.sampler),
    )
    for _, batch in zip(range(count), batches, strict=False):
        yield batch


def picture(
    batch: Batch, targets: Targets, annotations: Annotations, found: Matches | None = None
) -> Image.Image:
    """A batch as a grid, each image under its file's name and its size."""
    pixels = striped(batch)
    factor = max(1, SMALL // max(pixels.shape[1:3]))
    tiles = []
    for i, image_id in enumerate(batch.image_ids):
        index = int(np.searchsorted(annotations.image_ids, image_id))
        height, width = batch.sizes[i].tolist()
        drawn = draw(pixels[i], of_objects(i, targets, annotations.classes, found), factor)
        caption = f"{annotations.file_name(index)} (id {image_id}), {width} x {height}"
        tiles.append(captioned(drawn, caption))
    return grid(tiles)


def summary(batch: Batch, targets: Targets, found: Matches | None = None) -> str:
    """A batch in a line."""
    is_object = (targets.labels >= 0) & ~targets.crowd
    height, width = batch.images.shape[-2:]
    padding = 1 - batch.sizes.prod(1).sum().item() / (len(batch.images) * height * width)
    text = (
        f"{len(batch.images)} images of {width} x {height}, {padding:.0%} padding, "
        f"{int(is_object.sum())} objects"
    )
    if found is None:
        return text
    counts = [int((found.objects[i] == m).sum()) for i, m in is_object.nonzero().tolist()]
    without = sum(count == 0 for count in counts)
    return f"{text}, {sum(counts)} positive anchors, {without} objects without one"
