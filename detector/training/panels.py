"""What TensorBoard shows at each evaluation beside numbers: a few images and all their scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from detector.data.loader import EvaluationItems, collate
from detector.data.readers.base import Dataset
from detector.drawing.batches import of_objects, striped
from detector.drawing.drawing import Mark, captioned, draw, grid
from detector.drawing.marks import of_detections
from detector.structures import Batch, Predictions, Targets, to_device
from detector.training.setup import Setup, predictor_of
from detector.training.state import State

NUM_IMAGES = 4

THRESHOLD = 0.3
"""Scores from which boxes are drawn, as `tools/predict.py` does by default."""

SIDE = 512
"""Pixels: what is longer is shrunk to it, so that the files of a long run stay small."""


@dataclass(frozen=True)
class Panel:
    """An image of the val split, and what the model says of it.

    name: its number there. picture: the objects on the left, the detections on the right.
    foreground, background: (P,) the best score of each anchor with an object, and without.
    """

    name: str
    picture: Image.Image
    foreground: NDArray[np.float32]
    background: NDArray[np.float32]


def write(writer: Any, setup: Setup, state: State) -> None:
    """Pictures and histograms of the evaluated model, into a `SummaryWriter`.

    Nothing is drawn at random and nothing is gathered: training goes on as it would without.
    """
    panels = list(look(setup, state))
    for panel in panels:
        pixels = np.asarray(panel.picture)
        writer.add_image(f"val/{panel.name}", pixels, state.step, dataformats="HWC")
    for name in ("foreground", "background"):
        scores = np.concatenate([getattr(panel, name) for panel in panels])
        if len(scores):
            writer.add_histogram(f"scores/{name}", scores, state.step)


@torch.no_grad()
def look(setup: Setup, state: State) -> Iterator[Panel]:
    """The panels, one image after another: the memory is that of one."""
    predictor = predictor_of(setup, state)
    keep = replace(setup.config.model.postprocess, score_threshold=THRESHOLD)
    items = EvaluationItems(setup.val_set, setup.augment)
    for number, index in enumerate(fixed_images(setup.val_set), 1):
        batch, targets = collate([items[0, index]])
        # Detections then are in the pixels of the batch, as the objects are.
        batch = replace(batch, scales=torch.ones_like(batch.scales))
        predictions = predictor.predict(batch)
        detections = predictor.decode(predictions, batch, keep)[0]
        foreground, background = anchor_scores(state, predictions, targets)
        sides = (
            of_objects(0, targets, predictor.classes),
            of_detections(detections, predictor.classes),
        )
        yield Panel(f"image_{number}", beside(batch, *sides), foreground, background)


def fixed_images(dataset: Dataset) -> list[int]:
    """The first images with objects, always the same; any where there are none."""
    counts = np.diff(dataset.annotations.starts)
    return np.argsort(counts == 0, kind="stable")[:NUM_IMAGES].tolist()


def anchor_scores(
    state: State, predictions: Predictions, targets: Targets
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The best score over classes of the anchors with an object, and of those without."""
    targets = to_device(targets, predictions.logits.device)
    matches = state.criterion.match(predictions.anchors, targets, predictions)
    best = state.criterion.layout.scores(predictions.logits).amax(-1)
    chosen = best[matches.foreground], best[matches.background]
    foreground, background = (scores.float().cpu().numpy() for scores in chosen)
    return foreground, background


def beside(batch: Batch, truth: list[Mark], found: list[Mark]) -> Image.Image:
    """The first image of a batch twice: with its objects, and with what was found."""
    height, width = batch.sizes[0].tolist()
    pixels = striped(batch)[0, :height, :width]
    factor = SIDE / max(height, width)
    if factor < 1:
        size = max(1, round(width * factor)), max(1, round(height * factor))
        pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
        truth, found = ([_shrunk(mark, factor) for mark in marks] for marks in (truth, found))
    enlarge = max(1, SIDE // 2 // max(height, width))
    tiles = [
        captioned(draw(pixels, truth, enlarge), "truth"),
        captioned(draw(pixels, found, enlarge), f"found, score above {THRESHOLD}"),
    ]
    return grid(tiles, columns=2)


def _shrunk(mark: Mark, factor: float) -> Mark:
    x1, y1, x2, y2 = (value * factor for value in mark.box)
    return replace(mark, box=(x1, y1, x2, y2))
