"""YOLO v3's class loss: is there an object, and if so which, each by binary cross entropy."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from detector.boxes import iou
from detector.config.ranges import AtLeast, Between
from detector.config.registry import LOSSES
from detector.layouts import Objectness
from detector.losses.base import ClassLoss
from detector.losses.quality_focal import box_quality, soft_cross_entropy
from detector.structures import Matches, Predictions, Targets, promote

TABLE_SIZE = 2**23
"""Pairs of predicted box and object that are compared at a time: 32 MiB in float32."""


def best_iou(boxes: Tensor, targets: Targets) -> Tensor:
    """(N, A) the largest IoU of each box (N, A, 4) with an object of its image; 0 without any.

    Objects are taken a few at a time: the (N, A, M) table of 16 crowded images would not fit.
    """
    best = boxes.new_zeros(boxes.shape[:2])
    is_object = (targets.labels >= 0) & ~targets.crowd
    chunk = max(1, TABLE_SIZE // max(1, best.numel()))
    for start in range(0, targets.labels.shape[1], chunk):
        part = slice(start, start + chunk)
        table = iou(boxes[:, :, None], targets.boxes[:, None, part].to(boxes.dtype))
        best = best.maximum(torch.where(is_object[:, None, part], table, 0).amax(-1))
    return best


@LOSSES.register("yolo_objectness")
class YOLOObjectnessLoss(ClassLoss):
    """Binary cross entropy of objectness on all anchors, and of the K classes on positives.

    The positives are those of the configured matcher and its neutral anchors stay neutral, so that
    this can be compared with the other losses.

    ignore_iou: an anchor of the background whose predicted box has a larger IoU than this with any
        object, of whatever class, is left out; null: none is. Crowds are no objects.
    object_target, class_target: what a positive and its class are to say: "hard", 1, or "iou", the
        IoU of the predicted box, which has no slope.
    lambda_obj, lambda_noobj: weights of the objectness of positives and of background.

    Redmon and Farhadi 2018, "YOLOv3", arXiv 1804.02767, section 2.1: both targets hard;
    ignore_iou 0.7 is that of their code, the paper says 0.5. YOLO v2 has object_target "iou",
    lambda_obj 5 and ignore_iou 0.6 (and a softmax over classes, which is not offered). YOLOX (Ge et
    al. 2021, arXiv 2107.08430) has class_target "iou" and ignore_iou null.
    """

    layout_class = Objectness
    asks_for_quality = True

    def __init__(
        self,
        num_classes: int,
        *,
        lambda_obj: Annotated[float, AtLeast(0)] = 1.0,
        lambda_noobj: Annotated[float, AtLeast(0)] = 1.0,
        ignore_iou: Annotated[float | None, Between(0, 1)] = 0.7,
        object_target: Literal["hard", "iou"] = "hard",
        class_target: Literal["hard", "iou"] = "hard",
    ) -> None:
        super().__init__(num_classes)
        self.lambda_obj = lambda_obj
        self.lambda_noobj = lambda_noobj
        self.ignore_iou = ignore_iou
        self.object_target = object_target
        self.class_target = class_target

    def forward(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        logits = promote(predictions.logits)
        is_object = matches.foreground
        quality = box_quality(predictions, matches, like=logits)
        hard = torch.ones_like(quality)
        present = quality if self.object_target == "iou" else hard
        certain = quality if self.class_target == "iou" else hard
        classes = torch.where(matches.one_hot(self.num_classes), certain[..., None], 0)
        no_object = soft_cross_entropy(logits[..., 0], torch.zeros_like(quality))
        positive = soft_cross_entropy(logits[..., 0], present)
        negative = self.background(predictions, matches)
        return {
            "object": torch.where(is_object, self.lambda_obj * positive, 0),
            "no_object": torch.where(negative, self.lambda_noobj * no_object, 0),
            "class": torch.where(
                is_object[..., None], soft_cross_entropy(logits[..., 1:], classes), 0
            ),
        }

    def background(self, predictions: Predictions, matches: Matches) -> Tensor:
        """(N, A) bool: the anchors that are to say there is no object."""
        if self.ignore_iou is None:
            return matches.background
        near = best_iou(predictions.boxes.detach(), matches.targets) > self.ignore_iou
        return matches.background & ~near

    def link_inverse(self, scores: Tensor) -> Tensor | None:
        """The scores: with hard targets and equal weights this is cross entropy, which is proper.

        They speak of the anchors that are not left out. None for other options: the weights change
        the odds of objectness alone, which the product of it and a class does not tell.
        """
        is_hard = (self.object_target, self.class_target) == ("hard", "hard")
        return scores if is_hard and self.lambda_obj == self.lambda_noobj else None
