"""FL*: a cross entropy that is steeper and shifted fades much as focal loss does."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from detector.config.ranges import Above, Between
from detector.config.registry import LOSSES
from detector.layouts import Sigmoid, logit
from detector.losses.balanced_cross_entropy import alpha_balanced
from detector.losses.base import ClassLoss
from detector.structures import Matches, Predictions, promote


def sigmoid_focal_star(
    logits: Tensor, targets: Tensor, *, alpha: float | None, gamma: float, beta: float
) -> Tensor:
    """(...) -alpha_t log sigmoid(gamma x_t + beta) / gamma of logits (...), targets (...) boolean.

    x_t is the logit, or its negative where the target is no. gamma: above 0. alpha None leaves
    alpha_t out. Lin et al. 2017, arXiv 1708.02002, appendix A.
    """
    signed = torch.where(targets, logits, -logits)
    return alpha_balanced(-F.logsigmoid(gamma * signed + beta) / gamma, targets, alpha)


@LOSSES.register("focal_star")
class FocalStarLoss(ClassLoss):
    """Sigmoid cross entropy of gamma x_t + beta, divided by gamma: another shape of focal loss.

    Its slope goes from alpha_t, where the answer is wrong, to 0, where it is right; gamma says how
    fast it falls and beta where. Lin et al. 2017, "Focal Loss for Dense Object Detection",
    arXiv 1708.02002, appendix A, have it to show that the exact form of focal loss is not what
    matters: gamma 2 with beta 1, the default here, reaches 33.8 AP and 4 with 0 reaches 33.9,
    against 34.0 of `focal` in the same setting (table 3). gamma 1 with beta 0 is cross entropy.
    """

    layout_class = Sigmoid

    def __init__(
        self,
        num_classes: int,
        *,
        alpha: Annotated[float | None, Between(0, 1)] = 0.25,
        gamma: Annotated[float, Above(0)] = 2.0,
        beta: float = 1.0,
    ) -> None:
        super().__init__(num_classes)
        self.alpha = alpha
        self.gamma = gamma
        self.beta = beta

    def forward(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        targets = matches.one_hot(self.num_classes)
        loss = sigmoid_focal_star(
            promote(predictions.logits),
            targets,
            alpha=self.alpha,
            gamma=self.gamma,
            beta=self.beta,
        )
        return {"class": torch.where(matches.valid[..., None], loss, 0)}

    def link_inverse(self, scores: Tensor) -> Tensor | None:
        """Odds (1 - alpha) sigmoid(gamma x - beta) / (alpha sigmoid(-gamma x - beta)) at logit x.

        In logarithms, as both sigmoids vanish for a large beta. None for alpha 0 and 1, where one
        of the two answers costs nothing.
        """
        if self.alpha in (0, 1):
            return None
        x = self.gamma * promote(scores).logit()
        weight = 0.0 if self.alpha is None else logit(self.alpha)
        return (F.logsigmoid(x - self.beta) - F.logsigmoid(-x - self.beta) - weight).sigmoid()
