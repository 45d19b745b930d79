"""What has to be done to the tensors of others beside giving them another name."""

from __future__ import annotations

import torch
from torch import Tensor

from detector.models.backbones.base import PIXEL_STD


def ratio_outer_order(num_scales: int, num_ratios: int) -> list[int]:
    """Where our anchor k (scale outer, ratio inner) stands with ratio outer and scale inner.

    [0, 3, 6, 1, 4, 7, 2, 5, 8] for three of each. A wrong order fits all shapes and is not noticed
    until the boxes are: torchvision and mmdetection have this one, detectron2 has ours.
    """
    return [r * num_scales + s for s in range(num_scales) for r in range(num_ratios)]


def choose_outputs(tensor: Tensor, anchors: list[int], outputs: tuple[int, ...]) -> Tensor:
    """The last layer of a tower with some of its channels, in another order.

    tensor: (anchors of a cell * outputs of an anchor, ...). anchors, outputs: which of theirs
    become ours, in our order.
    """
    rows = tensor.reshape(len(anchors), -1, *tensor.shape[1:])
    return rows[anchors][:, list(outputs)].flatten(0, 1).contiguous()


def fold_colours(weight: Tensor) -> Tensor:
    """(C, 3, h, w) first convolution for our pixels, of one for BGR with a deviation of 1.

    theirs * (x - mean) is ours * (x - mean) / std with ours = theirs * std. Their mean is ours, in
    BGR, so that the padding, which is 0 after normalising, stays what it was.
    """
    std = torch.tensor(PIXEL_STD, dtype=torch.float64)[:, None, None]
    return (weight.double().flip(1) * std).to(weight.dtype)
