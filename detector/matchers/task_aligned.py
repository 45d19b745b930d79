"""The matcher of TOOD: the anchors at which class and box are good together."""

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
from detector.structures import Anchors, Matches, Predictions, Targets

MIN_INSIDE = 0.01
"""Pixels that an anchor's centre has to lie inside its object, as in the authors' code."""


@MATCHERS.register("task_aligned")
class TaskAlignedMatcher(Matcher):
    """The `candidates` anchors in an object whose alignment t = s^alpha u^beta is largest.

    s is the score of the object's class at the anchor, u the IoU of its predicted box and the
    object. Candidates are centred inside the object; an anchor that several objects claim goes to
    the one its box overlaps most. All others are background; in crowds they are neutral as in
    `Thresholds`. An object that no centre or no predicted box meets has no positive, unless
    `every_object` serves it.

    The quality of a positive is its normalised alignment: t divided by the largest t of its object
    and multiplied by the largest u of it, so that the best anchor is asked for the IoU that was
    reached. Without predictions the anchors stand in for boxes, and all scores are equal.

    Feng et al. 2021, "TOOD: Task-aligned One-stage Object Detection", arXiv 2108.07755, sections
    3.2 and 3.3; alpha 1, beta 6 and 13 candidates are theirs. Their code takes ATSS for the first
    four epochs; this does not.
    """

    uses_predictions = True
    uses_scores = True
    gives_quality = True

    def __init__(
        self,
        *,
        candidates: Annotated[int, AtLeast(1)] = 13,
        alpha: Annotated[float, AtLeast(0)] = 1.0,
        beta: Annotated[float, AtLeast(0)] = 6.0,
        crowd_coverage: Annotated[float, Above(0)] = 0.5,
        every_object: bool = False,
    ) -> None:
        self.candidates, self.alpha, self.beta = candidates, alpha, beta
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
                overlap = iou(shown, boxes[part, None])
                score = scores_of(scores, image.labels[part])
                may_be = image.is_object[part, None] & contains(boxes[part], anchors.boxes)
                value = self.log_alignment(score, overlap)
                found.append(self.candidates_of(torch.where(may_be, value, -torch.inf), overlap))
            value, overlap, near = (torch.cat(parts) for parts in zip(*found, strict=True))
            objects = best_claim(overlap, value > -torch.inf, near, len(anchors.boxes))
            return neutral_in_crowds(
                objects, anchors.boxes, boxes, image.crowd, self.crowd_coverage
            )

        said = [shown] if scores is None else [shown, scores]
        matches = match_each(anchors, targets, match_image, *said, every_object=self.every_object)
        return replace(matches, quality=self.quality(matches, shown, scores))

    def log_alignment(self, score: Tensor, overlap: Tensor) -> Tensor:
        """(...) log t, -inf where the box does not meet the object or what is said is no number.

        The log, as u^6 of a poor box is no longer a number of float32.
        """
        tiny = torch.finfo(overlap.dtype).tiny
        logs = [values.clamp(min=tiny).log() for values in (score.to(overlap.dtype), overlap)]
        value = self.alpha * logs[0] + self.beta * logs[1]
        return torch.where((overlap > 0) & value.isfinite(), value, -torch.inf)

    def candidates_of(self, value: Tensor, overlap: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(m, C) log t, IoU and index into A of the best anchors of objects; from (m, A) tables."""
        top = value.topk(min(self.candidates, value.shape[1]), dim=1)
        return top.values, overlap.gather(1, top.indices), top.indices

    def quality(self, matches: Matches, shown: Tensor, scores: Tensor | None) -> Tensor:
        """(N, A) normalised alignment of the positives, 0 elsewhere."""
        index = matches.objects.clamp(min=0)
        overlap = torch.where(matches.foreground, iou(shown, matches.boxes), 0)
        score = torch.ones_like(overlap)
        if scores is not None:
            score = scores.gather(2, matches.labels.clamp(min=0)[..., None]).squeeze(2)
        value = self.log_alignment(score, overlap)
        num_objects = max(1, matches.targets.labels.shape[1])
        rows = value.new_full((len(value), num_objects), -torch.inf)
        best = rows.scatter_reduce(1, index, value, "amax").gather(1, index)
        most = torch.zeros_like(rows).scatter_reduce(1, index, overlap, "amax").gather(1, index)
        share = torch.where(value > -torch.inf, (value - best).exp(), 0)
        return torch.where(matches.foreground, share * most, 0)


def what_is_said(
    anchors: Anchors, targets: Targets, predictions: Predictions | None
) -> tuple[Tensor, Tensor | None]:
    """(N, A, 4) predicted boxes in the dtype of the targets', and (N, A, K) scores where known.

    Without predictions the boxes are the anchors.
    """
    if predictions is None:
        shown = anchors.boxes.expand(len(targets.labels), -1, -1)
        return shown.to(targets.boxes.dtype), None
    return predictions.boxes.detach().to(targets.boxes.dtype), predictions.scores


def scores_of(scores: Sequence[Tensor], labels: Tensor) -> Tensor:
    """(m, A) scores of the classes `labels` (m,), or (m, 1) ones where no scores are known.

    scores: the (A, K) of the image, or nothing.
    """
    if not scores:
        return torch.ones(len(labels), 1, device=labels.device)
    return scores[0].T[labels.clamp(min=0)]


def contains(boxes: Tensor, anchors: Tensor) -> Tensor:
    """(m, A) bool: the centre of the anchor (A, 4) lies inside the box (m, 4)."""
    center, _ = center_size(anchors)
    margins = [center - boxes[:, None, :2], boxes[:, None, 2:] - center]
    return torch.minimum(*margins).amin(-1) > MIN_INSIDE
