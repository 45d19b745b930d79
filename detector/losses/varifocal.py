"""Varifocal loss: positives count by how well their box fits, only background fades."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from detector.config.ranges import AtLeast
from detector.config.registry import LOSSES
from detector.layouts import Sigmoid
from detector.losses.base import ClassLoss
from detector.losses.quality_focal import box_quality, soft_cross_entropy
from detector.structures import Matches, Predictions, promote


def sigmoid_varifocal(
    logits: Tensor, quality: Tensor, *, alpha: float, gamma: float, detach_modulator: bool = False
) -> Tensor:
    """(...) loss of logits (...) and quality q (...) in [0, 1], 0 for background.

    q (-q log p - (1 - q) log(1 - p)) where q > 0, -alpha p^gamma log(1 - p) where q = 0. Zhang et
    al. 2021, arXiv 2008.13367, equation 2. The power is exp(gamma log p), whose slope is finite at
    p = 0 for any gamma >= 0. detach_modulator: p^gamma is a weight without a slope of its own.
    """
    positive = quality * soft_cross_entropy(logits, quality)
    modulator = (gamma * F.logsigmoid(logits)).exp()
    if detach_modulator:
        modulator = modulator.detach()
    background = -alpha * modulator * F.logsigmoid(-logits)
    return torch.where(quality > 0, positive, background)


@LOSSES.register("varifocal")
class VarifocalLoss(ClassLoss):
    """Cross entropy against the IoU of the predicted box, weighted by it; background as in focal.

    alpha: weight of background. gamma: how much easy background fades. A positive whose box does
    not meet its object at all has quality 0 and is background, as in the paper.
    detach_modulator: false, the default, is the paper and mmdetection: p^gamma is part of what is
    minimised. D-FINE takes p^gamma as a fixed weight: the same value, but a slope smaller by
    1 + gamma where p is small, that is a third for gamma 2. RF-DETR's variant writes the weight
    of background as 1 - alpha with alpha 0.25, the same number.

    Zhang et al. 2021, "VarifocalNet", arXiv 2008.13367, equation 2; alpha 0.75 and gamma 2 are
    theirs.
    """

    layout_class = Sigmoid
    asks_for_quality = True

    def __init__(
        self,
        num_classes: int,
        *,
        alpha: Annotated[float, AtLeast(0)] = 0.75,
        gamma: Annotated[float, AtLeast(0)] = 2.0,
        detach_modulator: bool = False,
    ) -> None:
        super().__init__(num_classes)
        self.alpha = alpha
        self.gamma = gamma
        self.detach_modulator = detach_modulator

    def forward(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        logits = promote(predictions.logits)
        quality = box_quality(predictions, matches, like=logits)
        loss = sigmoid_varifocal(
            logits,
            torch.where(matches.one_hot(self.num_classes), quality[..., None], 0),
            alpha=self.alpha,
            gamma=self.gamma,
            detach_modulator=self.detach_modulator,
        )
        return {"class": torch.where(matches.valid[..., None], loss, 0)}

    def link_inverse(self, scores: Tensor) -> None:
        """None: the odds are alpha p^gamma (p - gamma (1 - p) log(1 - p)) / (q (q - p)).

        They depend on the quality q that the positive would have, which a score does not tell, and
        have no value at scores above it.
        """
