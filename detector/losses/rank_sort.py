"""Rank & Sort: positives above all negatives, and among themselves in the order of their boxes."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from detector.boxes import iou
from detector.config.ranges import Above
from detector.config.registry import LOSSES
from detector.layouts import Sigmoid
from detector.losses.base import ClassLoss
from detector.losses.ranking import Errors, RankingErrors, Thresholds, ranked_terms
from detector.structures import Matches, Predictions, promote


class RankAndSort(RankingErrors):
    """The ranking and the sorting error of a positive, which counts itself as a half."""

    def errors(self, thresholds: Thresholds, above: Tensor, quality: Tensor) -> Errors:
        rank, sorting = torch.empty_like(above), torch.empty_like(above)
        cost = 1 - quality
        for part, relation in thresholds.rows():
            better = torch.where(quality >= quality[part, None], relation, 0)
            among, wanted = relation.sum(1), better.sum(1)
            rank[part] = among + above[part]
            # Of the right order too something lies above; only what is more than that is wrong.
            sorting[part] = (relation @ cost) / among - (better @ cost) / wanted
        ranking = above / rank
        return Errors(ranking + sorting, ranking, sorting)

    def is_to_answer(self, quality: Tensor, part: slice) -> Tensor:
        return quality < quality[part, None]


@LOSSES.register("rank_sort")
class RankSortLoss(ClassLoss):
    """The share of wrong entries above each positive, and how far it is from its place among them.

    For a positive i the ranking error is FP / rank, the negatives above it over all that is above
    it; the sorting error is the mean 1 - IoU of the positives above it, less what that mean is of
    those whose IoU is not lower. "Above" is the step H of width 2 `delta`. Both errors are given to
    the pairs that cause them. There is no alpha, gamma or prior to choose, and scores say nothing
    of probability: only their order counts, so calibrate them before a threshold is read.

    Oksuz et al. 2021, "Rank & Sort Loss for Object Detection and Instance Segmentation", arXiv
    2107.11669; delta 0.5 is theirs, and `box_loss=giou` with a weight of 1 goes
    with it. Their balance of class and box loss is `guided_scale=true`, by the step before.
    Positives are ranked among what a device holds at a time: a micro-batch.
    """

    layout_class = Sigmoid
    separable = False
    ranks = True

    def __init__(self, num_classes: int, *, delta: Annotated[float, Above(0)] = 0.5) -> None:
        super().__init__(num_classes)
        self.delta = delta

    def forward(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        logits = promote(predictions.logits)
        targets = matches.one_hot(self.num_classes)
        quality = iou(predictions.boxes.detach(), matches.boxes).clamp(0, 1)
        terms = ranked_terms(logits, targets, matches.valid, quality, self.delta, RankAndSort())
        return {"class": terms}
