"""A pyramid of anchors, objects and predictions for tests of matchers."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from detector.config.model import AnchorConfig
from detector.models.anchors import AnchorGenerator
from detector.structures import Anchors, Predictions, Targets
from tests.synthetic import PlainCoder

Box = tuple[float, float, float, float]

NUM_CLASSES = 32
"""Of the scores of `random_predictions`: objects of an image are labelled by their place."""


def pyramid(size: int = 128, config: AnchorConfig | None = None) -> Anchors:
    """The anchors of square images, float64 numbers of float32 precision."""
    anchors = AnchorGenerator(config or AnchorConfig()).for_image(size, size)
    return replace(anchors, boxes=anchors.boxes.double(), strides=anchors.strides.double())


def objects(
    boxes: list[Box],
    *,
    labels: list[int] | None = None,
    crowd: list[bool] | None = None,
    image_size: tuple[int, int] = (128, 128),
) -> Targets:
    """One image."""
    return Targets(
        boxes=torch.tensor(boxes, dtype=torch.float64).reshape(1, -1, 4),
        labels=torch.tensor([labels or list(range(len(boxes)))], dtype=torch.int64),
        crowd=torch.tensor([crowd or [False] * len(boxes)], dtype=torch.bool),
        image_sizes=torch.tensor([image_size]),
        image_ids=(1,),
        keys=torch.tensor([0]),
    )


def random_objects(counts: list[int], seed: int, *, size: int = 128) -> Targets:
    """Images of objects from 4 px to the whole image, the last of each a crowd."""
    generator = torch.Generator().manual_seed(seed)
    n, m = len(counts), max(counts)
    side = 4 * (size / 4) ** torch.rand(n, m, 2, generator=generator, dtype=torch.float64)
    low = (size - side) * torch.rand(n, m, 2, generator=generator, dtype=torch.float64)
    present = torch.arange(m) < torch.tensor(counts)[:, None]
    last = torch.arange(m) == torch.tensor(counts)[:, None] - 1
    return Targets(
        boxes=torch.where(present[..., None], torch.cat([low, low + side], -1), 0),
        labels=torch.where(present, torch.arange(m).expand(n, m), -1),
        crowd=last,
        image_sizes=torch.full((n, 2), size),
        image_ids=tuple(range(n)),
        keys=torch.arange(n),
    )


def predictions_of(anchors: Anchors, deltas: Tensor, scores: Tensor | None = None) -> Predictions:
    """Predictions without anything to say about classes but the scores (N, A, K), if given."""
    logits = deltas.new_zeros(*deltas.shape[:2], 1)
    return Predictions(logits, deltas.requires_grad_(), anchors, PlainCoder(), scores=scores)


def random_predictions(anchors: Anchors, num_images: int, seed: int = 0) -> Predictions:
    generator = torch.Generator().manual_seed(seed)
    shape = (num_images, len(anchors.boxes), 4)
    deltas = 0.4 * torch.randn(shape, generator=generator, dtype=torch.float64)
    logits = torch.randn((*shape[:2], NUM_CLASSES), generator=generator, dtype=torch.float64)
    return predictions_of(anchors, deltas, logits.sigmoid())
