"""Choosing the anchors of highest loss: what SSD and OHEM have in common."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import nms


def hardest(losses: Tensor, candidates: Tensor, count: Tensor) -> Tensor:
    """(N, A) bool: in each image the `count` (N,) candidates (N, A) of highest loss (N, A).

    Fewer where an image has fewer candidates. Of equal losses the first anchor wins, so that the
    choice is the same on every device.
    """
    keys = torch.where(candidates, losses.detach(), -torch.inf)
    order = keys.argsort(dim=1, descending=True, stable=True)
    places = torch.arange(keys.shape[1], device=keys.device).expand_as(order)
    ranks = torch.empty_like(order).scatter_(1, order, places)
    return candidates & (ranks < count[:, None])


def without_overlaps(losses: Tensor, boxes: Tensor, candidates: Tensor, max_iou: float) -> Tensor:
    """(N, A) bool: the candidates (N, A) that non-maximum suppression leaves in each image.

    In the order of falling loss (N, A), a candidate goes where its box (N, A, 4) has an IoU above
    `max_iou` with one that stays. How many stay depends on the data, hence the indexing, which
    makes a GPU wait for the answer.
    """
    kept = torch.zeros_like(candidates)
    for i in range(len(candidates)):
        index = candidates[i].nonzero()[:, 0]
        stays = nms(boxes[i, index].detach(), losses[i, index].detach(), max_iou)
        kept[i, index[stays]] = True
    return kept
