"""Focal loss: every easy example fades, however many there are."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from detector.layouts import Sigmoid
from detector.losses.balanced_cross_entropy import alpha_balanced, check_alpha
from detector.losses.base import ClassLoss
from detector.registry import LOSSES
from detector.schema import require
from detector.structures import Matches, Predictions, promote


def sigmoid_focal(
    logits: Tensor,
    targets: Tensor,
    *,
    alpha: float | None,
    gamma: float | Tensor,
    gamma_negative: float | None = None,
    clip: float = 0.0,
    poly_epsilon: float = 0.0,
    is_poly_weighted: bool = False,
    detach_modulator: bool = False,
) -> Tensor:
    """(...) -alpha_t (1 - p_t)^gamma log p_t of logits (...) and boolean targets (...).

    Written with log-sigmoids alone: (1 - p_t)^gamma = exp(gamma log(1 - p_t)). The usual
    power of 1 - exp(-cross entropy) has an infinite derivative at p_t = 1 for gamma < 1.
    Lin et al. 2017, arXiv 1708.02002, equation 5; alpha None leaves alpha_t out (equation 4).

    gamma: a number, or one for each element. gamma_negative, clip: of the negatives, as in
    `FocalLoss`. poly_epsilon: adds that times
    (1 - p_t)^(gamma + 1), and is_poly_weighted alpha_t times that. detach_modulator: the value is
    the same, but (1 - p_t)^gamma is a weight without a slope of its own.
    """
    signed = torch.where(targets, logits, -logits)
    log_wrong = F.logsigmoid(-signed)  # log(1 - p_t)
    both = gamma
    if gamma_negative is not None:  # not where() of two plain numbers, which would be float32
        both = torch.where(targets, torch.full_like(logits, gamma), gamma_negative)
    loss = _modulated(-F.logsigmoid(signed), log_wrong, both, detach_modulator)
    if clip > 0:
        g = gamma if gamma_negative is None else gamma_negative
        loss = torch.where(targets, loss, _shifted(logits, g, clip, detach_modulator))
    poly = 0.0 if poly_epsilon == 0 else poly_epsilon * ((both + 1) * log_wrong).exp()
    if is_poly_weighted:
        loss, poly = loss + poly, 0.0
    return alpha_balanced(loss, targets, alpha) + poly


def _modulated(
    cross_entropy: Tensor, log_wrong: Tensor, gamma: Tensor | float, detach: bool
) -> Tensor:
    if not isinstance(gamma, Tensor) and gamma == 0:
        return cross_entropy
    modulator = (gamma * log_wrong).exp()
    return cross_entropy * (modulator.detach() if detach else modulator)


def _shifted(logits: Tensor, gamma: float | Tensor, clip: float, detach: bool) -> Tensor:
    """(...) -p_m^gamma log(1 - p_m) of negatives, with p_m = max(p - clip, 0)."""
    p = (logits.sigmoid() - clip).clamp(min=0)
    # A power below 1 has no slope at 0, and infinity times 0 is NaN.
    modulator = torch.where(p > 0, p, 1.0).pow(gamma)
    return torch.where(p > 0, -(modulator.detach() if detach else modulator) * torch.log1p(-p), 0.0)


def focal_posterior(
    p: Tensor,
    *,
    alpha: float | None,
    gamma: float,
    gamma_negative: float | None = None,
    poly_epsilon: float = 0.0,
    is_poly_weighted: bool = False,
    detach_modulator: bool = False,
) -> Tensor:
    """(...) the posterior for which the score `p` (...) has the least expected `sigmoid_focal`.

    The answers pull with weights: eta alpha A(p) = (1 - eta) (1 - alpha) B(p), where A and B are
    the slopes of the two branches, here times p (1 - p), so that they are finite in all of [0, 1].
    """
    alpha_yes, alpha_no = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)

    def pull(p: Tensor, gamma: float, weight: float) -> Tensor:
        own = 0.0 if detach_modulator else gamma * torch.xlogy(p, p)
        poly = poly_epsilon * (gamma + 1) * p * (1 - p)
        poly = weight * poly if is_poly_weighted else poly
        return (1 - p).pow(gamma) * (weight * (1 - p - own) + poly)

    yes = pull(p, gamma, alpha_yes)
    no = pull(1 - p, gamma if gamma_negative is None else gamma_negative, alpha_no)
    return no / (yes + no)


@LOSSES.register("focal")
class FocalLoss(ClassLoss):
    """Sigmoid focal loss, alpha-balanced, over all anchors (RetinaNet).

    Lin et al. 2017, "Focal Loss for Dense Object Detection", arXiv 1708.02002, equation 5. The
    defaults are those of table 1b, gamma 2 with alpha 0.25: alpha falls as gamma rises, since the
    focusing already lowers the weight of the background.

    gamma_negative: gamma where the answer is no; null is `gamma`. clip: probabilities of negatives
    are lowered by so much, and those below it have no loss at all. Ridnik et al. 2021, "Asymmetric
    Loss", arXiv 2009.14119 (gamma 1, gamma_negative 4, clip 0.05, alpha null). With a prior below
    `clip` every negative begins without a gradient: take a higher prior, or a ramp on loss.clip.
    poly_epsilon: adds poly_epsilon (1 - p_t)^(gamma + 1). Leng et al. 2022, "PolyLoss", arXiv
    2204.12511 (1 for their Poly-1). is_poly_weighted: whether alpha_t multiplies that term, which
    they leave open; the public implementation does not.
    detach_modulator: treat (1 - p_t)^gamma as a weight; the paper differentiates it.
    """

    layout_class = Sigmoid

    def __init__(
        self,
        num_classes: int,
        *,
        alpha: float | None = 0.25,
        gamma: float = 2.0,
        gamma_negative: float | None = None,
        clip: float = 0.0,
        poly_epsilon: float = 0.0,
        is_poly_weighted: bool = False,
        detach_modulator: bool = False,
    ) -> None:
        super().__init__(num_classes)
        require(gamma >= 0, f"gamma: {gamma} given, at least 0 is needed")
        require(
            gamma_negative is None or gamma_negative >= 0,
            f"gamma_negative: {gamma_negative} given, at least 0 or null is needed",
        )
        check_alpha(alpha)
        require(0 <= clip < 1, f"clip: {clip} given, 0 to below 1 is allowed")
        require(poly_epsilon >= -1, f"poly_epsilon: {poly_epsilon} given, at least -1 is needed")
        self.alpha = alpha
        self.gamma = gamma
        self.gamma_negative = gamma_negative
        self.clip = clip
        self.poly_epsilon = poly_epsilon
        self.is_poly_weighted = is_poly_weighted
        self.detach_modulator = detach_modulator

    def forward(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        logits = promote(predictions.logits)
        targets = matches.one_hot(self.num_classes)
        loss = sigmoid_focal(
            logits,
            targets,
            alpha=self.alpha,
            gamma=self.gamma,
            gamma_negative=self.gamma_negative,
            clip=self.clip,
            poly_epsilon=self.poly_epsilon,
            is_poly_weighted=self.is_poly_weighted,
            detach_modulator=self.detach_modulator,
        )
        return {"class": torch.where(matches.valid[..., None], loss, 0)}

    def link_inverse(self, scores: Tensor) -> Tensor | None:
        """Where eta d loss(1) + (1 - eta) d loss(0) = 0, solved for the posterior eta.

        None with `clip`, where every posterior below some value has the same best scores, and for
        alpha 0 and 1, where one of the two answers costs nothing. For the plain
        loss this is Charoenphakdee et al. 2021, arXiv 2011.09172, theorem 11, with alpha: a
        posterior of 0.9 comes out as 0.60 at gamma 2 and alpha 0.25.
        """
        if self.clip > 0 or self.alpha in (0, 1):
            return None
        return focal_posterior(
            promote(scores),
            alpha=self.alpha,
            gamma=self.gamma,
            gamma_negative=self.gamma_negative,
            poly_epsilon=self.poly_epsilon,
            is_poly_weighted=self.is_poly_weighted,
            detach_modulator=self.detach_modulator,
        )
