"""AP loss: one minus the average precision, by the rank of each positive."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from detector.config.ranges import Above
from detector.config.registry import LOSSES
from detector.layouts import Sigmoid
from detector.losses.base import ClassLoss
from detector.losses.ranking import Errors, RankingErrors, Thresholds, ranked_terms
from detector.structures import Matches, Predictions, promote


class OneLessPrecision(RankingErrors):
    """1 - precision at the place of each positive, which counts itself as one.

    interpolated: the precision is the best of those at positives that do not score higher.
    """

    def __init__(self, *, interpolated: bool = False) -> None:
        self.interpolated = interpolated

    def errors(self, thresholds: Thresholds, above: Tensor, quality: Tensor) -> Errors:
        among = torch.empty_like(above)
        for part, relation in thresholds.rows():
            among[part] = relation.sum(1) + 0.5  # H of itself is a half
        error = above / (among + above)
        if self.interpolated:
            order = thresholds.logits.argsort(stable=True)
            error = error.scatter(0, order, error[order].cummin(0).values)
        return Errors(error, error)


@LOSSES.register("ap")
class APLoss(ClassLoss):
    """1 - AP: the mean over positives of the share of negatives in what ranks above them.

    "Above" is the step H of width 2 `delta`, and the error of a pair moves both of its entries.
    There is no alpha, gamma or prior to choose, and scores say nothing of probability: only their
    order counts, so calibrate them before a threshold is read.

    Chen et al. 2019, "Towards Accurate One-Stage Object Detection with AP-Loss", arXiv 1904.06373,
    whose delta is 1.
    interpolated: as their code has it, a positive is not asked for more precision than one of a
    lower score has. Positives are ranked among what a device holds at a time: a micro-batch.
    """

    layout_class = Sigmoid
    separable = False
    ranks = True

    def __init__(
        self,
        num_classes: int,
        *,
        delta: Annotated[float, Above(0)] = 1.0,
        interpolated: bool = False,
    ) -> None:
        super().__init__(num_classes)
        self.delta = delta
        self.interpolated = interpolated

    def forward(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        logits = promote(predictions.logits)
        targets = matches.one_hot(self.num_classes)
        rule = OneLessPrecision(interpolated=self.interpolated)
        return {"class": ranked_terms(logits, targets, matches.valid, None, self.delta, rule)}
