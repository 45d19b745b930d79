"""What a matcher is: it decides which anchor is responsible for which object."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from detector.boxes import coverage, iou
from detector.structures import BACKGROUND, IGNORE, Anchors, Matches, Predictions, Targets


class Matcher(ABC):
    """uses_predictions: matches depend on what the model says, so they follow the forward."""

    uses_predictions: ClassVar[bool] = False

    @abstractmethod
    def __call__(
        self, anchors: Anchors, targets: Targets, predictions: Predictions | None
    ) -> Matches:
        """What each of the A anchors shall say in each of the N images."""


def matches_from_objects(objects: Tensor, anchors: Anchors, targets: Targets) -> Matches:
    """`Matches` of (N, A) indices into M, BACKGROUND or IGNORE where an anchor has no object."""
    has_object = objects >= 0
    index = objects.clamp(min=0)
    labels = torch.where(has_object, _pick(targets.labels, index), objects)
    picked = _pick(targets.boxes, index)
    boxes = torch.where(has_object[..., None], picked, anchors.boxes.to(picked.dtype))
    return Matches(labels, boxes, torch.where(has_object, objects, BACKGROUND), anchors, targets)


def _pick(values: Tensor, index: Tensor) -> Tensor:
    """(N, A, ...) entries of (N, M, ...) at (N, A); zeros where there is no object at all."""
    if values.shape[1] == 0:
        return values.new_zeros((*index.shape, *values.shape[2:]))
    index = index.reshape(*index.shape, *[1] * (values.dim() - 2))
    return values.gather(1, index.expand(-1, -1, *values.shape[2:]))


def threshold_match(
    anchors: Tensor,
    boxes: Tensor,
    is_object: Tensor,
    crowd: Tensor,
    *,
    foreground_iou: float,
    background_iou: float,
    force: str,
    crowd_coverage: float,
) -> Tensor:
    """(A,) index into M, BACKGROUND or IGNORE for the anchors (A, 4) of one image.

    boxes (M, 4); is_object (M,) bool: may be a positive; crowd (M,) bool. An anchor takes the
    object it overlaps most: positive at `foreground_iou` or more, background below
    `background_iou`, neutral between. `force` gives each object its best anchor too (`RetinaNetMatcher`). Anchors of which at
    least `crowd_coverage` lies in a crowd are neutral unless positive.
    """
    overlaps = torch.where(is_object, iou(anchors[:, None], boxes), -1.0)
    best, index = overlaps.max(1)
    result = torch.where(best >= background_iou, IGNORE, BACKGROUND)
    if force != "none":
        # An object that no anchor touches would otherwise claim every anchor it does not touch.
        record = overlaps.amax(0)
        forced = (overlaps == record) & (record > 0)
        chosen = torch.where(forced, overlaps, -1.0).argmax(1) if force == "object" else index
        index = torch.where(forced.any(1), chosen, index)
        result = torch.where(forced.any(1), index, result)
    result = torch.where(best >= foreground_iou, index, result)
    in_crowd = torch.where(crowd, coverage(anchors[:, None], boxes), 0.0).amax(1)
    return torch.where((result < 0) & (in_crowd >= crowd_coverage), IGNORE, result)
