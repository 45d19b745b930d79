"""The matcher of SSD: one IoU threshold, no neutral band, no object without an anchor."""

from __future__ import annotations

from detector.config.registry import MATCHERS
from detector.matchers.base import Matcher, Thresholds, match_images
from detector.structures import Anchors, Matches, Predictions, Targets


@MATCHERS.register("ssd")
class SSDMatcher(Matcher):
    """Positive from `foreground_iou`, else background; each object's best anchor is given to it.

    Liu et al. 2016, "SSD", arXiv 1512.02325, "Matching strategy", for RetinaNet's anchors. Only
    crowds make an anchor neutral, as in `Thresholds`. Two objects that share their best anchor
    leave one without, which `every_object` serves, see `serve_every_object`.
    """

    def __init__(
        self,
        *,
        foreground_iou: float = 0.5,
        crowd_coverage: float = 0.5,
        every_object: bool = False,
    ) -> None:
        self.thresholds = Thresholds(foreground_iou, foreground_iou, "object", crowd_coverage)
        self.every_object = every_object

    def __call__(
        self, anchors: Anchors, targets: Targets, predictions: Predictions | None = None
    ) -> Matches:
        return match_images(anchors, targets, self.thresholds, every_object=self.every_object)
