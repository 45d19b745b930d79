"""From the outputs of an exported graph to detections, in numpy: what torch does elsewhere.

The anchors of an image, the meaning of its class outputs, its boxes and their suppression: the same
arithmetic as `models.anchors`, `layouts`, `models.coder` and `models.postprocess`, which the tests
hold it against.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detector.config.model import AnchorConfig, CoderConfig, PostprocessConfig
from detector.errors import ConfigError, DivergedError

MAX_LOG_SCALE = math.log(1000 / 16)
"""Where decoded dw and dh are cut, as in `detector.boxes`."""

Floats = NDArray[np.float32]


def anchors_of(config: AnchorConfig, height: int, width: int) -> tuple[Floats, list[int]]:
    """(A, 4) anchors of a padded image of that size in pixels, and how many each level has.

    The order is that of `AnchorGenerator`: level, row, column, scale, ratio.
    """
    if config.stride_mode != "fixed":
        raise ConfigError(
            f"model.anchors.stride_mode: {config.stride_mode} given, graphs have fixed strides"
        )
    levels = [_level(config, stride, height, width) for stride in config.strides]
    return np.concatenate(levels).astype(np.float32), [len(level) for level in levels]


def _level(config: AnchorConfig, stride: int, height: int, width: int) -> NDArray[np.float64]:
    sizes = (math.ceil(height / stride), math.ceil(width / stride))
    y, x = ((np.arange(n, dtype=np.float64) + config.offset) * stride for n in sizes)
    grid_y, grid_x = np.meshgrid(y, x, indexing="ij")
    centers = np.stack([grid_x, grid_y, grid_x, grid_y], -1)[:, :, None]
    sides = [stride * config.size * scale for scale in config.scales]
    if config.round_to_pixels:
        sides = [math.floor(side) for side in sides]
    halves = [
        (side / math.sqrt(ratio) / 2, side * math.sqrt(ratio) / 2)
        for side in sides
        for ratio in config.ratios
    ]
    shapes = np.array([(-w, -h, w, h) for w, h in halves])
    if config.round_to_pixels:
        shapes = np.round(shapes)
    return (centers + shapes).reshape(-1, 4)


def scores_of(layout: str, logits: Floats) -> Floats:
    """(..., K) probabilities of (..., D) logits under the layout of that name."""
    if layout.startswith("Rated "):
        inner = scores_of(layout.removeprefix("Rated "), logits[..., :-1])
        return inner * _sigmoid(logits[..., -1:])
    if layout == "Sigmoid":
        return _sigmoid(logits)
    if layout == "Objectness":
        probabilities = _sigmoid(logits)
        return probabilities[..., :1] * probabilities[..., 1:]
    if layout == "Softmax":
        powers = np.exp(logits - logits.max(-1, keepdims=True))
        return (powers / powers.sum(-1, keepdims=True))[..., 1:]
    raise ConfigError(f"layout: {layout!r} is not one of Sigmoid, Softmax, Objectness")


def _sigmoid(x: Floats) -> Floats:
    """1 / (1 + exp(-x)), without overflow for large negative x."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small)).astype(x.dtype)


def decode(config: CoderConfig, deltas: Floats, anchors: Floats) -> Floats:
    """(P, 4) boxes of (P, 4) deltas, or distances of sides, relative to (P, 4) anchors."""
    if config.layout == "distribution":  # of which the graph gives the means
        center, side = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
        corners = [center - deltas[:, :2] * side, center + deltas[:, 2:] * side]
        return np.concatenate(corners, -1).astype(np.float32)
    deltas = deltas / np.array(config.weights, np.float32)
    center, side = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
    scale = np.minimum(deltas[:, 2:], np.float32(MAX_LOG_SCALE))
    if config.clamp == "both":
        scale = np.maximum(scale, np.float32(-MAX_LOG_SCALE))
    center = center + deltas[:, :2] * side
    half = side * np.exp(scale) / 2
    return np.concatenate([center - half, center + half], -1).astype(np.float32)


def detections_of(
    scores: Floats,
    deltas: Floats,
    anchors: Floats,
    level_sizes: Sequence[int],
    size: tuple[int, int],
    coder: CoderConfig,
    config: PostprocessConfig,
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Boxes (S, 4) in pixels of the padded image, scores (S,) and labels (S,) of one image.

    scores: (A, K). deltas, anchors: (A, 4). size: (height, width) that is not padding. Raises
    DivergedError where a score or a box is not finite.
    """
    chosen = choose(scores, level_sizes, config)
    index, labels = chosen // scores.shape[1], chosen % scores.shape[1]
    values = scores.reshape(-1)[chosen]
    boxes = decode(coder, deltas[index], anchors[index])
    if not (np.isfinite(values).all() and np.isfinite(boxes).all()):
        raise DivergedError("scores or boxes of the model are not finite")
    if config.clip == "before_nms":
        boxes = clip(boxes, size)
    keep = suppress(boxes, labels, config)
    boxes = boxes[keep]
    if config.clip == "after_nms":
        boxes = clip(boxes, size)
        if config.drop_empty:
            stay = has_area(boxes)
            boxes, keep = boxes[stay], keep[stay]
    return boxes, values[keep], labels[keep]


def choose(
    scores: Floats, level_sizes: Sequence[int], config: PostprocessConfig
) -> NDArray[np.int64]:
    """(P,) positions in the flat (A * K) scores, by falling score, then by position.

    The best `topk_per_level` pairs of each level above the threshold; see `models.postprocess`.
    """
    num_classes, offset, parts = scores.shape[1], 0, []
    for level in np.split(scores, np.cumsum(level_sizes)[:-1]):
        by_anchor = config.topk_of == "anchors"
        ranked = level.max(1) if by_anchor else level.reshape(-1)
        count = min(config.topk_per_level, len(ranked))
        best = np.argpartition(-ranked, count - 1)[:count]
        if by_anchor:
            best = (best[:, None] * num_classes + np.arange(num_classes)).reshape(-1)
        parts.append(best + offset)
        offset += level.size
    order = np.sort(np.concatenate(parts)).astype(np.int64)
    values = scores.reshape(-1)[order]
    rank = np.argsort(-values, kind="stable")
    order, values = order[rank], values[rank]
    threshold = config.score_threshold
    assert not isinstance(threshold, str), "resolved when the model was trained"
    return order[~(values <= threshold)] if threshold > 0 else order


def suppress(
    boxes: Floats, labels: NDArray[np.int64], config: PostprocessConfig
) -> NDArray[np.int64]:
    """Positions of the boxes that stay, in their order, which is by falling score.

    Boxes without area go (unless `drop_empty` is off); then of two boxes of a class with an IoU
    above `nms_iou` the second; then all after the first `detections_per_image`.
    """
    stay = has_area(boxes) if config.drop_empty else np.arange(len(boxes))
    exact, classes = boxes[stay].astype(np.float64), labels[stay]
    kept = [
        members[_greedy(exact[members], config.nms_iou, config.detections_per_image)]
        for members in (np.flatnonzero(classes == k) for k in np.unique(classes))
    ]
    together = np.sort(np.concatenate(kept)) if kept else np.zeros(0, np.int64)
    return stay[together[: config.detections_per_image]]


def _greedy(boxes: NDArray[np.float64], limit: float, most: int) -> list[int]:
    """Places of the boxes of one class that stay; no more than `most` can be shown."""
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    left, kept = np.arange(len(boxes)), list[int]()
    while len(left) and len(kept) < most:
        first, left = left[0], left[1:]
        kept.append(int(first))
        low = np.maximum(boxes[first, :2], boxes[left, :2])
        high = np.minimum(boxes[first, 2:], boxes[left, 2:])
        shared = np.prod(np.maximum(high - low, 0), axis=1)
        left = left[shared / (areas[first] + areas[left] - shared) <= limit]
    return kept


def clip(boxes: Floats, size: tuple[int, int]) -> Floats:
    """(S, 4) boxes cut to an image of (height, width)."""
    return np.clip(boxes, 0, np.array([size[1], size[0]] * 2, boxes.dtype))


def has_area(boxes: Floats) -> NDArray[np.int64]:
    """Positions of the boxes with x1 < x2 and y1 < y2."""
    return np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(-1))
