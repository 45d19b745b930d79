"""SSD's class loss: softmax cross entropy on the positives and the hardest negatives, 3:1."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from detector.config.ranges import AtLeast
from detector.config.registry import LOSSES
from detector.layouts import Softmax
from detector.losses.base import ClassLoss
from detector.losses.mining import hardest
from detector.losses.softmax_cross_entropy import background_first, softmax_cross_entropy
from detector.structures import Matches, Predictions, promote


@LOSSES.register("ssd")
class SSDLoss(ClassLoss):
    """Softmax cross entropy over K + 1 classes with hard negative mining in each image.

    The negatives of highest loss are kept, at most `negatives_per_positive` for each positive; an
    image without objects therefore has no class loss at all. Positives are counted once, also where
    the quota is larger than the number of negatives. Liu et al. 2016, "SSD", arXiv 1512.02325,
    equation 1 and "Hard negative mining" (3:1).
    """

    layout_class = Softmax
    selects = True

    def __init__(
        self, num_classes: int, *, negatives_per_positive: Annotated[float, AtLeast(0)] = 3.0
    ) -> None:
        super().__init__(num_classes)
        self.negatives_per_positive = negatives_per_positive

    def forward(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        labels = background_first(matches.labels)
        loss = softmax_cross_entropy(promote(predictions.logits), labels)
        quota = (self.negatives_per_positive * matches.foreground.sum(1)).floor()
        selected = matches.foreground | hardest(loss, matches.background, quota)
        return {"class": torch.where(selected, loss, 0)}

    def link_inverse(self, scores: Tensor) -> None:
        """None: the odds of the best score are those of the posterior divided by the share of
        such background that is kept. Mining keeps it where the score is high, drops it where it is
        low, and draws the line by all the anchors of an image.
        """
