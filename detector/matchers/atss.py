"""The matcher of ATSS: each object sets its own IoU threshold, from the anchors around it."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from detector.boxes import center_size, iou
from detector.config.ranges import Above, AtLeast
from detector.config.registry import MATCHERS
from detector.matchers.base import (
    ImageTargets,
    Matcher,
    match_each,
    neutral_in_crowds,
)
from detector.matchers.claims import best_claim
from detector.matchers.locations import Locations, locations_of, squared_distance
from detector.structures import Anchors, Matches, Predictions, Targets

MIN_INSIDE = 0.01
"""Pixels that an anchor's centre has to lie inside its object, as in the authors' code."""


@MATCHERS.register("atss")
class ATSSMatcher(Matcher):
    """Of the anchors nearest to an object, those that overlap it more than is usual.

    On every level the `candidates` locations whose centre is nearest to the object's are taken,
    with all their anchors; positive are those of an IoU of at least mean + deviation (unbiased) of
    all of them, whose centre lies inside the object. An anchor that several objects claim goes to
    the one it overlaps most. All others are background, there is no neutral band; in crowds they
    are neutral as in `Thresholds`.

    Zhang et al. 2020, "Bridging the Gap Between Anchor-based and Anchor-free Detection", arXiv
    1912.02424, algorithm 1; 9 is theirs; from 3 to 19 the AP is 38.0 to 39.3. They have
    one anchor a location. For more their code takes 9 times as many anchors, which are the
    anchors of 9 locations, and so does this; mmdetection takes 9, which are those of one location.

    An object smaller than the finest stride may hold no centre and then goes without a positive,
    unless `every_object` serves it, see `serve_every_object`.
    """

    def __init__(
        self,
        *,
        candidates: Annotated[int, AtLeast(1)] = 9,
        crowd_coverage: Annotated[float, Above(0)] = 0.5,
        every_object: bool = False,
    ) -> None:
        self.candidates = candidates
        self.crowd_coverage = crowd_coverage
        self.every_object = every_object

    def __call__(
        self, anchors: Anchors, targets: Targets, predictions: Predictions | None = None
    ) -> Matches:
        locations = locations_of(anchors)

        def match_image(image: ImageTargets) -> Tensor:
            near = nearest_anchors(image.boxes, locations, self.candidates)
            objects = adaptive_match(anchors.boxes, image.boxes, image.is_object, near)
            return neutral_in_crowds(
                objects, anchors.boxes, image.boxes, image.crowd, self.crowd_coverage
            )

        return match_each(anchors, targets, match_image, every_object=self.every_object)


def nearest_anchors(boxes: Tensor, locations: Locations, num_locations: int) -> Tensor:
    """(M, C) indices into A: on each level the anchors of the locations nearest to boxes (M, 4)."""
    center, _ = center_size(boxes)
    found, start = [], 0
    for level in locations.centers.split(locations.level_sizes):
        distance = squared_distance(center, level)
        index = distance.topk(min(num_locations, len(level)), largest=False).indices
        found.append(locations.anchors_at(index + start).flatten(1))
        start += len(level)
    return torch.cat(found, 1)


def adaptive_match(anchors: Tensor, boxes: Tensor, is_object: Tensor, near: Tensor) -> Tensor:
    """(A,) index into M or BACKGROUND for the anchors (A, 4) of one image.

    boxes (M, 4); is_object (M,) bool: may be a positive; near (M, C): candidates of each object.
    """
    candidates = anchors[near]
    overlaps = iou(candidates, boxes[:, None])
    center, _ = center_size(candidates)
    margins = torch.cat([center - boxes[:, None, :2], boxes[:, None, 2:] - center], -1)
    # Equal overlaps have to reach their mean, which is rounded.
    least = _mean_and_deviation(overlaps) - 1e-6
    inside = margins.amin(-1) > MIN_INSIDE
    is_positive = is_object[:, None] & inside & (overlaps >= least[:, None])
    return best_claim(overlaps, is_positive, near, len(anchors))


def _mean_and_deviation(overlaps: Tensor) -> Tensor:
    """(M,) threshold of the overlaps (M, C) of an object's candidates."""
    correction = min(1, overlaps.shape[1] - 1)  # one candidate has no deviation
    return overlaps.mean(1) + overlaps.std(1, correction=correction)
