"""From what the model says to detections: top-k, threshold, boxes, NMS, the best of an image."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from detector.boxes import clip
from detector.config.model import PostprocessConfig
from detector.errors import DivergedError
from detector.layouts import Layout
from detector.structures import Batch, DetectionTensors, Predictions


def postprocess(
    predictions: Predictions, layout: Layout, batch: Batch, config: PostprocessConfig
) -> list[DetectionTensors]:
    """The detections of each image, in pixels of its file. To be called under `torch.no_grad`.

    Raises DivergedError, with the image's id, where a score or a chosen box is not finite: no rank
    can be given to such a detection, and leaving it out would hide a broken model.
    """
    found = []
    for i, image_id in enumerate(batch.image_ids):
        scores = layout.scores(predictions.logits[i])
        chosen = choose(scores, predictions.anchors.level_sizes, config)
        scores, labels = scores.flatten()[chosen], chosen % layout.num_classes
        index = chosen // layout.num_classes
        numbers = predictions.coder.box_layout.numbers(predictions.deltas[i, index])
        boxes = predictions.coder.decode(numbers, predictions.anchors.boxes[index])
        if not bool(torch.isfinite(scores).all() & torch.isfinite(boxes).all()):
            raise DivergedError(f"image {image_id}: scores or boxes of the model are not finite")
        if config.clip == "before_nms":
            boxes = clip(boxes, batch.sizes[i])
        keep = suppress(boxes, scores, labels, config)
        boxes = boxes[keep]
        if config.clip == "after_nms":
            boxes = clip(boxes, batch.sizes[i])
            stay = has_area(boxes) if config.drop_empty else slice(None)
            boxes, keep = boxes[stay], keep[stay]
        scale = batch.scales[i].flip(-1).repeat(2).to(boxes.dtype)
        found.append(DetectionTensors(boxes / scale, scores[keep], labels[keep]))
    return found


def choose(scores: Tensor, level_sizes: tuple[int, ...], config: PostprocessConfig) -> Tensor:
    """(P,) positions in the flat (A * K) scores, sorted by falling score, then by position.

    The best `topk_per_level` pairs of anchor and class of each level (or all classes of as many
    anchors), of those above the threshold (with threshold 0 of all). A score that is not a number
    counts as the highest.
    """
    chosen, offset, num_classes = [], 0, scores.shape[1]
    for level in scores.split(level_sizes):
        ranked = level.amax(1) if config.topk_of == "anchors" else level.flatten()
        best = ranked.topk(min(config.topk_per_level, len(ranked)), sorted=False).indices
        if config.topk_of == "anchors":
            best = (best[:, None] * num_classes + torch.arange(num_classes).to(best)).flatten()
        chosen.append(best + offset)
        offset += level.numel()
    order = torch.cat(chosen).sort().values
    values, rank = scores.flatten()[order].sort(descending=True, stable=True)
    order = order[rank]
    # Not `values > threshold`, which would drop what is not a number.
    threshold = config.score_threshold
    assert not isinstance(threshold, str), "to be resolved when a run is set up"
    return order[~(values <= threshold)] if threshold > 0 else order


def suppress(boxes: Tensor, scores: Tensor, labels: Tensor, config: PostprocessConfig) -> Tensor:
    """Positions of the boxes that stay, in their order (falling score).

    Boxes without area go (unless `drop_empty` is off); then of two boxes of a class with an IoU
    above `nms_iou` the second; then all after the first `detections_per_image`.
    """
    stay = has_area(boxes) if config.drop_empty else torch.arange(len(boxes), device=boxes.device)
    boxes, scores, labels = boxes[stay], scores[stay], labels[stay]
    # In float64: batched_nms may move the classes apart by adding large numbers to coordinates.
    keep = batched_nms(boxes.double(), scores.double(), labels, config.nms_iou)
    # Sorted again, since batched_nms may exchange boxes of equal score.
    return stay[keep.sort().values[: config.detections_per_image]]


def has_area(boxes: Tensor) -> Tensor:
    """Positions of the boxes with x1 < x2 and y1 < y2."""
    return (boxes[:, 2:] > boxes[:, :2]).all(-1).nonzero().squeeze(-1)
