"""Anchors: boxes of fixed shapes, centred on the cells of each level."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from detector.config.model import AnchorConfig
from detector.config.schema import require
from detector.structures import Anchors

Sizes = tuple[tuple[int, int], ...]

MAX_CACHED = 32
"""Feature sizes whose anchors are kept; training on many image shapes must not fill the memory."""


class AnchorGenerator:
    """Makes the anchors of an image from the sizes of its feature maps.

    strides: pixels between the cells of each level, finest first; None: those of the config's
    levels. They are fixed, whatever the image's size, and nothing is rounded to whole pixels,
    unless the config says otherwise.
    """

    def __init__(self, config: AnchorConfig, strides: Sequence[int] | None = None) -> None:
        for key in ("scales", "ratios"):
            values: tuple[float, ...] = getattr(config, key)
            is_fit = len(values) > 0 and min(values) > 0
            require(is_fit, f"model.anchors.{key}: {list(values)} given, numbers above 0 needed")
        require(config.size > 0, f"model.anchors.size: {config.size} given, above 0 is needed")
        self.config = config
        self.strides = config.strides if strides is None else tuple(strides)
        self._cache: dict[tuple[Sizes, tuple[int, int] | None, torch.device], Anchors] = {}

    @property
    def num_per_cell(self) -> int:
        """Anchors of one cell."""
        return len(self.config.scales) * len(self.config.ratios)

    def __call__(
        self,
        feature_sizes: Sequence[tuple[int, int]],
        device: torch.device,
        image_size: tuple[int, int] | None = None,
    ) -> Anchors:
        """The anchors of maps of (height, width) cells, one per stride, in float32.

        Order: levels from the finest; in a level cells row by row; in a cell scales, and within a
        scale ratios. The same object comes back for the same sizes and device.
        image_size: (height, width) of the padded image, for `stride_mode: image` only.
        """
        if self.config.stride_mode == "fixed":
            image_size = None
        sizes = tuple((int(h), int(w)) for h, w in feature_sizes)
        key = (sizes, image_size, torch.device(device))
        if key not in self._cache:
            while len(self._cache) >= MAX_CACHED:
                del self._cache[next(iter(self._cache))]
            self._cache[key] = self._make(*key)
        return self._cache[key]

    def for_image(self, height: int, width: int, device: torch.device | str = "cpu") -> Anchors:
        """The anchors of padded images of that size in pixels, before any model has seen them.

        Each stage halves its map and rounds up, so a level has ceil(pixels / stride) cells.
        """
        sizes = [(math.ceil(height / s), math.ceil(width / s)) for s in self.strides]
        return self(sizes, torch.device(device), (height, width))

    def _make(
        self, sizes: Sizes, image_size: tuple[int, int] | None, device: torch.device
    ) -> Anchors:
        levels = [
            self._level(size, stride, self._steps(size, stride, image_size))
            for size, stride in zip(sizes, self.strides, strict=True)
        ]
        counts = [len(level) for level in levels]
        strides = torch.tensor(self.strides).repeat_interleave(torch.tensor(counts))
        boxes = torch.cat(levels).float()
        return Anchors(boxes.to(device), strides.float().to(device), tuple(counts))

    def _steps(
        self, size: tuple[int, int], stride: int, image_size: tuple[int, int] | None
    ) -> tuple[int, int]:
        """Pixels from a cell to the one below and to the one at its right.

        By the image: on a map whose cells stand over its border that is less than the stride.
        """
        if self.config.stride_mode == "fixed":
            return stride, stride
        assert image_size is not None, "anchors by the image need its size"
        return image_size[0] // size[0], image_size[1] // size[1]

    def _level(self, size: tuple[int, int], stride: int, steps: tuple[int, int]) -> Tensor:
        """(H * W * num_per_cell, 4) float64 anchors of one level."""
        height, width = (
            (torch.arange(n, dtype=torch.float64) + self.config.offset) * step
            for n, step in zip(size, steps, strict=True)
        )
        y, x = torch.meshgrid(height, width, indexing="ij")
        centers = torch.stack([x, y, x, y], -1)[:, :, None]
        return (centers + self._shapes(stride)).reshape(-1, 4)

    def _shapes(self, stride: int) -> Tensor:
        """(num_per_cell, 4) float64 anchors around the origin: of area side^2, ratio h / w."""
        sides = [stride * self.config.size * scale for scale in self.config.scales]
        if self.config.round_to_pixels:
            sides = [math.floor(side) for side in sides]
        halves = [
            (side / math.sqrt(ratio) / 2, side * math.sqrt(ratio) / 2)
            for side in sides
            for ratio in self.config.ratios
        ]
        shapes = torch.tensor([(-w, -h, w, h) for w, h in halves], dtype=torch.float64)
        return shapes.round() if self.config.round_to_pixels else shapes
