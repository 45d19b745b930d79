"""From what the model says to detections: top-k, threshold, boxes, NMS, the best of an image.

Up to NMS all images of a batch are computed together, in shapes that do not depend on what is
found: a GPU is waited for by the NMS and by whoever reads the result, not once for each image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import batched_nms, nms

from detector.boxes import clip
from detector.config.model import PostprocessConfig
from detector.errors import DivergedError
from detector.layouts import Layout
from detector.structures import Batch, DetectionTensors, Predictions

SCORES_AT_A_TIME = 2**26
"""Scores in float32 that are held together, 256 MB; images are ranked in groups of as many."""

MANY_CLASSES = 16
"""From as many on, a level's best anchors are found first and its best pairs among these."""

FIRST = 512
"""Candidates of an image that NMS sees first; the others only where too few of these stay."""

NMS_AT_A_TIME = 2**12
"""Boxes of one NMS, whose time and memory grow with their square."""

FURTHEST = 2.0**20
"""Pixels; coordinates beyond are as good as there for an overlap, and cost no digits of others."""


@dataclass(frozen=True)
class PackedDetections:
    """The detections of N images in one shape, on the device of the model.

    boxes: (N, S, 4) in pixels of the files. scores, labels: (N, S), by falling score. counts: (N,)
    int64, how many of the S places are detections, the first ones; -1 where scores or boxes of an
    image are not finite.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    counts: Tensor

    def cpu(self) -> PackedDetections:
        """A copy that the host can read; it is waited for once, however many images there are."""
        return PackedDetections(
            self.boxes.cpu(), self.scores.cpu(), self.labels.cpu(), self.counts.cpu()
        )

    def unpack(self, image_ids: Sequence[int]) -> list[DetectionTensors]:
        """Those of each image. Raises DivergedError, with the image's id, where one's are not
        finite: no rank can be given to such a detection, and leaving it out would hide a broken
        model."""
        found = []
        for i, count in enumerate(self.counts.tolist()):
            if count < 0:
                raise DivergedError(
                    f"image {image_ids[i]}: scores or boxes of the model are not finite"
                )
            fields = (self.boxes[i, :count], self.scores[i, :count], self.labels[i, :count])
            found.append(DetectionTensors(*fields))
        return found


def postprocess(
    predictions: Predictions, layout: Layout, batch: Batch, config: PostprocessConfig
) -> list[DetectionTensors]:
    """The detections of each image, in pixels of its file. To be called under `torch.no_grad`.

    Raises DivergedError where scores or boxes are not finite.
    """
    return pack(predictions, layout, batch, config).unpack(batch.image_ids)


def pack(
    predictions: Predictions, layout: Layout, batch: Batch, config: PostprocessConfig
) -> PackedDetections:
    """The detections of all images, not yet read: a GPU may still be at work on them."""
    scores, place = candidates(predictions, layout, config)
    labels, index = place % layout.num_classes, place // layout.num_classes
    numbers = predictions.coder.box_layout.numbers(take(predictions.deltas, index))
    boxes = predictions.coder.decode(numbers, predictions.anchors.boxes[index])
    # Not `scores > threshold`, which would drop what is not a number.
    threshold = config.score_threshold
    assert not isinstance(threshold, str), "to be resolved when a run is set up"
    is_there = (
        ~(scores <= threshold) if threshold > 0 else torch.ones_like(scores, dtype=torch.bool)
    )
    is_finite = torch.isfinite(scores) & torch.isfinite(boxes).all(-1)
    is_sound = (is_finite | ~is_there).all(1)

    if config.clip == "before_nms":
        boxes = clip(boxes, batch.sizes[:, None])
    if config.drop_empty:
        is_there &= has_area(boxes)
    keep = suppress(boxes, scores, labels, is_there, config)
    boxes, scores, labels, counts = front(boxes, scores, labels, keep, config.detections_per_image)
    if config.clip == "after_nms":
        boxes = clip(boxes, batch.sizes[:, None])
        if config.drop_empty:
            keep = torch.arange(boxes.shape[1], device=boxes.device) < counts[:, None]
            keep &= has_area(boxes)
            boxes, scores, labels, counts = front(boxes, scores, labels, keep, boxes.shape[1])
    scale = batch.scales.flip(-1).repeat(1, 2).to(boxes.dtype)
    return PackedDetections(
        boxes / scale[:, None], scores, labels, torch.where(is_sound, counts, -1)
    )


def candidates(
    predictions: Predictions, layout: Layout, config: PostprocessConfig
) -> tuple[Tensor, Tensor]:
    """(N, P) scores, and their (N, P) positions in the flat (A * K) scores of an image.

    The best `topk_per_level` pairs of anchor and class of each level (or all classes of as many
    anchors), by falling score, then by position. A score that is not a number counts as the
    highest.
    """
    logits = predictions.logits
    num_anchors, num_classes = logits.shape[1], layout.num_classes
    at_a_time = max(1, SCORES_AT_A_TIME // (num_anchors * num_classes))
    parts = []
    for group in logits.split(at_a_time):
        scores = layout.scores(group)
        chosen, offset = [], 0
        for level in scores.split(predictions.anchors.level_sizes, 1):
            chosen.append(best_of(level, config) + offset)
            offset += level.shape[1] * num_classes
        order = torch.cat(chosen, 1).sort(1).values
        values, rank = scores.flatten(1).gather(1, order).sort(dim=1, stable=True, descending=True)
        parts.append((values, order.gather(1, rank)))
    values, places = (torch.cat(each) for each in zip(*parts, strict=True))
    return values, places


def best_of(level: Tensor, config: PostprocessConfig) -> Tensor:
    """(N, P_l) positions of the best in the flat scores (N, A_l, K) of a level, in any order."""
    num_anchors, num_classes = level.shape[1:]
    top, every_class = config.topk_per_level, torch.arange(num_classes, device=level.device)
    if config.topk_of == "pairs":
        count = min(top, num_anchors * num_classes)
        if num_classes < MANY_CLASSES or num_anchors <= top:
            return level.flatten(1).topk(count, 1, sorted=False).indices
        # A pair among the best is of an anchor whose best class is: else as many are better.
        anchors = level.amax(2).topk(top, 1, sorted=False).indices
        best = take(level, anchors).flatten(1).topk(count, 1, sorted=False).indices
        return anchors.gather(1, best // num_classes) * num_classes + best % num_classes
    anchors = level.amax(2).topk(min(top, num_anchors), 1, sorted=False).indices
    return (anchors[..., None] * num_classes + every_class).flatten(1)


def suppress(
    boxes: Tensor, scores: Tensor, labels: Tensor, is_there: Tensor, config: PostprocessConfig
) -> Tensor:
    """(N, P) whether a candidate stays after NMS; at least as far as an image shows any.

    Of two boxes (N, P, 4) of a class with an IoU above `nms_iou` the second goes. What stays of the
    best does not depend on the others, so these are looked at only in images where too few stay.
    """
    shown = config.detections_per_image
    first = max(FIRST, 4 * shown)
    at_a_time = max(1, NMS_AT_A_TIME // first)
    groups = zip(*(x[:, :first].split(at_a_time) for x in (boxes, labels, is_there)), strict=True)
    keep = torch.cat([suppress_together(*group, limit=config.nms_iou) for group in groups])
    if boxes.shape[1] == keep.shape[1]:
        return keep
    is_short = (keep.sum(1) < shown) & is_there[:, first:].any(1)
    keep = torch.cat([keep, torch.zeros_like(is_there[:, first:])], 1)
    for i in is_short.nonzero().flatten().tolist():
        there = is_there[i].nonzero().flatten()
        exact, own = boxes[i, there].double(), scores[i, there].double()
        keep[i] = False
        keep[i, there[batched_nms(exact, own, labels[i, there], config.nms_iou)]] = True
    return keep


def suppress_together(boxes: Tensor, labels: Tensor, is_there: Tensor, limit: float) -> Tensor:
    """(N, P) whether a candidate stays, by one NMS in which classes and images lie apart.

    In float64, since moving them apart adds large numbers to coordinates.
    """
    exact = boxes.double().nan_to_num().clamp(-FURTHEST, FURTHEST)
    exact = exact - exact.amin()
    # What is not there is one box in a class of its own, so that the first of them ends the others.
    nothing = labels.amax() + 1
    small = (torch.arange(4, device=boxes.device) // 2).to(exact.dtype)  # (0, 0, 1, 1)
    exact = torch.where(is_there[..., None], exact, small)
    images = torch.arange(len(boxes), device=boxes.device)[:, None]
    group = images * (nothing + 1) + torch.where(is_there, labels, nothing)
    exact = exact + (group * (exact.amax() + 1))[..., None]
    # By rank, not by score, which several may share.
    rank = torch.arange(labels.shape[1], device=boxes.device, dtype=exact.dtype)
    keep = torch.zeros_like(is_there).flatten()
    keep[nms(exact.flatten(0, 1), -rank.expand_as(labels).flatten(), limit)] = True
    return keep.view_as(is_there) & is_there


def front(
    boxes: Tensor, scores: Tensor, labels: Tensor, keep: Tensor, shown: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The first `shown` that are kept of each image, moved to the front, and how many (N,)."""
    order = (~keep).to(torch.uint8).sort(dim=1, stable=True).indices[:, :shown]
    counts = keep.sum(1).clamp(max=shown)
    return take(boxes, order), scores.gather(1, order), labels.gather(1, order), counts


def take(values: Tensor, index: Tensor) -> Tensor:
    """(N, P, C) of values (N, A, C) at index (N, P)."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))


def has_area(boxes: Tensor) -> Tensor:
    """(N, P) whether x1 < x2 and y1 < y2."""
    return (boxes[..., 2:] > boxes[..., :2]).all(-1)
