"""Weights and an image that two programs can make without exchanging a file. numpy only."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEIGHT, WIDTH = 90, 150
"""Of the image."""

MIN_SIZE, MAX_SIZE = 128, 200
"""What it is resized by: to 120 x 200, padded to 128 x 224."""

BOXES = [[10.0, 15.0, 60.0, 55.0], [70.0, 5.0, 140.0, 80.0], [100.0, 40.0, 112.0, 50.0]]
"""Objects of the resized image, for matching: the last one fits no anchor well."""

CLASS_LAYERS = ("cls_score", "retina_cls")
BOX_LAYERS = ("bbox_pred", "retina_reg")


def weights(name: str, shape: tuple[int, ...], *, is_raw: bool) -> NDArray[np.float32]:
    """The tensor of that name in the other framework: even draws, seeded by the name.

    Scaled so that numbers neither grow nor vanish through the layers, and scores spread. is_raw:
    its pixels are not divided by their deviation, which the first convolution makes up for.
    """
    draws = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()))).random(shape)
    layer = name.split(".")[-2]
    if name.endswith("running_var"):
        values = 0.5 + draws
    elif len(shape) == 1 and name.endswith("weight"):
        values = 0.3 + 0.6 * draws
    elif len(shape) == 1:
        values = 0.4 * (draws - 0.5) - (3.0 if layer in CLASS_LAYERS else 0.0)
    else:
        fan_in = float(np.prod(shape[1:]))
        gain = 0.4 if layer in CLASS_LAYERS else 0.1 if layer in BOX_LAYERS else 1.0
        if is_raw and shape[1] == 3:
            gain = 1 / 57
        values = gain * (2 * draws - 1) * np.sqrt(6 / fan_in)
    return values.astype(np.float32)


def image() -> NDArray[np.uint8]:
    """(HEIGHT, WIDTH, 3) pixels, RGB."""
    y, x, c = np.meshgrid(np.arange(HEIGHT), np.arange(WIDTH), np.arange(3), indexing="ij")
    waves = np.sin(x / (4.0 + c)) + np.cos(y / (6.0 - c)) + np.sin((x + 2 * y) / (15.0 + 3 * c))
    return np.clip(128 + 50 * waves, 0, 255).astype(np.uint8)


def positions(num_anchors: int) -> list[int]:
    """Of which anchors outputs are kept: some of each level, all anchors of a cell among them."""
    first = range(9 * 57, 9 * 57 + 18)
    return [*first, *range(0, num_anchors, 211), *range(num_anchors - 9, num_anchors)]


def rounded(values: Any, digits: int = 6) -> Any:
    """Nested lists of numbers, as short as they are exact enough."""
    return np.round(np.asarray(values, np.float64), digits).tolist()
