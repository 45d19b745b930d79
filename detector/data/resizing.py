"""How large an image becomes and how it is padded: arithmetic that training and inference share.

Needs numpy and Pillow only, so that an exported model can be used where nothing else is installed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detector.config.schema import require

Interpolation = Literal["area", "linear", "torch", "pillow"]
"""area: areas are averaged where the image shrinks (no aliasing), else linear. linear: of the four
nearest pixels, also where it shrinks (mmdetection). torch: the same, not rounded to whole numbers,
so float32 (torchvision). pillow: Pillow's, which averages where it shrinks (detectron2)."""

SizeRounding = Literal["nearest", "floor"]
"""A side that is no whole number of pixels becomes the nearest one (half up), or the one below
(torchvision)."""

Size = tuple[int, int]
"""Height and width in pixels."""

STRIDE = 32
"""Sides of a batch are multiples of it, so that each stage of a backbone halves them exactly."""


RESIZING = ("albumentations", "mixing")
"""Augmentations whose evaluation is nothing but this, by the keys min_size, max_size, interpolation
and size_rounding."""


def target_size(
    height: int,
    width: int,
    *,
    min_size: int | None,
    max_size: int | None,
    size_rounding: SizeRounding,
    factor: float = 1.0,
) -> Size:
    """(height, width) that an image of this height and width is resized to, each at least 1 px.

    The shorter side becomes min_size, unless the longer would exceed max_size, which then decides;
    max_size alone sets the longer side; None for both keeps the size. factor: a further factor on
    both sides, before they are rounded.
    """
    short, long = min(height, width), max(height, width)
    scale = 1.0
    if min_size is not None:
        scale = min_size / short
    if max_size is not None and (min_size is None or long * scale > max_size):
        scale = max_size / long
    scale *= factor
    half = 0.5 if size_rounding == "nearest" else 0.0
    sides = [max(1, math.floor(side * scale + half)) for side in (height, width)]
    return sides[0], sides[1]


def padded_size(sizes: Iterable[Sequence[int]]) -> Size:
    """(height, width) of a batch of images of these (height, width).

    The largest of each, rounded up to a multiple of STRIDE.
    """
    height, width = (-(-max(sides) // STRIDE) * STRIDE for sides in zip(*sizes, strict=True))
    return height, width


def averages(before: Size, after: Size, interpolation: Interpolation) -> bool:
    """Whether pixels are averaged over areas: where `area` makes an image smaller."""
    return interpolation == "area" and math.prod(after) < math.prod(before)


def resize_by_pillow(image: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """An (H, W, 3) image at (height, width), by Pillow's bilinear filter."""
    smooth = Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.array(smooth)  # a copy: its own pixels cannot be written


def require_sizes(min_size: int | None, max_size: int | None) -> None:
    """Raises ConfigError for sizes that no image can get."""
    for key, value in (("min_size", min_size), ("max_size", max_size)):
        require(value is None or value > 0, f"{key}: {value} given, above 0 or null is allowed")
    require(
        min_size is None or max_size is None or min_size <= max_size,
        f"max_size: {max_size} given, at least min_size = {min_size} is needed",
    )
