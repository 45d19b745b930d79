"""Focal loss with two gammas: a large one while the answer is wrong, a smaller one after."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from detector.config.ranges import Between
from detector.config.registry import LOSSES
from detector.config.schema import require
from detector.layouts import Sigmoid
from detector.losses.base import ClassLoss
from detector.losses.focal import sigmoid_focal
from detector.structures import Matches, Predictions, promote


def sample_dependent_gamma(
    logits: Tensor, targets: Tensor, *, gamma_hard: float, gamma_easy: float, threshold: float
) -> Tensor:
    """(...) gamma_hard where p_t < threshold, else gamma_easy; for `sigmoid_focal`, without slope.

    logits (...), targets (...) boolean. Mukhoti et al. 2020, arXiv 2002.09437, "FLSD".
    """
    is_hard = torch.where(targets, logits, -logits).sigmoid() < threshold
    # Not where() of two plain numbers, which would be float32.
    return torch.where(is_hard, torch.full_like(logits, gamma_hard), gamma_easy).detach()


@LOSSES.register("sample_dependent_focal")
class SampleDependentFocalLoss(ClassLoss):
    """Sigmoid focal loss whose gamma is chosen by p_t, for each class of each anchor (FLSD-53).

    Mukhoti et al. 2020, "Calibrating Deep Neural Networks using Focal Loss", arXiv 2002.09437:
    gamma 5 where p_t < 0.2 and 3 elsewhere. They train softmax classifiers without alpha (null);
    0.25 is that of `focal`, whose gamma is of this order.

    It is made for calibrated scores, not for average precision, and it is no continuous function:
    where p_t passes 0.2 the loss jumps up from 0.527 to 0.824 (times alpha_t), though its slope
    always points the right way. A step that crosses the threshold may raise the logged loss.
    """

    layout_class = Sigmoid

    def __init__(
        self,
        num_classes: int,
        *,
        alpha: Annotated[float | None, Between(0, 1)] = 0.25,
        gamma_hard: float = 5.0,
        gamma_easy: float = 3.0,
        threshold: Annotated[float, Between(0, 1)] = 0.2,
    ) -> None:
        super().__init__(num_classes)
        for key, value in (("gamma_hard", gamma_hard), ("gamma_easy", gamma_easy)):
            require(value >= 0, f"{key}: {value} given, at least 0 is needed")
        self.alpha = alpha
        self.gamma_hard = gamma_hard
        self.gamma_easy = gamma_easy
        self.threshold = threshold

    def forward(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        logits = promote(predictions.logits)
        targets = matches.one_hot(self.num_classes)
        gamma = sample_dependent_gamma(
            logits,
            targets,
            gamma_hard=self.gamma_hard,
            gamma_easy=self.gamma_easy,
            threshold=self.threshold,
        )
        loss = sigmoid_focal(logits, targets, alpha=self.alpha, gamma=gamma)
        return {"class": torch.where(matches.valid[..., None], loss, 0)}

    def link_inverse(self, scores: Tensor) -> None:
        """None: the jumps at the threshold make the least loss that of a score beside them for a
        whole range of posteriors, so a score does not tell its posterior.
        """
