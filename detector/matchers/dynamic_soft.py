"""The matcher of RTMDet: the cheapest anchors of each object, as many as its boxes are good for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
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
    slices,
)
from detector.matchers.claims import best_claim
from detector.matchers.locations import squared_distance
from detector.matchers.task_aligned import contains, scores_of, what_is_said
from detector.structures import Anchors, Matches, Predictions, Targets

LEAST = 1e-7
"""Smallest IoU, score and 1 - score that a log sees, as in the authors' code."""


@MATCHERS.register("dynamic_soft")
class DynamicSoftMatcher(Matcher):
    """Each object takes the k anchors of least cost, k the sum of its best IoUs.

    The cost of an anchor for an object is that of the classes, + `overlap_weight` times -log u, +
    10^(d - `center_radius`): u is the IoU of the predicted box and the object, d the distance of
    the centres of anchor and object in strides. The cost of the classes is the sum over them of the
    cross entropy of score s and soft label y, times (y - s)^2, where y is u for the object's class
    and 0 for all others. So a poor box at a place with a high score is dear too.

    Candidates are the anchors centred inside the object; k is the sum of the IoUs of the
    `candidates` best boxes among them, cut to a whole number, at least 1. An anchor that several
    objects claim goes to the one it is cheapest for. All others are background; in crowds they are
    neutral as in `Thresholds`. An object that holds no centre has no positive, unless
    `every_object` serves it. The quality of a positive is u. Without predictions the anchors stand
    in for boxes, and the classes cost nothing.

    Lyu et al. 2022, "RTMDet", arXiv 2212.07784, section 3.3, equations 1 to 4; weights of 1, 3 and
    1, the radius 3 and 13 candidates are theirs. In mmdetection an anchor is a candidate of all
    objects once it is centred in one of them, which gives an object without a centre the anchors
    of its neighbours.
    """

    uses_predictions = True
    uses_scores = True
    gives_quality = True

    def __init__(
        self,
        *,
        candidates: Annotated[int, AtLeast(1)] = 13,
        overlap_weight: Annotated[float, AtLeast(0)] = 3.0,
        center_radius: float = 3.0,
        crowd_coverage: Annotated[float, Above(0)] = 0.5,
        every_object: bool = False,
    ) -> None:
        self.candidates = candidates
        self.overlap_weight, self.center_radius = overlap_weight, center_radius
        self.crowd_coverage = crowd_coverage
        self.every_object = every_object

    @torch.no_grad()
    def __call__(
        self, anchors: Anchors, targets: Targets, predictions: Predictions | None = None
    ) -> Matches:
        shown, scores = what_is_said(anchors, targets, predictions)

        def match_image(image: ImageTargets, shown: Tensor, *scores: Tensor) -> Tensor:
            boxes = image.boxes
            found: list[tuple[Tensor, Tensor, Tensor]] = []
            for _, part in slices(boxes, len(anchors.boxes)):
                may_be = image.is_object[part, None] & contains(boxes[part], anchors.boxes)
                overlap = torch.where(may_be, iou(shown, boxes[part, None]), 0)
                cost = self.cost(image.labels[part], boxes[part], overlap, anchors, scores)
                is_fit = may_be & cost.isfinite()
                found.append(self.cheapest(torch.where(is_fit, cost, torch.inf), overlap))
            cost, claims, near = (torch.cat(parts) for parts in zip(*found, strict=True))
            objects = best_claim(-cost, claims, near, len(anchors.boxes))
            return neutral_in_crowds(
                objects, anchors.boxes, boxes, image.crowd, self.crowd_coverage
            )

        said = [shown] if scores is None else [shown, scores]
        matches = match_each(anchors, targets, match_image, *said, every_object=self.every_object)
        quality = torch.where(matches.foreground, iou(shown, matches.boxes), 0)
        return replace(matches, quality=quality.nan_to_num(0.0))

    def cost(
        self,
        labels: Tensor,
        boxes: Tensor,
        overlap: Tensor,
        anchors: Anchors,
        scores: Sequence[Tensor],
    ) -> Tensor:
        """(m, A) cost of each anchor for objects of these labels (m,) and boxes (m, 4).

        scores: the (A, K) of the image, or nothing.
        """
        cost = -self.overlap_weight * overlap.clamp(min=LEAST).log()
        centers, _ = center_size(anchors.boxes)
        distance = squared_distance(center_size(boxes)[0], centers).sqrt() / anchors.strides
        # Beyond 30 strides the cost is a number still, and no candidate is dearer than that.
        cost = cost + 10.0 ** (distance - self.center_radius).clamp(max=30)
        if not scores:
            return cost
        said, own = scores[0].to(cost.dtype), scores_of(scores, labels).to(cost.dtype)
        # All classes as if they were not the object's, then its own: not a table (m, A, K).
        others = soft_label_cost(said, torch.zeros_like(said)).sum(-1)
        own_cost = soft_label_cost(own, overlap) - soft_label_cost(own, torch.zeros_like(own))
        return cost + others + own_cost

    def cheapest(self, cost: Tensor, overlap: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(m, C) cost, claim and index into A of the best anchors of objects; from (m, A) tables.

        overlap: 0 where an anchor is no candidate.
        """
        num = min(self.candidates, cost.shape[1])
        wanted = overlap.nan_to_num(0.0).topk(num, dim=1).values.sum(1).int().clamp(min=1)
        top = cost.topk(num, dim=1, largest=False)
        rank = torch.arange(num, device=cost.device)
        return top.values, (rank < wanted[:, None]) & top.values.isfinite(), top.indices


def soft_label_cost(score: Tensor, label: Tensor) -> Tensor:
    """(...) cross entropy of a score and a label in [0, 1], times the square of their distance."""
    p = score.clamp(LEAST, 1 - LEAST)
    return -(label * p.log() + (1 - label) * (-p).log1p()) * (label - score) ** 2
