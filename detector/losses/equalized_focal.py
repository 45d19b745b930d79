"""Equalized focal loss: each class has a gamma of its own, by how its gradients are balanced."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from detector.config.ranges import Above, AtLeast, Between
from detector.config.registry import LOSSES
from detector.layouts import Sigmoid
from detector.losses.base import ClassLoss
from detector.losses.cross_entropy import sigmoid_cross_entropy
from detector.structures import Matches, Predictions, promote


def sigmoid_equalized_focal(
    logits: Tensor, targets: Tensor, gammas: Tensor, *, alpha: float, gamma: float
) -> Tensor:
    """(...) -alpha_t (gamma_j / gamma) (1 - p_t)^gamma_j log p_t, targets (...) being boolean.

    gammas: (K,) or what broadcasts to logits (..., K). Li et al. 2022, arXiv 2201.02593.
    """
    signed = torch.where(targets, logits, -logits)
    modulator = (gammas * F.logsigmoid(-signed)).exp()
    loss = (gammas / gamma) * modulator * sigmoid_cross_entropy(logits, targets)
    return torch.where(targets, alpha * loss, (1 - alpha) * loss)


def equalized_focal_slope(
    logits: Tensor, targets: Tensor, gammas: Tensor, *, alpha: float, gamma: float
) -> Tensor:
    """(...) |d loss / d logit| of `sigmoid_equalized_focal`, in closed form.

    alpha_t (gamma_j / gamma) (1 - p_t)^gamma_j (1 - p_t - gamma_j p_t log p_t).
    """
    signed = torch.where(targets, logits, -logits)
    log_p = F.logsigmoid(signed)
    modulator = (gammas * F.logsigmoid(-signed)).exp()
    bracket = (-signed).sigmoid() - gammas * log_p.exp() * log_p
    slope = (gammas / gamma) * modulator * bracket
    return torch.where(targets, alpha * slope, (1 - alpha) * slope)


@LOSSES.register("equalized_focal")
class EqualizedFocalLoss(ClassLoss):
    """Focal loss with gamma_j = gamma + scale (1 - g_j) for class j, weighted by gamma_j / gamma.

    g_j in [0, 1] is the sum of |gradients| of class j where it is there, over that where it is not,
    since the start of the run; 1 until it is known. A rare class has a small g_j: almost all its
    gradient says no. Its larger gamma spares it most of that, its factor keeps what is hard.
    At g = 1 this is focal loss.

    Li et al. 2022, "Equalized Focal Loss for Dense Long-Tailed Object Detection", arXiv 2201.02593;
    gamma 2, alpha 0.25 and scale 8 as there (their YOLOX takes 4). They begin from `prior=0.001`,
    which a loss cannot set.

    Their code reads the gradients off the backward pass, in float32 only; here they come from the
    closed form, divided by the positives of their step as theirs are, so mixed precision, loss
    weights and class weights do not enter. Given g the loss is a sum over anchors, so it is
    `separable`: g changes between steps only. A score has no closed form as a posterior that would
    hold for the run, since gamma_j moves.
    """

    layout_class = Sigmoid

    positive_gradient: Tensor
    negative_gradient: Tensor

    def __init__(
        self,
        num_classes: int,
        *,
        alpha: Annotated[float, Between(0, 1)] = 0.25,
        gamma: Annotated[float, Above(0)] = 2.0,
        scale: Annotated[float, AtLeast(0)] = 8.0,
    ) -> None:
        super().__init__(num_classes)
        self.alpha = alpha
        self.gamma = gamma
        self.scale = scale
        for name in ("positive_gradient", "negative_gradient"):
            self.register_buffer(name, torch.zeros(num_classes, dtype=torch.float64))

    def balance(self) -> Tensor:
        """(K,) float64 g, 1 for a class of which no gradient is known."""
        known = self.negative_gradient > 0
        ratio = self.positive_gradient / torch.where(known, self.negative_gradient, 1)
        return torch.where(known, ratio.clamp(max=1), 1)

    def gammas(self) -> Tensor:
        """(K,) float64 focusing of each class."""
        return self.gamma + self.scale * (1 - self.balance())

    def forward(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        logits = promote(predictions.logits)
        loss = sigmoid_equalized_focal(
            logits,
            matches.one_hot(self.num_classes),
            self.gammas().to(logits.dtype),
            alpha=self.alpha,
            gamma=self.gamma,
        )
        return {"class": torch.where(matches.valid[..., None], loss, 0)}

    @torch.no_grad()
    def statistics(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        logits = promote(predictions.logits)
        targets = matches.one_hot(self.num_classes)
        gammas = self.gammas().to(logits.dtype)
        slope = equalized_focal_slope(logits, targets, gammas, alpha=self.alpha, gamma=self.gamma)
        negatives = matches.valid[..., None] & ~targets
        return {
            "positive_gradient": torch.where(targets, slope, 0).sum((0, 1), dtype=torch.float64),
            "negative_gradient": torch.where(negatives, slope, 0).sum((0, 1), dtype=torch.float64),
            "positives": matches.foreground.sum().double(),
        }

    def update(self, statistics: dict[str, Tensor]) -> None:
        positives = statistics["positives"].clamp(min=1)
        for name in ("positive_gradient", "negative_gradient"):
            setattr(self, name, getattr(self, name) + statistics[name] / positives)
