"""aLRP loss, its side of the classes: what ranks above a positive, poor boxes included."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from detector.boxes import iou
from detector.config.ranges import Above, Between
from detector.config.registry import LOSSES
from detector.layouts import Sigmoid
from detector.losses.base import ClassLoss
from detector.losses.ranking import Errors, RankingErrors, Thresholds, ranked_terms
from detector.structures import Matches, Predictions, promote


class LocalisationRecallPrecision(RankingErrors):
    """What keeps a positive from its least LRP error: the negatives above it, and the localisation
    errors of the other positives above it. A positive counts itself as one.

    min_iou: IoU below which a box would not count; a localisation error is (1 - IoU) / (1 - it).
    """

    def __init__(self, min_iou: float) -> None:
        self.min_iou = min_iou

    def errors(self, thresholds: Thresholds, above: Tensor, quality: Tensor) -> Errors:
        among, others = torch.empty_like(above), torch.empty_like(above)
        cost = (1 - quality) / (1 - self.min_iou)
        for part, relation in thresholds.rows():
            among[part] = relation.sum(1) + 0.5  # H of itself is a half
            others[part] = relation @ cost - 0.5 * cost[part]
        rank = among + above
        # The error that stays when all is in order is cost / rank, which no order can mend.
        return Errors((above + others) / rank, (above + others) / rank)


@LOSSES.register("alrp")
class ALRPLoss(ClassLoss):
    """The average LRP error that an order of the scores could take away.

    LRP(i) = (FP + E(i) + the sum over other positives k above i of E(k)) / rank, E = (1 - IoU) /
    (1 - `min_iou`) and "above" the step H of width 2 `delta`. What exceeds E(i) / rank is the error
    of positive i, and the negatives above it answer for all of it, so that positives with poor
    boxes cost the more the higher they rank. IoU has no gradient here: boxes are trained by
    `box_loss`, giou with theirs, where the paper also scales the localisation part by rank.

    Oksuz et al. 2020, "A Ranking-based, Balanced Loss Function Unifying Classification and
    Localisation in Object Detection", arXiv 2009.13592; delta 1 and a least IoU
    of 0.5 are theirs. Scores say nothing of probability: calibrate them before a threshold is read.
    Positives are ranked among what a device holds at a time: a micro-batch.
    """

    layout_class = Sigmoid
    separable = False
    ranks = True

    def __init__(
        self,
        num_classes: int,
        *,
        delta: Annotated[float, Above(0)] = 1.0,
        min_iou: Annotated[float, Between(0, 1, is_below=True)] = 0.5,
    ) -> None:
        super().__init__(num_classes)
        self.delta = delta
        self.min_iou = min_iou

    def forward(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        logits = promote(predictions.logits)
        targets = matches.one_hot(self.num_classes)
        quality = iou(predictions.boxes.detach(), matches.boxes).clamp(0, 1)
        rule = LocalisationRecallPrecision(self.min_iou)
        return {"class": ranked_terms(logits, targets, matches.valid, quality, self.delta, rule)}
