"""Quality focal loss: the score is to foretell how well the box fits, and fades where it does."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from detector.boxes import iou
from detector.config.ranges import AtLeast
from detector.config.registry import LOSSES
from detector.layouts import Sigmoid
from detector.losses.base import ClassLoss
from detector.structures import Matches, Predictions, promote


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """(...) -(y log p + (1 - y) log(1 - p)) of logits (...) and targets y (...) in [0, 1]."""
    return -(targets * F.logsigmoid(logits) + (1 - targets) * F.logsigmoid(-logits))


def sigmoid_quality_focal(logits: Tensor, quality: Tensor, *, beta: float) -> Tensor:
    """(...) |y - p|^beta times the cross entropy of logits (...) and quality y (...) in [0, 1].

    Finite for any finite logit and beta >= 0; for 0 < beta < 1 the slope is steep around p = y,
    as the formula's is. Li et al. 2020, arXiv 2006.04388, "QFL".
    """
    loss = soft_cross_entropy(logits, quality)
    if beta != 0:
        error = (quality - logits.sigmoid()).abs()
        # The power has no slope at 0 for beta < 1, and one of infinity times 0 is NaN.
        loss = loss * error.clamp(min=torch.finfo(error.dtype).tiny).pow(beta)
    return loss


def box_quality(predictions: Predictions, matches: Matches, like: Tensor) -> Tensor:
    """(N, A) IoU of predicted and matched box, a number to foretell: it does not pull on the box.

    What the matcher says of its positives (`Matches.quality`) counts in its place where it says
    something. In the dtype of `like`.
    """
    if matches.quality is not None:
        return matches.quality.to(like.dtype)
    return iou(predictions.boxes.detach(), matches.boxes).to(like.dtype)


@LOSSES.register("quality_focal")
class QualityFocalLoss(ClassLoss):
    """Focal loss whose target, at the class of a positive, is the IoU of its predicted box.

    So the score says how good a detection is, and NMS keeps the better box; nothing else has to be
    predicted for it (no centerness). Every anchor's loss fades as its score nears its target. There
    is no alpha.

    Li et al. 2020, "Generalized Focal Loss", arXiv 2006.04388, where it is called QFL; beta 2 is
    their choice. Their distribution over box sides is a matter of the box loss.
    """

    layout_class = Sigmoid
    asks_for_quality = True

    def __init__(self, num_classes: int, *, beta: Annotated[float, AtLeast(0)] = 2.0) -> None:
        super().__init__(num_classes)
        self.beta = beta

    def forward(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        logits = promote(predictions.logits)
        quality = box_quality(predictions, matches, like=logits)
        targets = torch.where(matches.one_hot(self.num_classes), quality[..., None], 0)
        loss = sigmoid_quality_focal(logits, targets, beta=self.beta)
        return {"class": torch.where(matches.valid[..., None], loss, 0)}

    def link_inverse(self, scores: Tensor) -> Tensor:
        """The posterior where every positive's quality is 1: then this is focal loss without alpha.

        eta (1 - p)^beta (-log p) + (1 - eta) p^beta (-log(1 - p)) is least at p where
        eta / (1 - eta) = b / a, with the slopes a and b below; both are multiplied by p (1 - p),
        which leaves no division. Positives of lower quality hold scores below their quality,
        however sure they are, so this is then a lower bound.
        """
        p, q = scores, 1 - scores
        a = q**self.beta * (q - self.beta * torch.xlogy(p, p))
        b = p**self.beta * (p - self.beta * torch.xlogy(q, q))
        return b / (a + b)
