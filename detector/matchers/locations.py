"""Anchors by the place they are centred on: what matchers that look at centres have in common."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from detector.boxes import center_size
from detector.structures import Anchors


@dataclass(frozen=True)
class Locations:
    """The cells of the feature maps, L of them over all levels, each with B anchors.

    centers: (L, 2) x and y in pixels. strides: (L,). level_sizes: cells on each level.
    num_anchors: B.
    """

    centers: Tensor
    strides: Tensor
    level_sizes: tuple[int, ...]
    num_anchors: int

    def anchors_at(self, index: Tensor) -> Tensor:
        """(..., B) indices into A of the anchors of the locations (...)."""
        inner = torch.arange(self.num_anchors, device=index.device)
        return index[..., None] * self.num_anchors + inner


def locations_of(anchors: Anchors) -> Locations:
    """The locations of anchors that lie cell by cell, as `AnchorGenerator` makes them.

    How many a cell has is read from the first one (a GPU is waited for, once). Anchors that stand
    alone, or levels that this number does not divide, are locations of one anchor each.
    """
    centers, _ = center_size(anchors.boxes)
    first = next((size for size in anchors.level_sizes if size), 0)
    near = (centers[:first] - centers[:1]).abs().amax(-1) < anchors.strides[:first] / 1000
    num = int(near.int().cumprod(0).sum()) if first else 1  # the corners are rounded to float32
    if any(size % num for size in anchors.level_sizes):
        num = 1
    sizes = tuple(size // num for size in anchors.level_sizes)
    return Locations(centers[::num], anchors.strides[::num], sizes, num)


def nearest(points: Tensor, locations: Locations, candidates: Tensor) -> Tensor:
    """(M,) indices into L of the candidates (M, L) nearest to points (M, 2); 0 without one."""
    distance = squared_distance(points, locations.centers)
    return torch.where(candidates, distance, torch.inf).argmin(1)


def squared_distance(points: Tensor, others: Tensor) -> Tensor:
    """(M, L) in square pixels of points (M, 2) and others (L, 2).

    Not `torch.cdist`, which multiplies matrices for many points and loses the digits that decide.
    """
    return ((points[:, None] - others.to(points.dtype)) ** 2).sum(-1)
