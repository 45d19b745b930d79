"""Predictions and matches of which every number is stated, for golden values of losses."""

from __future__ import annotations

import torch
from torch import Tensor

from detector.structures import BACKGROUND, Anchors, Matches, Predictions, Targets
from tests.synthetic import PlainCoder

ANCHOR = (0.0, 0.0, 32.0, 32.0)


def predict(
    logits: Tensor,
    *,
    anchors: list[tuple[float, ...]] | None = None,
    deltas: Tensor | None = None,
    stride: float = 16.0,
) -> Predictions:
    """Predictions of logits (N, A, D) in their dtype; all anchors are `ANCHOR` unless given."""
    num_images, num_anchors, _ = logits.shape
    exact = torch.float64 if logits.dtype == torch.float64 else torch.float32
    table = torch.tensor(anchors or [ANCHOR] * num_anchors, dtype=exact)
    strides = torch.full((num_anchors,), stride, dtype=exact)
    if deltas is None:
        deltas = torch.zeros(num_images, num_anchors, 4, dtype=logits.dtype)
    return Predictions(
        logits.detach().requires_grad_(),
        deltas.detach().requires_grad_(),
        Anchors(table, strides, (num_anchors,)),
        PlainCoder(),
    )


def match(
    predictions: Predictions,
    labels: list[list[int]],
    *,
    boxes: dict[tuple[int, int], tuple[float, ...]] | None = None,
    image_size: tuple[int, int] = (128, 256),
) -> Matches:
    """Matches with the given (N, A) labels; the object of (image, anchor) is the anchor itself
    unless `boxes` says where it is. image_size: height, width."""
    table = torch.tensor(labels)
    n = len(table)
    matched = predictions.anchors.boxes.expand(n, -1, -1).clone()
    for place, box in (boxes or {}).items():
        matched[place] = torch.tensor(box, dtype=matched.dtype)
    objects = torch.where(table >= 0, torch.arange(table.shape[1]), BACKGROUND)
    targets = Targets(
        boxes=matched,
        labels=table.clamp(min=BACKGROUND),
        crowd=torch.zeros_like(table, dtype=torch.bool),
        image_sizes=torch.tensor([image_size] * n),
        image_ids=tuple(range(n)),
        keys=torch.arange(n),
    )
    return Matches(table, matched, objects, predictions.anchors, targets)


def random_logits(*shape: int, scale: float = 3.0, seed: int = 0) -> Tensor:
    """float64 normal logits."""
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


def gradient(total: Tensor, of: Tensor) -> Tensor:
    """d total / d of."""
    (result,) = torch.autograd.grad(total, of)
    return result
