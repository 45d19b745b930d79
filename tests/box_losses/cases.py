"""Predictions and objects for tests of box losses."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from detector.config.registry import BOX_LOSSES
from detector.config.schema import Plug
from detector.structures import Matches, Predictions
from tests.by_hand import gradient, match, predict
from tests.synthetic import PlainCoder, make_anchors, make_matches, make_targets

Corners = tuple[float, float, float, float]


def one_positive(
    anchor: Corners, box: Corners, deltas: list[float] | None = None
) -> tuple[Predictions, Matches]:
    """One anchor and its object in float64; the predicted box is the anchor, but for `deltas`."""
    predictions = predict(
        torch.zeros(1, 1, 1, dtype=torch.float64),
        anchors=[anchor],
        deltas=torch.tensor([[deltas or [0.0] * 4]], dtype=torch.float64),
    )
    return predictions, match(predictions, [[0]], boxes={(0, 0): box})


def scattered() -> tuple[Predictions, Matches]:
    """60 anchors in three images with random deltas and random objects, in float64."""
    anchors, targets = make_anchors(dtype=torch.float64), make_targets([3, 0, 5], 2)
    targets = replace(targets, boxes=targets.boxes.double())
    generator = torch.Generator().manual_seed(5)
    deltas = 0.3 * torch.randn(3, 60, 4, generator=generator, dtype=torch.float64)
    logits = torch.zeros(3, 60, 2, dtype=torch.float64)
    predictions = Predictions(logits, deltas.requires_grad_(), anchors, PlainCoder())
    return predictions, make_matches(anchors, targets)


def scaled(predictions: Predictions, matches: Matches, factor: float) -> tuple:
    """The same picture at another size."""
    anchors = replace(predictions.anchors, boxes=predictions.anchors.boxes * factor)
    return (
        replace(predictions, anchors=anchors),
        replace(matches, boxes=matches.boxes * factor, anchors=anchors),
    )


def swapped(predictions: Predictions, matches: Matches) -> tuple[Predictions, Matches]:
    """What was predicted becomes the object, and the other way round."""
    deltas = PlainCoder().encode(matches.boxes, predictions.anchors.boxes)
    return (
        replace(predictions, deltas=deltas),
        replace(matches, boxes=predictions.boxes.detach()),
    )


def total(name: str, options: dict, predictions: Predictions, matches: Matches) -> Tensor:
    """(N, A) sum of the terms."""
    terms = BOX_LOSSES.build(Plug(name, options))(predictions, matches)
    return sum(terms.values())  # type: ignore[return-value]


def slopes(name: str, options: dict, anchor: Corners, box: Corners) -> Tensor:
    """(4,) derivatives by the deltas of one predicted box."""
    predictions, matches = one_positive(anchor, box)
    return gradient(total(name, options, predictions, matches).sum(), predictions.deltas)[0, 0]


def value(name: str, options: dict, anchor: Corners, box: Corners) -> float:
    """The loss of one predicted box."""
    return total(name, options, *one_positive(anchor, box)).item()
