"""Losses of the boxes, on positive anchors only: a class here and a yaml in `configs/box_loss`.

Same interface as a class loss: named terms (N, A), 0 where an anchor has no object.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detector.boxes import center_size, giou
from detector.registry import BOX_LOSSES
from detector.schema import require
from detector.structures import Matches, Predictions, promote


class BoxLoss(nn.Module, ABC):
    """Says how wrong the boxes of positive anchors are. The engine weights, sums and divides."""

    @abstractmethod
    def forward(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        """Named terms (N, A) in float32 or better, 0 where an anchor has no object."""


def encoded_error(predictions: Predictions, matches: Matches) -> Tensor:
    """(N, A, 4) predicted deltas minus those of the matched boxes."""
    wanted = predictions.coder.encode(matches.boxes, predictions.anchors.boxes)
    return promote(predictions.deltas) - wanted


def on_positives(loss: Tensor, matches: Matches) -> Tensor:
    """(N, A) loss, 0 where an anchor has no object."""
    return torch.where(matches.foreground, loss, 0)


@BOX_LOSSES.register("l1")
class L1Loss(BoxLoss):
    """Sum over the four deltas of the absolute error (torchvision's and detectron2's RetinaNet)."""

    def forward(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        error = encoded_error(predictions, matches).abs().sum(-1)
        return {"box": on_positives(error, matches)}


@BOX_LOSSES.register("smooth_l1")
class SmoothL1Loss(BoxLoss):
    """Sum over the four deltas of 0.5 d^2 / beta below `beta`, |d| - beta / 2 above.

    Girshick 2015, Fast R-CNN, arXiv 1504.08083, equation 3. beta 1/9 is RetinaNet's in Detectron;
    SSD's is 1.
    """

    def __init__(self, *, beta: float = 1 / 9) -> None:
        super().__init__()
        require(beta > 0, f"beta: {beta} given, above 0 is needed (for 0 take box_loss=l1)")
        self.beta = beta

    def forward(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        error = encoded_error(predictions, matches)
        zero = torch.zeros_like(error)
        loss = F.smooth_l1_loss(error, zero, beta=self.beta, reduction="none").sum(-1)
        return {"box": on_positives(loss, matches)}


@BOX_LOSSES.register("giou")
class GIoULoss(BoxLoss):
    """1 - GIoU of the decoded box and its object.

    Rezatofighi et al. 2019, arXiv 1902.09630, algorithm 1.
    """

    def forward(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        return {"box": on_positives(1 - giou(predictions.boxes, matches.boxes), matches)}


@BOX_LOSSES.register("yolo")
class YOLOBoxLoss(BoxLoss):
    """Terms 1 and 2 of YOLO v1: squared errors of centres and of square roots of sides.

    Centres in units of the anchor's cell, sides as a share of the image, both weighted by
    `lambda_coord`. Redmon et al. 2016, arXiv 1506.02640, equation 3.
    """

    def __init__(self, *, lambda_coord: float = 5.0) -> None:
        super().__init__()
        require(lambda_coord > 0, f"lambda_coord: {lambda_coord} given, above 0 is needed")
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
