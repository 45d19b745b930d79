"""The matcher of RetinaNet: two IoU thresholds with a neutral band between."""

from __future__ import annotations

from typing import Literal

from detector.config.registry import MATCHERS
from detector.matchers.base import Matcher, Thresholds, match_images
from detector.structures import Anchors, Matches, Predictions, Targets


@MATCHERS.register("retinanet")
class RetinaNetMatcher(Matcher):
    """Positive from IoU 0.5, background below 0.4, neutral between; options as in `Thresholds`.

    Lin et al. 2017, arXiv 1708.02002, section 4. Whether an object without a good anchor gets its
    best one is not said there; the authors' code (Detectron) does so, and so does the default. Two
    objects that share their best anchor still leave one without, which `every_object` serves, see
    `serve_every_object`.
    """

    def __init__(
        self,
        *,
        foreground_iou: float = 0.5,
        background_iou: float = 0.4,
        force: Literal["object", "anchor", "none"] = "object",
        crowd_coverage: float = 0.5,
        every_object: bool = False,
    ) -> None:
        self.thresholds = Thresholds(foreground_iou, background_iou, force, crowd_coverage)
        self.every_object = every_object

    def __call__(
        self, anchors: Anchors, targets: Targets, predictions: Predictions | None = None
    ) -> Matches:
        return match_images(anchors, targets, self.thresholds, every_object=self.every_object)
