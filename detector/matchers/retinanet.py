"""The matcher of RetinaNet: two IoU thresholds with a neutral band between."""

from __future__ import annotations

from typing import Literal

import torch

from detector.matchers.base import Matcher, matches_from_objects, threshold_match
from detector.registry import MATCHERS
from detector.schema import require
from detector.structures import BACKGROUND, Anchors, Matches, Predictions, Targets


@MATCHERS.register("retinanet")
class RetinaNetMatcher(Matcher):
    """Positive from `foreground_iou`, background below `background_iou`, neutral between.

    force: what an anchor does that some object overlaps more than any other anchor, but too little:
    "object" gives it to that object, so that none goes without (mmdetection); "anchor" makes it
    positive for the object it overlaps most itself (torchvision, detectron2); "none" leaves it
    (Lin et al. 2017, arXiv 1708.02002, section 4). An object with IoU 0 forces nothing.

    Raises ConfigError where background_iou > foreground_iou or either leaves [0, 1].
    """

    def __init__(
        self,
        *,
        foreground_iou: float = 0.5,
        background_iou: float = 0.4,
        force: Literal["object", "anchor", "none"] = "object",
        crowd_coverage: float = 0.5,
    ) -> None:
        require(
            0 < foreground_iou <= 1, f"foreground_iou: {foreground_iou} given, (0, 1] is allowed"
        )
        require(
            0 <= background_iou <= foreground_iou,
            f"background_iou: {background_iou} given, 0 to {foreground_iou} is allowed",
        )
        require(crowd_coverage > 0, f"crowd_coverage: {crowd_coverage} given, above 0 is needed")
        self.options = {
            "foreground_iou": foreground_iou,
            "background_iou": background_iou,
            "force": force,
            "crowd_coverage": crowd_coverage,
        }

    def __call__(
        self, anchors: Anchors, targets: Targets, predictions: Predictions | None = None
    ) -> Matches:
        num_images, num_objects = targets.labels.shape
        shape = (num_images, len(anchors.boxes))
        if num_objects == 0:
            objects = torch.full(shape, BACKGROUND, device=anchors.boxes.device)
            return matches_from_objects(objects, anchors, targets)
        present = targets.labels != BACKGROUND
        objects = torch.stack(
            [
                threshold_match(
                    anchors.boxes,
                    targets.boxes[i],
                    present[i] & ~targets.crowd[i],
                    targets.crowd[i],
                    **self.options,
                )
                for i in range(num_images)
            ]
        )
        return matches_from_objects(objects, anchors, targets)
