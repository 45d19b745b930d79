"""Losses of the four deltas, each by itself: what changes is the price of small and large errors.

All take the sum over the four deltas. A code that takes their mean (pytorch-retinanet) has a box
loss of a quarter, so its `box_loss.weight` 1 is 0.25 here.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from detector.box_losses.base import BoxLoss, encoded_error, on_positives
from detector.config.registry import BOX_LOSSES
from detector.config.schema import require
from detector.structures import Matches, Predictions


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


@BOX_LOSSES.register("balanced_l1")
class BalancedL1Loss(BoxLoss):
    """Sum over the four deltas of a loss whose slope is alpha log(b |d| / beta + 1), then gamma.

    Pang et al. 2019, "Libra R-CNN", arXiv 1904.02701, section 3.3; alpha 0.5 and gamma 1.5
    are theirs, and b = exp(gamma / alpha) - 1 joins the two slopes at |d| = `beta`. A smaller alpha
    raises the slope of errors below `beta` against that of outliers, which is gamma.

    The paper has beta 1. For another one mmdetection keeps the paper's formula but for the log, so
    that its slope at 0 is alpha (1 / beta - 1) and has a kink; here the whole curve is scaled.
    """

    def __init__(self, *, alpha: float = 0.5, gamma: float = 1.5, beta: float = 1.0) -> None:
        super().__init__()
        for key, value in (("alpha", alpha), ("gamma", gamma), ("beta", beta)):
            require(value > 0, f"{key}: {value} given, above 0 is needed")
        most = 64 * alpha  # e^64 is well inside float32
        require(gamma <= most, f"gamma: {gamma} given, at most 64 alpha = {most} is allowed")
        self.alpha, self.gamma, self.beta = alpha, gamma, beta

    def forward(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        ratio = encoded_error(predictions, matches).abs() / self.beta
        b = math.expm1(self.gamma / self.alpha)
        near = ratio.clamp(max=1)  # else the branch that is not taken could overflow
        inner = self.alpha * ((near + 1 / b) * (b * near).log1p() - near)
        outer = self.gamma * (ratio + 1 / b) - self.alpha
        loss = self.beta * torch.where(ratio < 1, inner, outer).sum(-1)
        return {"box": on_positives(loss, matches)}
