"""Who gets an anchor that several objects claim, and what an object without any gets."""

from __future__ import annotations

import torch
from torch import Tensor

from detector.boxes import area, center_size, iou
from detector.matchers.locations import squared_distance
from detector.structures import BACKGROUND


def best_claim(values: Tensor, claims: Tensor, near: Tensor, num_anchors: int) -> Tensor:
    """(A,) index into M or BACKGROUND: of the objects that claim an anchor that of largest value.

    values, claims (bool) and near (the anchor): (M, C), C candidates of each object. Of equals the
    first object wins. By scattering, as a table (M, A) is not needed.
    """
    num_objects = len(values)
    index = near.flatten()
    claimed = torch.where(claims, values, -torch.inf).flatten()
    best = values.new_full((num_anchors,), -torch.inf).scatter_reduce(0, index, claimed, "amax")
    wins = claims.flatten() & (claimed == best[index])
    rows = torch.arange(num_objects, device=near.device)[:, None].expand_as(near).flatten()
    rows = torch.where(wins, rows, num_objects)
    none = torch.full((num_anchors,), num_objects, device=near.device)
    objects = none.scatter_reduce(0, index, rows, "amin")
    return torch.where(objects < num_objects, objects, BACKGROUND)


def serve_every_object(
    objects: Tensor, anchors: Tensor, boxes: Tensor, is_object: Tensor
) -> Tensor:
    """(A,) `objects` in which each object has an anchor, as long as there are enough of them.

    objects: (A,) index into M, BACKGROUND or IGNORE. anchors (A, 4); boxes (M, 4); is_object (M,).
    An object that has none takes, of the anchors that nobody needs, the one that overlaps it most,
    of equals the one centred nearest: a tiny object lies in many anchors of one size. An anchor is
    needed by an object that has no other. The smallest object is served first, since it has the
    fewest anchors to choose from. A GPU is waited for, as the objects are served one by one.
    """
    counts = torch.bincount(objects.clamp(min=-1) + 1, minlength=len(boxes) + 1)[1:]
    missing = (is_object & (counts == 0)).nonzero().squeeze(1)
    centers, _ = center_size(anchors)
    objects = objects.clone()
    for m in missing[area(boxes[missing]).argsort(stable=True)].tolist():
        is_spare = (objects < 0) | (counts[objects.clamp(min=0)] > 1)
        if not bool(is_spare.any()):
            break
        overlap = torch.where(is_spare, iou(anchors, boxes[m]), -1.0)
        center, _ = center_size(boxes[m][None])
        distance = squared_distance(center, centers)[0]
        place = torch.where(overlap == overlap.max(), distance, torch.inf).argmin()
        before = objects[place]
        counts = counts - torch.where(before >= 0, _one_at(before, counts), 0)
        objects[place] = m
        counts[m] = 1
    return objects


def _one_at(index: Tensor, like: Tensor) -> Tensor:
    return (torch.arange(len(like), device=like.device) == index).to(like.dtype)
