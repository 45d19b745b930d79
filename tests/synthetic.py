"""Small anchors, targets and predictions for tests of losses and matchers."""

from __future__ import annotations

import torch
from torch import Tensor

from detector import boxes
from detector.layouts import Deltas, Layout
from detector.matchers.base import matches_from_objects
from detector.structures import BACKGROUND, IGNORE, Anchors, Matches, Predictions, Targets


class PlainCoder:
    """The R-CNN code without weights."""

    box_layout = Deltas()

    def encode(self, b: Tensor, anchors: Tensor) -> Tensor:
        return boxes.encode(b, anchors.to(b.dtype))

    def decode(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        return boxes.decode(deltas, anchors.to(deltas.dtype))


def make_anchors(num: int = 60, dtype: torch.dtype = torch.float32) -> Anchors:
    """`num` square anchors on two strides, scattered over 128 px."""
    generator = torch.Generator().manual_seed(1)
    center = torch.rand(num, 2, generator=generator, dtype=torch.float64) * 128
    half = 6 + 20 * torch.rand(num, 1, generator=generator, dtype=torch.float64)
    strides = torch.where(torch.arange(num) < num // 2, 8.0, 16.0)
    table = torch.cat([center - half, center + half], -1)
    return Anchors(table.to(dtype), strides.to(dtype), (num // 2, num - num // 2))


def make_targets(counts: list[int], num_classes: int, seed: int = 0) -> Targets:
    """Images of 128 x 128 with the given numbers of objects."""
    generator = torch.Generator().manual_seed(seed)
    n, m = len(counts), max(counts, default=0)
    center = torch.rand(n, m, 2, generator=generator) * 100 + 14
    half = 5 + 9 * torch.rand(n, m, 2, generator=generator)
    present = torch.arange(m) < torch.tensor(counts)[:, None]
    labels = torch.randint(num_classes, (n, m), generator=generator)
    return Targets(
        boxes=torch.where(present[..., None], torch.cat([center - half, center + half], -1), 0),
        labels=torch.where(present, labels, BACKGROUND),
        crowd=torch.zeros(n, m, dtype=torch.bool),
        image_sizes=torch.full((n, 2), 128),
        image_ids=tuple(range(1, n + 1)),
        keys=torch.arange(n),
    )


def make_matches(anchors: Anchors, targets: Targets, seed: int = 0) -> Matches:
    """Random matches: a tenth of the anchors positive where there are objects, a tenth neutral."""
    generator = torch.Generator().manual_seed(seed)
    n, m = targets.labels.shape
    shape = (n, len(anchors.boxes))
    counts = (targets.labels != BACKGROUND).sum(1, keepdim=True)
    draw = torch.rand(shape, generator=generator)
    index = (torch.rand(shape, generator=generator) * counts).long().clamp(max=max(m - 1, 0))
    objects = torch.where((draw < 0.1) & (counts > 0), index, BACKGROUND)
    objects = torch.where(draw > 0.9, IGNORE, objects)
    return matches_from_objects(objects, anchors, targets)


def make_predictions(
    layout: Layout,
    anchors: Anchors,
    num_images: int,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    scale: float = 2.0,
) -> Predictions:
    """Normal logits of deviation `scale` and small deltas, both leaves with gradients."""
    generator = torch.Generator().manual_seed(seed)
    a = len(anchors.boxes)
    logits = scale * torch.randn(num_images, a, layout.num_outputs, generator=generator)
    deltas = 0.1 * torch.randn(num_images, a, 4, generator=generator)
    return Predictions(
        logits.to(dtype).requires_grad_(), deltas.to(dtype).requires_grad_(), anchors, PlainCoder()
    )
