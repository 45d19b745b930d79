"""Distributional ranking: the hardest objects are to score above the hardest background."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from detector.config.ranges import AtLeast
from detector.config.registry import LOSSES
from detector.config.schema import require
from detector.layouts import Sigmoid
from detector.losses.base import ClassLoss
from detector.structures import Matches, Predictions, promote


def hard_mean(scores: Tensor, members: Tensor, pull: float) -> Tensor:
    """(N,) mean of the scores (N, E) of the members (N, E), weighted by softmax(pull x score).

    A positive `pull` leans to the largest, a negative one to the smallest. 0 without members.
    """
    # The lowest number, not -inf: a row without members is then even, and not NaN.
    exponents = torch.where(members, pull * scores, torch.finfo(scores.dtype).min)
    return torch.where(members, exponents.softmax(1) * scores, 0).sum(1)


@LOSSES.register("distributional_ranking")
class DistributionalRankingLoss(ClassLoss):
    """One number for each image: how far its hard positives are from outscoring its hard negatives.

    An entry is one class of one anchor. P+ is the mean score of the positive entries, weighted by
    softmax(-p / positive_lambda), P- that of the negatives, by softmax(p / negative_lambda); the
    loss is tau / smoothness x log(1 + exp(smoothness (P- - P+ + margin))). An image without objects
    has P+ = 1, and one without background P- = 0. The scores are ranked, not fitted: they are no
    probabilities, and there is no posterior to compute from one.

    Qian et al. 2020, "DR Loss: Improving Object Detection by Distributional Ranking", arXiv
    1907.10156; positive_lambda 1, negative_lambda 0.1 / log 3.5, smoothness 6, tau 4
    and margin 0.5 are those of their code. Each image counts alike, so images are counted.
    They start from `prior=0.5`, which a loss cannot set: from 0.01 the positives have to climb a
    plateau where a sigmoid hardly has a slope. `separable` is false because an anchor counts by
    its rank among the others of its image.
    """

    layout_class = Sigmoid
    normalizer = "images"
    separable = False

    def __init__(
        self,
        num_classes: int,
        *,
        positive_lambda: float = 1.0,
        negative_lambda: float = 0.0798236,
        smoothness: float = 6.0,
        tau: Annotated[float, AtLeast(0)] = 4.0,
        margin: float = 0.5,
    ) -> None:
        super().__init__(num_classes)
        for name, value in (
            ("positive_lambda", positive_lambda),
            ("negative_lambda", negative_lambda),
            ("smoothness", smoothness),
        ):
            require(value > 0, f"{name}: {value} given, above 0 is needed")
        self.positive_lambda = positive_lambda
        self.negative_lambda = negative_lambda
        self.smoothness = smoothness
        self.tau = tau
        self.margin = margin

    def forward(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        scores = promote(predictions.logits).sigmoid().flatten(1)
        targets = matches.one_hot(self.num_classes)
        positives = targets.flatten(1)
        negatives = (matches.valid[..., None] & ~targets).flatten(1)
        objects = torch.where(
            positives.any(1), hard_mean(scores, positives, -1 / self.positive_lambda), 1
        )
        background = hard_mean(scores, negatives, 1 / self.negative_lambda)
        gap = background - objects + self.margin
        return {"class": self.tau / self.smoothness * F.softplus(self.smoothness * gap)}
