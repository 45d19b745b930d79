"""What the rating of an anchor is to say: how good its box is, for `detector.layouts.Rated`."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from detector.box_losses.base import on_positives
from detector.boxes import center_size, iou
from detector.structures import Matches, Predictions, promote

Rating = Literal["iou", "centerness"]


def centerness(anchors: Tensor, boxes: Tensor) -> Tensor:
    """(...) sqrt(min(l, r) / max(l, r) x min(t, b) / max(t, b)) of anchors' centres in boxes.

    l, t, r and b are the distances of the four sides; 0 for a centre outside. Tian et al. 2019,
    "FCOS", arXiv 1904.01355, equation 3.
    """
    center, _ = center_size(anchors)
    low, high = center - boxes[..., :2], boxes[..., 2:] - center
    nearest, farthest = torch.minimum(low, high), torch.maximum(low, high)
    ratio = nearest.clamp(min=0) / farthest.clamp(min=torch.finfo(farthest.dtype).tiny)
    return ratio.prod(-1).sqrt()


def rating_term(logits: Tensor, predictions: Predictions, matches: Matches, kind: Rating) -> Tensor:
    """(N, A) cross entropy of rating logits (N, A) and what the positives have reached.

    kind: "iou" of the predicted box, which has no gradient from it (Wu et al. 2020, "IoU-aware
    Single-stage Object Detector", arXiv 1912.05992); "centerness" of the anchor in its object.
    """
    logits = promote(logits)
    if kind == "iou":
        target = iou(predictions.boxes.detach(), matches.boxes)
    else:
        target = centerness(predictions.anchors.boxes, matches.boxes)
    loss = F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none")
    return on_positives(loss, matches)
