"""Arithmetic on boxes: (..., 4) tensors of (x1, y1, x2, y2) in pixels, x2 and y2 exclusive."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MAX_LOG_SCALE = math.log(1000 / 16)
"""Largest log of a size ratio that `decode` allows, as in Fast R-CNN's code; exp stays finite."""


def area(boxes: Tensor) -> Tensor:
    """(...) areas in square pixels; 0 for a box whose corners are swapped."""
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def intersection(a: Tensor, b: Tensor) -> Tensor:
    """(...) areas that `a` and `b` share, element by element with broadcasting."""
    low = torch.maximum(a[..., :2], b[..., :2])
    high = torch.minimum(a[..., 2:], b[..., 2:])
    sides = (high - low).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def iou(a: Tensor, b: Tensor) -> Tensor:
    """(...) intersection over union with broadcasting; 0 where both boxes are empty.

    `iou(a[:, None], b)` is the (A, M) table of all pairs.
    """
    shared = intersection(a, b)
    union = area(a) + area(b) - shared
    return shared / union.clamp(min=torch.finfo(union.dtype).tiny)


def coverage(a: Tensor, b: Tensor) -> Tensor:
    """(...) share of the area of `a` that lies in `b`, with broadcasting; 0 for an empty `a`."""
    return intersection(a, b) / area(a).clamp(min=torch.finfo(a.dtype).tiny)


def hull(a: Tensor, b: Tensor) -> Tensor:
    """(..., 4) smallest boxes around both."""
    low = torch.minimum(a[..., :2], b[..., :2])
    high = torch.maximum(a[..., 2:], b[..., 2:])
    return torch.cat([low, high], -1)


def giou(a: Tensor, b: Tensor) -> Tensor:
    """(...) generalised IoU in [-1, 1]: IoU - (C - U) / C, C the smallest box around both.

    Rezatofighi et al. 2019, arXiv 1902.09630, algorithm 1.
    """
    shared = intersection(a, b)
    union = area(a) + area(b) - shared
    around = area(hull(a, b))
    tiny = torch.finfo(union.dtype).tiny
    return shared / union.clamp(min=tiny) - (around - union) / around.clamp(min=tiny)


def diou(a: Tensor, b: Tensor) -> Tensor:
    """(...) distance IoU in [-1, 1]: IoU - d^2 / c^2, c the diagonal of the hull.

    d is the distance of the centres. Zheng et al. 2020, arXiv 1911.08287, equation 6.
    """
    (center_a, _), (center_b, _), (_, around) = map(center_size, (a, b, hull(a, b)))
    return iou(a, b) - _ratio(((center_a - center_b) ** 2).sum(-1), (around**2).sum(-1))


def ciou(a: Tensor, b: Tensor) -> Tensor:
    """(...) complete IoU: DIoU - alpha v, alpha = v / (1 - IoU + v) without a gradient.

    v = (2 / pi)^2 (atan(w_a / h_a) - atan(w_b / h_b))^2. Sides are taken as at least 1e-3 px, as in
    `encode`: the angle of an empty box is none. Zheng et al. 2020, arXiv 1911.08287, equations 8
    to 11.
    """
    angles = [torch.atan2(*center_size(x)[1].clamp(min=1e-3).unbind(-1)) for x in (a, b)]
    v = (2 / math.pi * (angles[0] - angles[1])) ** 2
    with torch.no_grad():
        alpha = _ratio(v, 1 - iou(a, b) + v)
    return diou(a, b) - alpha * v


def eiou(a: Tensor, b: Tensor) -> Tensor:
    """(...) efficient IoU in [-3, 1]: DIoU - (w_a - w_b)^2 / W^2 - (h_a - h_b)^2 / H^2.

    W and H are the sides of the hull. Zhang et al. 2021, arXiv 2101.08158, the loss EIOU.
    """
    (_, side_a), (_, side_b), (_, around) = map(center_size, (a, b, hull(a, b)))
    return diou(a, b) - _ratio((side_a - side_b) ** 2, around**2).sum(-1)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole; 0, with no gradient, where both are 0."""
    return part / whole.clamp(min=torch.finfo(whole.dtype).tiny)


def wasserstein(a: Tensor, b: Tensor) -> Tensor:
    """(...) distance in pixels of two boxes taken as Gaussians: of (x, y, w / 2, h / 2).

    Wang et al. 2021, arXiv 2110.13389, section 3.
    """
    (center_a, side_a), (center_b, side_b) = center_size(a), center_size(b)
    difference = torch.cat([center_a - center_b, (side_a - side_b) / 2], -1)
    return torch.linalg.vector_norm(difference, dim=-1)  # whose slope at 0 is 0, not NaN


def center_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """(..., 2) centres (x, y) and (..., 2) sides (width, height)."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """(..., 4) deltas (dx, dy, dw, dh) of boxes relative to anchors, with broadcasting.

    dx = (x - x_a) / w_a, dw = log(w / w_a) (Girshick et al. 2014, R-CNN, appendix C). Sides are
    taken as at least 1e-3 px, so that a sliver has a finite code.
    """
    center, side = center_size(boxes)
    anchor_center, anchor_side = center_size(anchors)
    shift = (center - anchor_center) / anchor_side
    scale = (side.clamp(min=1e-3) / anchor_side).log()
    return torch.cat([shift, scale], -1)


def decode(deltas: Tensor, anchors: Tensor, max_log_scale: float = MAX_LOG_SCALE) -> Tensor:
    """(..., 4) boxes of (..., 4) deltas: the inverse of `encode`.

    dw and dh are cut at `max_log_scale` from above (torchvision, detectron2), so that a wild
    prediction stays finite.
    """
    anchor_center, anchor_side = center_size(anchors)
    center = anchor_center + deltas[..., :2] * anchor_side
    half = anchor_side * deltas[..., 2:].clamp(max=max_log_scale).exp() / 2
    return torch.cat([center - half, center + half], -1)


def clip(boxes: Tensor, size: Tensor) -> Tensor:
    """(..., 4) boxes cut to an image of `size` (..., 2), height and width in pixels."""
    high = size.flip(-1).to(boxes.dtype)
    low = torch.zeros_like(high)
    corners = [torch.minimum(torch.maximum(boxes[..., i : i + 2], low), high) for i in (0, 2)]
    return torch.cat(corners, -1)
