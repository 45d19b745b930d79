"""YOLO's sum of squares on matched anchors: the background is weighted down, nothing else."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from detector.boxes import iou
from detector.config.ranges import AtLeast
from detector.config.registry import LOSSES
from detector.layouts import Objectness
from detector.losses.base import ClassLoss
from detector.structures import Matches, Predictions, promote


@LOSSES.register("yolo")
class YOLOLoss(ClassLoss):
    """Squared errors of confidence and class probabilities: terms 3 to 5 of YOLO v1.

    The controlled form: the positives are those of the configured matcher and its neutral anchors
    stay neutral, so that this can be compared with the other losses; terms 1 and 2, coordinates,
    are the box loss `yolo`. Confidence is to equal the IoU of the predicted box on a positive
    (`object`) and 0 elsewhere (`no_object`, weighted by `lambda_noobj`); class probabilities are
    fitted on positives only. Outputs pass a sigmoid, which v1's do not: squared errors of linear
    outputs diverge at 100,000 anchors.

    Redmon et al. 2016, "You Only Look Once", arXiv 1506.02640, equation 3; lambda_noobj 0.5 was
    chosen there for 98 boxes an image.
    """

    layout_class = Objectness

    def __init__(
        self, num_classes: int, *, lambda_noobj: Annotated[float, AtLeast(0)] = 0.5
    ) -> None:
        super().__init__(num_classes)
        self.lambda_noobj = lambda_noobj

    def forward(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        return squared_errors(predictions, matches, self.num_classes, self.lambda_noobj)

    def link_inverse(self, scores: Tensor) -> None:
        """None: for the posterior eta of an object the best confidence is

            E[IoU] eta / (eta + lambda_noobj (1 - eta)),

        so it also says how well boxes fit, which a score does not tell apart; and a score is this
        times a class probability, while lambda_noobj bends the first factor alone.
        """


def squared_errors(
    predictions: Predictions, matches: Matches, num_classes: int, lambda_noobj: float
) -> dict[str, Tensor]:
    """Terms 3 to 5 of YOLO v1: "object" and "no_object" (N, A), "class" (N, A, K)."""
    probabilities = promote(predictions.logits).sigmoid()
    confidence, classes = probabilities[..., 0], probabilities[..., 1:]
    quality = iou(predictions.boxes.detach(), matches.boxes)
    one_hot = matches.one_hot(num_classes).to(classes.dtype)
    is_object = matches.foreground
    return {
        "object": torch.where(is_object, (confidence - quality) ** 2, 0),
        "no_object": torch.where(matches.background, lambda_noobj * confidence**2, 0),
        "class": torch.where(is_object[..., None], (classes - one_hot) ** 2, 0),
    }
