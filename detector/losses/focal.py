"""Focal loss: every easy example fades, however many there are."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from detector.layouts import Sigmoid
from detector.losses.base import ClassLoss
from detector.registry import LOSSES
from detector.schema import require
from detector.structures import Matches, Predictions, promote


def sigmoid_focal(logits: Tensor, targets: Tensor, *, alpha: float | None, gamma: float) -> Tensor:
    """(...) -alpha_t (1 - p_t)^gamma log p_t of logits (...) and boolean targets (...).

    Written with log-sigmoids alone: (1 - p_t)^gamma = exp(gamma log(1 - p_t)). The usual
    power of 1 - exp(-cross entropy) has an infinite derivative at p_t = 1 for gamma < 1.
    Lin et al. 2017, arXiv 1708.02002, equation 5; alpha None leaves alpha_t out (equation 4).
    """
    signed = torch.where(targets, logits, -logits)
    loss = -F.logsigmoid(signed)
    if gamma != 0:
        loss = loss * (gamma * F.logsigmoid(-signed)).exp()
    if alpha is not None:
        # Not loss * where(targets, alpha, 1 - alpha): two plain numbers become float32 there.
        loss = torch.where(targets, alpha * loss, (1 - alpha) * loss)
    return loss


@LOSSES.register("focal")
class FocalLoss(ClassLoss):
    """Sigmoid focal loss, alpha-balanced, over all anchors (RetinaNet).

    Lin et al. 2017, "Focal Loss for Dense Object Detection", arXiv 1708.02002, equation 5. The
    defaults are those of table 1b, gamma 2 with alpha 0.25: alpha falls as gamma rises, since the
    focusing already lowers the weight of the background.
    """

    layout_class = Sigmoid

    def __init__(self, num_classes: int, *, alpha: float | None = 0.25, gamma: float = 2.0) -> None:
        super().__init__(num_classes)
        require(gamma >= 0, f"gamma: {gamma} given, at least 0 is needed")
        require(
            alpha is None or 0 <= alpha <= 1, f"alpha: {alpha} given, 0 to 1 or null is allowed"
        )
        self.alpha = alpha
        self.gamma = gamma

    def forward(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        logits = promote(predictions.logits)
        targets = matches.one_hot(self.num_classes)
        loss = sigmoid_focal(logits, targets, alpha=self.alpha, gamma=self.gamma)
        return {"class": torch.where(matches.valid[..., None], loss, 0)}
