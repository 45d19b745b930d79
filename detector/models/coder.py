"""The regression targets of boxes relative to anchors, with a weight for each of the four."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from detector import boxes as box_arithmetic
from detector.config.model import CoderConfig
from detector.config.schema import require
from detector.layouts import Deltas, Distribution
from detector.structures import promote


class BoxCoder(nn.Module):
    """deltas = weights * (dx, dy, dw, dh) of R-CNN (`detector.boxes.encode`).

    weights: 1 is RetinaNet's; (10, 10, 5, 5) is SSD's, the reciprocals of its "variances"
    (Liu et al. 2016, arXiv 1512.02325, and its code).
    clamp: where decoded dw and dh are cut: "upper" at log(1000 / 16), "both" at minus that as well.
    """

    weights: Tensor

    def __init__(
        self,
        weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
        *,
        clamp: Literal["upper", "both"] = "upper",
    ) -> None:
        super().__init__()
        self.box_layout = Deltas()
        self.clamp = clamp
        require(
            len(weights) == 4 and min(weights) > 0,
            f"model.coder.weights: {list(weights)} given, four numbers above 0 are needed",
        )
        # A buffer, so that it lies on the model's device without a copy at each use.
        self.register_buffer("weights", torch.tensor(weights), persistent=False)

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """(..., 4) deltas of boxes relative to anchors, with broadcasting; float32 or better."""
        deltas = box_arithmetic.encode(promote(boxes), promote(anchors))
        return deltas * self.weights.to(deltas.dtype)

    def decode(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        """(..., 4) boxes of deltas: the inverse of `encode`; float32 or better."""
        deltas = promote(deltas)
        deltas = deltas / self.weights.to(deltas.dtype)
        if self.clamp == "both":
            low = deltas.new_tensor([-torch.inf] * 2 + [-box_arithmetic.MAX_LOG_SCALE] * 2)
            deltas = torch.maximum(deltas, low)
        return box_arithmetic.decode(deltas, promote(anchors))


class SideCoder(nn.Module):
    """The distances of a box's left, top, right and bottom side from the anchor's centre.

    In units of the anchor's width and height, said as distributions: 0.5 each is the anchor itself.
    Where FCOS and GFL, whose locations have one square anchor, count in strides, anchors of several
    shapes need their own measure.
    """

    def __init__(self, layout: Distribution) -> None:
        super().__init__()
        self.box_layout = layout

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """(..., 4) distances of boxes relative to anchors, below 0 where a side lies beyond the
        centre; float32 or better."""
        center, side = box_arithmetic.center_size(promote(anchors))
        boxes = promote(boxes)
        return torch.cat([(center - boxes[..., :2]) / side, (boxes[..., 2:] - center) / side], -1)

    def decode(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        """(..., 4) boxes of distances: the inverse of `encode`; float32 or better."""
        center, side = box_arithmetic.center_size(promote(anchors))
        deltas = promote(deltas)
        low, high = center - deltas[..., :2] * side, center + deltas[..., 2:] * side
        return torch.cat([low, high], -1)


def build_coder(config: CoderConfig) -> BoxCoder | SideCoder:
    """The coder of a config, with its box layout. Raises ConfigError."""
    if config.layout == "deltas":
        return BoxCoder(config.weights, clamp=config.clamp)
    return SideCoder(Distribution(config.bins, config.reach))
