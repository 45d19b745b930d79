"""Online hard example mining: only the anchors of highest loss count."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from detector.config.ranges import AtLeast, Between
from detector.config.registry import LOSSES
from detector.config.schema import require
from detector.layouts import Sigmoid
from detector.losses.base import ClassLoss
from detector.losses.cross_entropy import sigmoid_cross_entropy
from detector.losses.mining import hardest, without_overlaps
from detector.structures import Matches, Predictions, promote

NMS_POOL = 4000
"""Anchors of highest loss in an image that NMS sees; all 100,000 would take too long."""


@LOSSES.register("ohem")
class OHEMLoss(ClassLoss):
    """Mean sigmoid cross entropy of the hardest anchors of each image.

    num_hard: anchors of an image that count, positives and negatives alike, those of highest loss.
    negatives_per_positive: null takes them as they come; a number r instead takes the hardest
        num_hard / (1 + r) positives and for each of them, not more, the r hardest negatives; an
        image without objects then has no class loss.
    nms_iou: null takes anchors however close; a number first drops those whose predicted box
        overlaps, by more than this, that of an anchor of higher loss.

    Shrivastava et al. 2016, arXiv 1604.03540, for dense detectors as in Lin et al. 2017, arXiv
    1708.02002, section 5.1 and table 1d: num_hard 128, 256 or 512 after NMS at 0.5 or 0.7 (best:
    128 and 0.5), and a variant of 1:3. They do not say whether the minibatch is one image's or
    the batch's, which boxes are suppressed, or what the sum is divided by. Our choices: each image
    by itself, so that splitting a batch changes nothing; predicted boxes, since overlapping
    predictions are what repeats itself; the number of anchors selected. NMS is off by default (it
    costs more than all the rest of this loss), and where it is on it sees the `NMS_POOL` anchors
    of highest loss, so the rest cannot be selected.

    Against the box loss: that is a mean over the step's positives, this a mean over an image's
    minibatch, so both are of order one whatever the number of anchors. They are not on one
    scale: every image weighs the same here but by its positives there, and with P positives an
    image the gradient at a selected anchor is P / num_hard of that of `cross_entropy`, usually
    several times less. So the boxes have a larger say in the shared layers than under that loss.
    """

    layout_class = Sigmoid
    selects = True
    normalizer = "images"

    def __init__(
        self,
        num_classes: int,
        *,
        num_hard: Annotated[int, AtLeast(1)] = 128,
        negatives_per_positive: float | None = None,
        nms_iou: Annotated[float | None, Between(0, 1, is_above=True)] = None,
    ) -> None:
        super().__init__(num_classes)
        require(
            negatives_per_positive is None or 0 <= negatives_per_positive <= num_hard - 1,
            f"negatives_per_positive: {negatives_per_positive} given, "
            f"0 to num_hard - 1 = {num_hard - 1} or null is allowed",
        )
        self.num_hard = num_hard
        self.negatives_per_positive = negatives_per_positive
        self.nms_iou = nms_iou

    def forward(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        targets = matches.one_hot(self.num_classes)
        loss = sigmoid_cross_entropy(promote(predictions.logits), targets).sum(-1)
        selected = self.select(loss, predictions, matches)
        count = selected.sum(1, keepdim=True).clamp(min=1)
        return {"class": torch.where(selected, loss / count, 0)}

    def select(self, loss: Tensor, predictions: Predictions, matches: Matches) -> Tensor:
        """(N, A) bool: the anchors that count, chosen by their loss (N, A)."""
        candidates = matches.valid
        num_images = len(candidates)
        if self.nms_iou is not None:
            pool = hardest(loss, candidates, loss.new_full((num_images,), NMS_POOL))
            candidates = without_overlaps(loss, predictions.boxes, pool, self.nms_iou)
        if self.negatives_per_positive is None:
            return hardest(loss, candidates, loss.new_full((num_images,), self.num_hard))
        quota = self.num_hard // (1 + self.negatives_per_positive)
        positives = hardest(
            loss, candidates & matches.foreground, loss.new_full((num_images,), quota)
        )
        allowed = (self.negatives_per_positive * positives.sum(1)).floor()
        return positives | hardest(loss, candidates & matches.background, allowed)
