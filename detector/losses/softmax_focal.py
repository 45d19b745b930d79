"""Focal loss on a softmax: one choice among background and the classes, easy ones fade."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from detector.config.ranges import AtLeast, Between
from detector.config.registry import LOSSES
from detector.layouts import Softmax
from detector.losses.balanced_cross_entropy import alpha_balanced
from detector.losses.base import ClassLoss
from detector.losses.focal import focal_posterior
from detector.losses.softmax_cross_entropy import background_first
from detector.structures import Matches, Predictions, promote


def softmax_focal(
    logits: Tensor, labels: Tensor, *, alpha: float | None, gamma: float, background: int = 0
) -> Tensor:
    """(...) -alpha_t (1 - p_t)^gamma log p_t of logits (..., C), C >= 2, and labels (...) int64.

    alpha weighs every class but `background`, which weighs 1 - alpha; None: all weigh 1.
    1 - p_t is the sum of the other classes, not a difference, so that it is above 0, its logarithm
    finite and its power has a slope for any gamma >= 0.
    """
    log_p = logits.log_softmax(-1)
    is_truth = labels[..., None] == torch.arange(logits.shape[-1], device=logits.device)
    log_miss = log_p.masked_fill(is_truth, -torch.inf).logsumexp(-1)
    loss = -(gamma * log_miss).exp() * log_p.gather(-1, labels[..., None])[..., 0]
    return alpha_balanced(loss, labels != background, alpha)


@LOSSES.register("softmax_focal")
class SoftmaxFocalLoss(ClassLoss):
    """Softmax focal loss over background and K classes, over all anchors.

    p_t is the softmax probability of what is there, background included: an anchor of background
    is easy where all classes together are improbable. alpha weighs objects, 1 - alpha background.
    In Lin et al. 2017, "Focal Loss for Dense Object Detection", arXiv 1708.02002, section 3, the
    extension to many classes is called straightforward; Detectron has it as the softmax option of
    its RetinaNet, with these weights. With one class it is `focal` of the logits' difference.
    """

    layout_class = Softmax

    def __init__(
        self,
        num_classes: int,
        *,
        alpha: Annotated[float | None, Between(0, 1)] = 0.25,
        gamma: Annotated[float, AtLeast(0)] = 2.0,
    ) -> None:
        super().__init__(num_classes)
        self.alpha = alpha
        self.gamma = gamma

    def forward(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        loss = softmax_focal(
            promote(predictions.logits),
            background_first(matches.labels),
            alpha=self.alpha,
            gamma=self.gamma,
        )
        return {"class": torch.where(matches.valid, loss, 0)}

    def link_inverse(self, scores: Tensor) -> Tensor | None:
        """That of `focal` for one class; None for more, or for alpha 0 and 1.

        The posteriors of background and classes are proportional to 1 / (alpha_j A(p_j)) with
        A(p) = (1 - p)^gamma / p - gamma (1 - p)^(gamma - 1) log p, and sum to 1: each depends on
        all the K + 1 probabilities of its anchor, of which a score is one (Charoenphakdee et al.
        2021, arXiv 2011.09172, have it without alpha).
        """
        if self.num_classes > 1 or self.alpha in (0, 1):
            return None
        return focal_posterior(promote(scores), alpha=self.alpha, gamma=self.gamma)
