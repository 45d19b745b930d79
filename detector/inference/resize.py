"""OpenCV's resize, written with numpy: the pixels of training where OpenCV is not installed.

Follows `modules/imgproc/src/resize.cpp` of OpenCV 4 (Apache-2.0) and, for numbers with fractions,
what Intel's library (IPP) does, to which OpenCV leaves them on x86. Measured on x86-64 against
opencv-python-headless 4.10, 4.11, 4.12 and 4.14, at 1200 sizes from 1 to 300 px:

- uint8 pixels (area, linear): equal to the bit at every size.
- float32 pixels (torch): IPP rounds as its version and the processor let it. With AVX2 or AVX-512,
  at most 7 in 10,000 numbers differ, by their last bit: 1.6e-5 on the scale of 0 to 255. With 4.14
  they lie at the left and right edges of images that become at least three times as wide. Without
  AVX2, 6 % differ, by at most 4.6e-5.

OpenCV without IPP, as on ARM, knows positions less exactly; its float32 pixels then differ by up to
255 * 2^-23 times the longest side of the source: 0.05 at 1600 px.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.data.resizing import Interpolation, Size, averages, resize_by_pillow

CHANNELS = 3

WEIGHT_BITS = 11
"""OpenCV's weights of uint8 pixels are whole numbers, of which 2^11 stand for 1."""

MIN_OVERLAP = 1e-3
"""Pixels; what a pixel of the result covers less of, OpenCV leaves out of its mean."""

Float = NDArray[np.float32]


@dataclass(frozen=True)
class Neighbours:
    """Between which two pixels of the source each of the n pixels along an axis lies.

    first, second: (n,) their indices, equal beyond the centre of the outermost pixel.
    fraction: (n,) float32, 0 at the first and 1 at the second.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    fraction: Float

    def without_edges(self) -> Float:
        """The fraction, 0 where both are the same: the two weights of a pixel are rounded, and a
        sum of both would not be the pixel itself. OpenCV does this along rows of pixels only.
        """
        return np.where(self.first == self.second, np.float32(0), self.fraction)


def resize(image: NDArray[np.uint8], size: Size, interpolation: Interpolation) -> NDArray[Any]:
    """An (H, W, 3) image at (height, width); the same object where that is its size already.

    The pixels of `detector.data.transforms.resize_image`: uint8, or float32 from 0 to 255 for
    interpolation=torch. How equal they are, the head of this file says.
    """
    before = (image.shape[0], image.shape[1])
    if size == before:
        return image
    if interpolation == "pillow":
        return resize_by_pillow(image, size)
    if interpolation == "torch":
        return _interpolate_float(image, size)
    if averages(before, size, interpolation):
        return _average(image, size)
    rows, columns = (_neighbours(*sides, np.float32) for sides in zip(before, size, strict=True))
    return _interpolate(image, rows, columns)


def _interpolate(
    image: NDArray[np.uint8], rows: Neighbours, columns: Neighbours
) -> NDArray[np.uint8]:
    """Each pixel is the weighted mean of the four nearest, in OpenCV's whole numbers.

    First along the rows of pixels, then across. The 22 bits of two weights are shifted out where
    OpenCV loses them: 4 after the first pass, 16 of either product of the second, 2 of their sum,
    which alone is rounded.
    """
    left, right = _whole_weights(columns.without_edges())
    pixels = image.reshape(len(image), -1)
    wide = pixels.take(_channels(columns.first), axis=1) * left.repeat(CHANNELS)
    wide += pixels.take(_channels(columns.second), axis=1) * right.repeat(CHANNELS)
    wide >>= 4
    above, below = _whole_weights(rows.fraction)
    result = wide[rows.first] * above[:, None] >> 16
    result += wide[rows.second] * below[:, None] >> 16
    result = (result + 2) >> 2
    return result.astype(np.uint8).reshape(len(result), -1, CHANNELS)


def _interpolate_float(image: NDArray[np.uint8], size: Size) -> Float:
    """Each pixel is the weighted mean of the four nearest, not rounded to whole numbers.

    OpenCV leaves it to IPP, which knows positions in float64 and adds a product without rounding it
    first, unless a side of the image is a single pixel.
    """
    before = (image.shape[0], image.shape[1])
    by_ipp = min(before) > 1
    position = np.float64 if by_ipp else np.float32
    mix: Callable[[Float, Float, Float], NDArray[Any]] = _mix_fused if by_ipp else _mix
    rows, columns = (_neighbours(*sides, position) for sides in zip(before, size, strict=True))
    pixels = image.reshape(len(image), -1)
    wide = mix(
        pixels.take(_channels(columns.first), axis=1).astype(np.float32),
        pixels.take(_channels(columns.second), axis=1).astype(np.float32),
        columns.without_edges().repeat(CHANNELS),
    )
    result = mix(wide[rows.first], wide[rows.second], rows.fraction[:, None])
    return result.reshape(len(result), -1, CHANNELS)


def _mix(first: Float, second: Float, fraction: Float) -> NDArray[Any]:
    return first * (1 - fraction) + second * fraction


def _mix_fused(first: Float, second: Float, fraction: Float) -> Float:
    """As a fused multiply-add has it: in float64 the product is exact, only the sum is rounded."""
    return (first + fraction.astype(np.float64) * (second - first)).astype(np.float32)


def _average(image: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """Each pixel is the mean of the area that it covers.

    Where one of the sides grows, OpenCV interpolates between neighbours instead.
    """
    before = (image.shape[0], image.shape[1])
    axes = list(zip(before, size, strict=True))
    ratios = [1 / (new / old) for old, new in axes]  # not old / new: that rounds differently
    if min(ratios) < 1:
        return _interpolate(image, *(_area_neighbours(*sides) for sides in axes))
    whole = [round(ratio) for ratio in ratios]
    if max(abs(r - w) for r, w in zip(ratios, whole, strict=True)) < np.finfo(np.float64).eps:
        return _average_blocks(image, size, whole[0], whole[1])
    return _average_areas(image, _area_weights(*axes[0]), _area_weights(*axes[1]))


def _average_blocks(
    image: NDArray[np.uint8], size: Size, height: int, width: int
) -> NDArray[np.uint8]:
    """Each pixel is the mean of a block of height x width pixels.

    Halves are rounded up in blocks of 2 x 2 and to the even number in others.
    """
    sums = image.reshape(size[0], height, -1).sum(axis=1, dtype=np.int32)
    sums = sums.reshape(*size, width, CHANNELS).sum(axis=2)
    if height == width == 2:
        return ((sums + 2) >> 2).astype(np.uint8)
    share = np.float32(1) / np.float32(height * width)
    return np.rint(sums.astype(np.float32) * share).astype(np.uint8)


def _average_areas(
    image: NDArray[np.uint8],
    rows: tuple[NDArray[np.int64], Float],
    columns: tuple[NDArray[np.int64], Float],
) -> NDArray[np.uint8]:
    """Means of areas, summed in float32 in OpenCV's order: along the rows of pixels, then across.

    rows, columns: from `_area_weights`. A pixel of weight 0 leaves a sum as it is, to the bit.
    """
    pixels = image.reshape(len(image), -1)
    wide = sum(
        pixels.take(_channels(index), axis=1) * weight.repeat(CHANNELS)
        for index, weight in zip(*columns, strict=True)
    )
    assert isinstance(wide, np.ndarray)
    result = sum(wide[index] * weight[:, None] for index, weight in zip(*rows, strict=True))
    return np.rint(result).astype(np.uint8).reshape(rows[0].shape[1], -1, CHANNELS)


def _neighbours(before: int, after: int, position: type[np.floating[Any]]) -> Neighbours:
    """The neighbours of the centres of `after` pixels along a side of `before` pixels.

    position: the type of their positions. OpenCV's float32 comes with a ratio that is rounded
    twice, IPP's float64 with one that is rounded once.
    """
    ratio = before / after if position is np.float64 else 1 / (after / before)
    positions = ((np.arange(after) + 0.5) * ratio - 0.5).astype(position)
    first = np.floor(positions)
    return _between(first.astype(np.int64), positions - first, before)


def _area_neighbours(before: int, after: int) -> Neighbours:
    """The neighbours that OpenCV takes, along both sides, for `area` where one of them grows.

    Unlike those of `_neighbours`, they leave enlarged pixels their sharp edges.
    """
    growth = after / before
    pixels = np.arange(after)
    first = np.floor(pixels * (1 / growth)).astype(np.int64)
    fraction = ((pixels + 1) - (first + 1) * growth).astype(np.float32)
    return _between(first, np.where(fraction <= 0, 0, fraction - np.floor(fraction)), before)


def _between(first: NDArray[np.int64], fraction: NDArray[Any], before: int) -> Neighbours:
    """Each first pixel and the next one; outside of the image lies the outermost pixel again."""
    edge = before - 1
    return Neighbours(first.clip(0, edge), (first + 1).clip(0, edge), fraction.astype(np.float32))


def _area_weights(before: int, after: int) -> tuple[NDArray[np.int64], Float]:
    """Which pixels of a side of `before` each of `after` pixels covers, and the weight of each.

    Both (T, after), with as many rows as a pixel covers at most and the weights of a column adding
    up to 1; 0 where it covers fewer. As in OpenCV's `computeResizeAreaTab`.
    """
    ratio = 1 / (after / before)
    start = np.arange(after) * ratio
    end = start + ratio
    length = np.minimum(ratio, before - start)
    last = np.minimum(np.floor(end), before - 1)
    first = np.minimum(np.ceil(start), last)  # the first that is covered from its beginning
    index = first - 1 + np.arange(int((last - first).max()) + 2)[:, None]
    head, tail = first - start, end - last
    weight = np.select(
        [index < first, index < last, index == last],
        [
            np.where(head > MIN_OVERLAP, head / length, 0),
            1 / length,
            np.where(tail > MIN_OVERLAP, np.minimum(np.minimum(tail, 1), length) / length, 0),
        ],
        0,
    )
    return index.clip(0, before - 1).astype(np.int64), weight.astype(np.float32)


def _whole_weights(fraction: Float) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The weights of the first and the second neighbour, in units of 2^-WEIGHT_BITS."""
    one = np.float32(2**WEIGHT_BITS)
    first, second = np.rint((1 - fraction) * one), np.rint(fraction * one)
    return first.astype(np.int32), second.astype(np.int32)


def _channels(columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the numbers of these pixels lie in a row of R, G, B, R, G, B, ..."""
    return (columns[:, None] * CHANNELS + np.arange(CHANNELS)).ravel()
