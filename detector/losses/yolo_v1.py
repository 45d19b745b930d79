"""YOLO v1 as published, as far as a pyramid with anchors can be: the loss, not a detector."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from detector.config.ranges import AtLeast
from detector.config.registry import LOSSES
from detector.layouts import Objectness
from detector.losses.base import ClassLoss
from detector.losses.yolo import squared_errors
from detector.structures import Matches, Predictions


@LOSSES.register("yolo_v1")
class YOLOv1Loss(ClassLoss):
    """Squared errors of confidence and class probabilities: terms 3 to 5 of YOLO v1.

    The arithmetic is that of `yolo`. What is published comes with `loss=yolo_v1`, whose file also
    chooses the matcher `yolo_cell` (one responsible predictor an object, that of the best current
    IoU in the object's cell, and no neutral zone around it), the box loss `yolo` (terms 1 and 2)
    and a sum that is divided by the images (`normalizer: images`; darknet divides its rate by the
    batch). The confidence of the responsible predictor is to equal its current IoU, without a
    gradient through it, every other one's is to be 0, and classes are fitted where it is.

    Redmon et al. 2016, "You Only Look Once", arXiv 1506.02640, equation 3. What differs: outputs
    pass a sigmoid, as squared errors of linear ones diverge at 100,000 anchors; each anchor has
    classes of its own, where v1 has one set for a cell, fitted once for the cell's object; objects
    that share a cell take an anchor each, where v1 drops all but one. lambda_noobj 0.5 was chosen
    for 98 boxes an image; at 1,000 background anchors an object it weighs the background too high.
    Logged values are those of equation 3, not comparable with darknet's, which prints the squares
    of its gradients.
    """

    layout_class = Objectness

    def __init__(
        self, num_classes: int, *, lambda_noobj: Annotated[float, AtLeast(0)] = 0.5
    ) -> None:
        super().__init__(num_classes)
        self.lambda_noobj = lambda_noobj

    def forward(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        return squared_errors(predictions, matches, self.num_classes, self.lambda_noobj)
