"""Cross entropy of one choice among background and the classes: they compete."""

from __future__ import annotations

import torch
from torch import Tensor

from detector.config.registry import LOSSES
from detector.layouts import Softmax
from detector.losses.base import ClassLoss
from detector.structures import Matches, Predictions, promote


def softmax_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """(...) -log p_t of logits (..., C) and labels (...) int64 in [0, C); finite for finite logits.

    The classes come last, unlike in `torch.nn.functional.cross_entropy`, where they come second.
    """
    return -logits.log_softmax(-1).gather(-1, labels[..., None])[..., 0]


def background_first(labels: Tensor) -> Tensor:
    """(...) int64, where the `Softmax` layout has the labels (...) of `Matches`.

    IGNORE becomes background too, so that it may be an index; its loss is to be dropped.
    """
    return (labels + 1).clamp(min=0)


@LOSSES.register("softmax_cross_entropy")
class SoftmaxCrossEntropyLoss(ClassLoss):
    """Softmax cross entropy over background and K classes, over all anchors.

    What SSD (Liu et al. 2016, arXiv 1512.02325, equation 3) has before its mining, and the second
    stage of R-CNNs has on its samples: exactly one answer is right, so raising one class lowers the
    others. Without sampling some 100,000 easy backgrounds of an image outweigh its objects, as in
    `cross_entropy`; the layout's bias gives the classes `prior` together, each of them prior / K,
    so a positive begins at log(K / prior) and the background at a Kth of that of K sigmoids.
    """

    layout_class = Softmax

    def forward(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        loss = softmax_cross_entropy(promote(predictions.logits), background_first(matches.labels))
        return {"class": torch.where(matches.valid, loss, 0)}

    def link_inverse(self, scores: Tensor) -> Tensor:
        """The scores: cross entropy is proper, its best score is the posterior."""
        return scores
