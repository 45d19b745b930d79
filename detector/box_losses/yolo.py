"""The box terms of YOLO v1: squares, of centres in cells and of roots of sides in images."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from detector.box_losses.base import BoxLoss, on_positives
from detector.boxes import center_size
from detector.config.ranges import Above
from detector.config.registry import BOX_LOSSES
from detector.structures import Matches, Predictions


@BOX_LOSSES.register("yolo")
class YOLOBoxLoss(BoxLoss):
    """Terms 1 and 2 of YOLO v1: squared errors of centres and of square roots of sides.

    Centres in units of the anchor's cell, sides as a share of the image, both weighted by
    `lambda_coord`. Redmon et al. 2016, arXiv 1506.02640, equation 3.
    """

    def __init__(self, *, lambda_coord: Annotated[float, Above(0)] = 5.0) -> None:
        super().__init__()
        self.lambda_coord = lambda_coord

    def forward(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        boxes = predictions.boxes
        center, side = center_size(boxes)
        true_center, true_side = center_size(matches.boxes)
        shift = (center - true_center) / predictions.anchors.strides[:, None]
        image = matches.targets.image_sizes.flip(-1)[:, None].to(boxes.dtype)
        # exp underflows for wild predictions, and the derivative of a root at 0 is infinite.
        tiny = torch.finfo(boxes.dtype).eps
        roots = (side / image).clamp(min=tiny).sqrt() - (true_side / image).clamp(min=tiny).sqrt()
        center_loss = self.lambda_coord * (shift**2).sum(-1)
        size_loss = self.lambda_coord * (roots**2).sum(-1)
        return {
            "box_center": on_positives(center_loss, matches),
            "box_size": on_positives(size_loss, matches),
        }
