"""A quality between 0 and 1 as the target of a positive, under any loss that asks yes or no."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from detector.boxes import iou
from detector.config.schema import require
from detector.losses.base import ClassLoss
from detector.matchers.base import Matcher
from detector.structures import BACKGROUND, Matches, Predictions

QualityTargets = Literal["iou", "matcher"]


def toward_quality(
    loss: ClassLoss, predictions: Predictions, matches: Matches, source: QualityTargets
) -> dict[str, Tensor]:
    """The terms of a class loss whose positives are to say their quality q instead of 1.

    At a positive: q times its loss as an object, plus (1 - q) times its loss as background, which
    is what the loss is on average where the object is there with probability q. For cross entropy
    that is the cross entropy against q. source: q is the IoU of the predicted box, or what the
    matcher says (`Matches.quality`); it has no gradient.
    """
    if source == "matcher":
        assert matches.quality is not None, "the matcher does not say a quality"
        quality = matches.quality
    else:
        quality = iou(predictions.boxes.detach(), matches.boxes)
    as_objects = loss(predictions, matches)
    as_background = loss(predictions, _all_background(matches))
    return {
        name: _between(term, as_background[name], quality, matches.foreground)
        for name, term in as_objects.items()
    }


def _between(term: Tensor, without: Tensor, quality: Tensor, foreground: Tensor) -> Tensor:
    if term.dim() == 3:
        quality, foreground = quality[..., None], foreground[..., None]
    return torch.where(foreground, without + quality.to(term.dtype) * (term - without), term)


def _all_background(matches: Matches) -> Matches:
    """Matches in which the positives are background."""
    has_object = matches.foreground
    return replace(
        matches,
        labels=torch.where(has_object, BACKGROUND, matches.labels),
        boxes=matches.anchors.boxes.to(matches.boxes.dtype).expand_as(matches.boxes),
        objects=torch.full_like(matches.objects, BACKGROUND),
        quality=None,
    )


def require_quality(
    source: QualityTargets | None, loss: ClassLoss, name: str, matcher: Matcher, matcher_name: str
) -> None:
    """Raises ConfigError where a loss cannot have quality targets, or its matcher says none."""
    if source is None:
        return
    reason = None
    if loss.asks_for_quality:
        reason = "asks for the quality by itself, of the matcher where that says one"
    elif not loss.separable or loss.selects:
        reason = "is no sum over anchors that do not know of one another"
    require(
        reason is None,
        f"quality_targets: {source} given, but loss={name} {reason}; null is allowed",
    )
    require(
        source != "matcher" or matcher.gives_quality,
        f"quality_targets: matcher given, but matcher={matcher_name} says no quality; iou or null "
        "is allowed",
    )
