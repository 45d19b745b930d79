"""Matchability-aware loss: poor boxes are not spared, as they are in varifocal loss."""

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


def sigmoid_mal(
    logits: Tensor,
    quality: Tensor,
    is_positive: Tensor,
    *,
    gamma: float,
    detach_modulator: bool = True,
) -> Tensor:
    """(...) loss of logits (...), quality q (...) in [0, 1] and is_positive (...) bool.

    -q^gamma log p - (1 - q^gamma) log(1 - p) for a positive, -p^gamma log(1 - p) elsewhere. Huang
    et al. 2024, arXiv 2412.04234, equation 4. The power is exp(gamma log p), whose slope is finite
    at p = 0 for any gamma >= 0. detach_modulator: p^gamma is a weight without a slope of its own.
    """
    modulator = (gamma * F.logsigmoid(logits)).exp()
    if detach_modulator:
        modulator = modulator.detach()
    background = -modulator * F.logsigmoid(-logits)
    return torch.where(is_positive, soft_cross_entropy(logits, quality**gamma), background)


@LOSSES.register("mal")
class MatchabilityAwareLoss(ClassLoss):
    """Cross entropy against a power of the IoU of the predicted box; background as in focal.

    Varifocal loss weighs a positive by its IoU, so that a match of low quality has hardly a loss,
    whatever its score; here it has its full weight, and its target is IoU^gamma: a poor box with a
    high score is dear. There is no weight of background against objects.

    gamma: power of the quality and of the fading of background. detach_modulator: true, the
    default, is the authors' code, in which p^gamma is a fixed weight; false makes it part of what
    is minimised, as the formula can also be read.

    Huang et al. 2024, "DEIM", arXiv 2412.04234, equation 4; gamma 1.5 is theirs.
    """

    layout_class = Sigmoid
    asks_for_quality = True

    def __init__(
        self,
        num_classes: int,
        *,
        gamma: Annotated[float, AtLeast(0)] = 1.5,
        detach_modulator: bool = True,
    ) -> None:
        super().__init__(num_classes)
        self.gamma = gamma
        self.detach_modulator = detach_modulator

    def forward(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        logits = promote(predictions.logits)
        loss = sigmoid_mal(
            logits,
            box_quality(predictions, matches, like=logits)[..., None],
            matches.one_hot(self.num_classes),
            gamma=self.gamma,
            detach_modulator=self.detach_modulator,
        )
        return {"class": torch.where(matches.valid[..., None], loss, 0)}

    def link_inverse(self, scores: Tensor) -> None:
        """None: the odds depend on the quality that the positive would have, which a score does
        not tell."""
