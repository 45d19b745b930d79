"""Focal loss: every easy example fades, however many there are."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from detector.config.ranges import AtLeast, Between
from detector.config.registry import LOSSES
from detector.config.schema import require
from detector.layouts import Sigmoid
from detector.losses.balanced_cross_entropy import alpha_balanced
from detector.losses.base import ClassLoss
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

    gamma may be a tensor that broadcasts to the logits. The other options: see `FocalLoss`.
    """
    log_hit, log_miss = log_probabilities(logits, targets, clip)
    power = gamma * log_miss
    if gamma_negative is not None:
        power = torch.where(targets, power, gamma_negative * log_miss)
    modulator = power.exp()
    weight = modulator.detach() if detach_modulator else modulator
    loss = alpha_balanced(-weight * log_hit, targets, alpha)
    if poly_epsilon != 0:
        poly = poly_epsilon * modulator * log_miss.exp()
        loss = loss + alpha_balanced(poly, targets, alpha if is_poly_weighted else None)
    return loss


def log_probabilities(logits: Tensor, targets: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """(...) log p_t and (...) log(1 - p_t), where the target is no for p_m = max(p - clip, 0).

    Where p <= clip the first is 0 and the second, for -inf, the least finite number, as gamma 0
    times -inf would be NaN; both are constant there.
    """
    signed = torch.where(targets, logits, -logits)
    log_hit, log_miss = F.logsigmoid(signed), F.logsigmoid(-signed)
    if clip > 0:
        shifted = logits.sigmoid() - clip
        is_left = shifted > 0
        rest = (logits.neg().sigmoid() + clip).clamp(max=1)  # 1 - p_m, not 0 where p rounds to 1
        # The inner where keeps the slope of the log finite in the branch that is not taken.
        log_shifted = torch.where(is_left, shifted, 1).log()
        least = torch.finfo(logits.dtype).min
        log_hit = torch.where(targets, log_hit, torch.where(is_left, rest.log(), 0))
        log_miss = torch.where(targets, log_miss, torch.where(is_left, log_shifted, least))
    return log_hit, log_miss


def focal_posterior(
    scores: Tensor,
    *,
    alpha: float | None,
    gamma: float,
    gamma_negative: float | None = None,
    poly_epsilon: float = 0.0,
    is_poly_weighted: bool = False,
    detach_modulator: bool = False,
) -> Tensor:
    """(...) in [0, 1] the posterior eta whose best scores under `sigmoid_focal` are p (...).

    eta loss(yes) + (1 - eta) loss(no) has no slope where eta / (1 - eta) = b / a, with a and b the
    sizes of the two slopes, so eta = b / (a + b); it rises with the score. alpha: above 0 and below
    1, or None. With `detach_modulator` nothing is minimised: the slopes that are applied cancel.
    """
    p, q = scores, 1 - scores
    yes, no = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)

    def slope(gamma: float, weight: float, hit: Tensor, miss: Tensor, entropy: Tensor) -> Tensor:
        """w miss^g (miss - g hit log hit) + e (g + 1) hit miss^(g + 1): that for the logit, which
        divides by nothing, so p may be 0 or 1. entropy: -hit log hit."""
        own = 0.0 if detach_modulator else gamma
        epsilon = poly_epsilon * (weight if is_poly_weighted else 1)
        poly = epsilon * (gamma + 1) * hit * miss
        # Where epsilon is -weight this is a difference, which rounding may turn below 0.
        return (miss**gamma * (weight * (miss + own * entropy) + poly)).clamp(min=0)

    a = slope(gamma, yes, p, q, torch.special.entr(p))
    # log q is taken from p, which keeps its digits where p is small.
    entropy = -torch.special.xlog1py(q, -p)
    b = slope(gamma if gamma_negative is None else gamma_negative, no, q, p, entropy)
    return b / (a + b)


@LOSSES.register("focal")
class FocalLoss(ClassLoss):
    """Sigmoid focal loss, alpha-balanced, over all anchors (RetinaNet).

    Lin et al. 2017, "Focal Loss for Dense Object Detection", arXiv 1708.02002, equation 5. The
    defaults are those of table 1b, gamma 2 with alpha 0.25: alpha falls as gamma rises, since the
    focusing already lowers the weight of the background.

    gamma_negative: gamma where the answer is no; null: gamma.
    clip: background counts by p_m = max(p - clip, 0) in place of p, so its value and its slope are
        exactly 0 where p <= clip. Ridnik et al. 2021, "Asymmetric Loss", arXiv 2009.14119, for
        labels of whole images: alpha null, gamma 0 (1 in their code), gamma_negative 4, clip 0.05.
        With a prior below clip no background has any slope at first: a prior of 0.01 and clip
        0.05 train on positives alone until scores have risen, and the share of background in the
        first gradient, which every run logs, is 0. Take a prior above clip, or ramp `loss.clip`
        up from 0.
    poly_epsilon: adds poly_epsilon (1 - p_t)^(gamma + 1), p_m for p included. Leng et al. 2022,
        "PolyLoss", arXiv 2204.12511, Poly-1; 0 is focal loss, -1 takes its leading term away, and
        below that it would not fall as p_t rises.
    is_poly_weighted: whether alpha_t multiplies that term as well. Their formula has no alpha; a
        public implementation leaves the term unweighted, as here by default. poly_epsilon is then
        limited by the smaller of alpha and 1 - alpha.
    detach_modulator: (1 - p_t)^gamma of equation 5 is a weight without a slope of its own. The
        value is the same, the slope smaller by 1 + gamma where p_t is near 1. The paper has its
        slope.
    """

    layout_class = Sigmoid

    def __init__(
        self,
        num_classes: int,
        *,
        alpha: Annotated[float | None, Between(0, 1)] = 0.25,
        gamma: Annotated[float, AtLeast(0)] = 2.0,
        gamma_negative: Annotated[float | None, AtLeast(0)] = None,
        clip: Annotated[float, Between(0, 1, is_below=True)] = 0.0,
        poly_epsilon: float = 0.0,
        is_poly_weighted: bool = False,
        detach_modulator: bool = False,
    ) -> None:
        super().__init__(num_classes)
        least = -1.0 if alpha is None or is_poly_weighted else -min(alpha, 1 - alpha)
        require(
            poly_epsilon >= least,
            f"poly_epsilon: {poly_epsilon} given, at least {least} is needed with alpha {alpha} "
            f"and is_poly_weighted {str(is_poly_weighted).lower()}",
        )
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
        """`focal_posterior` of the scores: with the defaults 0.5 means 0.75, and 0.6 means 0.9.

        For the plain loss without alpha this is in Charoenphakdee et al. 2021, arXiv 2011.09172.
        None with clip, as background does not tell the scores up to it apart, and none of them is
        ever the best; and None for alpha 0 and 1, where one of the two answers costs nothing.
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
