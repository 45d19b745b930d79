"""Losses of the overlap of decoded boxes: the four numbers of a box are judged together.

They do not change when prediction and object are scaled alike, so objects of all sizes count alike.
"""

from __future__ import annotations

from typing import Annotated, Literal

from torch import Tensor

from detector.box_losses.base import BoxLoss, on_positives
from detector.boxes import ciou, diou, eiou, giou, iou
from detector.config.ranges import Above
from detector.config.registry import BOX_LOSSES
from detector.structures import Matches, Predictions

MIN_IOU = 1e-6
"""Least IoU that `log` sees, as in mmdetection: a box that misses costs 13.8, not infinity."""


@BOX_LOSSES.register("iou")
class IoULoss(BoxLoss):
    """-log IoU, 1 - IoU or 1 - IoU^2 of the decoded box and its object.

    form: "log" is the IoU loss of Yu et al. 2016, "UnitBox", arXiv 1608.01471; "linear" its first
    order; "square" is that of Ge et al. 2021, "YOLOX", arXiv 2107.08430, in their code.
    A predicted box that misses its object gets no gradient at all: what `giou` and its successors
    are for.
    """

    def __init__(self, *, form: Literal["log", "linear", "square"] = "log") -> None:
        super().__init__()
        self.form = form

    def forward(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        overlap = iou(predictions.boxes, matches.boxes)
        if self.form == "log":
            loss = -overlap.clamp(min=MIN_IOU).log()
        else:
            loss = 1 - (overlap if self.form == "linear" else overlap**2)
        return {"box": on_positives(loss, matches)}


@BOX_LOSSES.register("giou")
class GIoULoss(BoxLoss):
    """1 - GIoU of the decoded box and its object.

    Rezatofighi et al. 2019, arXiv 1902.09630, algorithm 1. A box that misses is first made larger,
    until it touches.
    """

    def forward(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        return {"box": on_positives(1 - giou(predictions.boxes, matches.boxes), matches)}


@BOX_LOSSES.register("diou")
class DIoULoss(BoxLoss):
    """1 - DIoU of the decoded box and its object: a box that misses is moved.

    Zheng et al. 2020, "Distance-IoU Loss", arXiv 1911.08287, equation 7.
    """

    def forward(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        return {"box": on_positives(1 - diou(predictions.boxes, matches.boxes), matches)}


@BOX_LOSSES.register("ciou")
class CIoULoss(BoxLoss):
    """1 - CIoU of the decoded box and its object: DIoU and the difference of aspect ratios.

    Zheng et al. 2020, "Distance-IoU Loss", arXiv 1911.08287, equations 8 to 11. Their alpha is a
    trade-off and has no gradient, and it counts at every overlap, as in torchvision and detectron2;
    mmdetection differentiated it up to 2.14 and later drops it where the IoU is at most 0.5.
    """

    def forward(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        return {"box": on_positives(1 - ciou(predictions.boxes, matches.boxes), matches)}


@BOX_LOSSES.register("eiou")
class EIoULoss(BoxLoss):
    """1 - EIoU of the decoded box and its object: DIoU and the differences of both sides.

    focal_gamma: null, or the power of the IoU that multiplies the loss of each box; theirs is 0.5.
    Zhang et al. 2021, "Focal and Efficient IOU Loss", arXiv 2101.08158,
    the losses EIOU and Focal-EIOU.

    Whether that factor has a gradient they do not say. Here it has none: differentiated, it would
    reward a poor box for overlapping still less, since the product is 0 where boxes are disjoint.
    So it only shifts weight to the better boxes, and one that misses its object has no loss.
    """

    def __init__(self, *, focal_gamma: Annotated[float | None, Above(0)] = None) -> None:
        super().__init__()
        self.focal_gamma = focal_gamma

    def forward(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        boxes = predictions.boxes
        loss = 1 - eiou(boxes, matches.boxes)
        if self.focal_gamma is not None:
            loss = iou(boxes.detach(), matches.boxes) ** self.focal_gamma * loss
        return {"box": on_positives(loss, matches)}
