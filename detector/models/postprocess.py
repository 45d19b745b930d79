"""From what the model says to detections: top-k, threshold, boxes, NMS, the best of an image."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from detector.boxes import clip
from detector.config import PostprocessConfig
from detector.errors import DivergedError
from detector.layouts import Layout
from detector.structures import Batch, Detections, Predictions


def postprocess(
    predictions: Predictions, layout: Layout, batch: Batch, config: PostprocessConfig
) -> list[Detections]:
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
        boxes = predictions.coder.decode(
            predictions.deltas[i, index], predictions.anchors.boxes[index]
        )
        if not bool(torch.isfinite(scores).all() & torch.isfinite(boxes).all()):
            raise DivergedError(f"image {image_id}: scores or boxes of the model are not finite")
        boxes = clip(boxes, batch.sizes[i])
        keep = suppress(boxes, scores, labels, config)
        scale = batch.scales[i].flip(-1).repeat(2).to(boxes.dtype)
        found.append(Detections(boxes[keep] / scale, scores[keep], labels[keep]))
    return found


def choose(scores: Tensor, level_sizes: tuple[int, ...], config: PostprocessConfig) -> Tensor:
    """(P,) positions in the flat (A * K) scores, sorted by falling score, then by position.

    The best `topk_per_level` pairs of anchor and class of each level, of those above the threshold
    (with threshold 0 of all). A score that is not a number counts as the highest.
    """
    chosen, offset = [], 0
    for level in scores.split(level_sizes):
        flat = level.flatten()
        best = flat.topk(min(config.topk_per_level, len(flat)), sorted=False).indices
        chosen.append(best + offset)
        offset += len(flat)
    order = torch.cat(chosen).sort().values
    values, rank = scores.flatten()[order].sort(descending=True, stable=True)
    order = order[rank]
    # Not `values > threshold`, which would drop what is not a number.
    return order[~(values <= config.score_threshold)] if config.score_threshold > 0 else order


def suppress(boxes: Tensor, scores: Tensor, labels: Tensor, config: PostprocessConfig) -> Tensor:
    """Positions of the boxes that stay, in their order (falling score).

    Boxes without area go; then of two boxes of a class with an IoU above `nms_iou` the second; then
    all after the first `detections_per_image`.
    """
    has_area = (boxes[:, 2:] > boxes[:, :2]).all(-1).nonzero().squeeze(-1)
    boxes, scores, labels = boxes[has_area], scores[has_area], labels[has_area]
    # In float64: batched_nms may move the classes apart by adding large numbers to coordinates.
    keep = batched_nms(boxes.double(), scores.double(), labels, config.nms_iou)
    # Sorted again, since batched_nms may exchange boxes of equal score.
    return has_area[keep.sort().values[: config.detections_per_image]]
