"""From an image to what the model takes: the pixels of training's evaluation, from numpy alone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from detector.data.handling import AS_STORED, Decoding, ExifRule
from detector.data.images import pixels_of, read_pixels
from detector.data.resizing import (
    Interpolation,
    Size,
    SizeRounding,
    padded_size,
    require_sizes,
    target_size,
)
from detector.errors import DataError
from detector.inference.resize import resize

Source = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]
"""An image file, an image of Pillow's, or (H, W, 3) uint8 pixels in the order R, G, B."""

MAX_MEGAPIXELS = 100.0
"""What an image may have at most unless told otherwise, as in training (`data.max_megapixels`)."""


@dataclass(frozen=True)
class PreprocessConfig:
    """How large a model sees an image: the options of these names of the training's `augment`.

    min_size, max_size: pixels, see `target_size`. interpolation, size_rounding: see
    `detector/data/resizing.py`. Raises ConfigError for sizes that no image can get.
    """

    min_size: int | None = None
    max_size: int | None = None
    interpolation: Interpolation = "area"
    size_rounding: SizeRounding = "nearest"

    def __post_init__(self) -> None:
        require_sizes(self.min_size, self.max_size)

    def target_size(self, height: int, width: int) -> Size:
        """(height, width) that an image of this height and width is resized to."""
        return target_size(
            height,
            width,
            min_size=self.min_size,
            max_size=self.max_size,
            size_rounding=self.size_rounding,
        )


@dataclass(frozen=True)
class Preprocessed:
    """Images as the model takes them, the arrays of a `detector.structures.Batch`.

    images: (N, 3, H, W) RGB from 0 to 255, uint8 or float32, padded right and bottom with 0.
    sizes: (N, 2) int64, height and width of the part that is not padding.
    scales: (N, 2) float32, size in `images` divided by size of the original image, per axis.
    """

    images: NDArray[Any]
    sizes: NDArray[np.int64]
    scales: NDArray[np.float32]


def decoding_of(options: Mapping[str, Any]) -> Decoding:
    """As a model was trained. options: of its data, as its config has them.

    Where training met no image that EXIF turns (data.exif=error), one is taken as it is shown.
    """
    depth = options.get("depth")
    exif: ExifRule = "stored" if options.get("exif") == "stored" else "upright"
    return Decoding(exif, (float(depth[0]), float(depth[1])) if depth else None)


def decode(
    source: Source,
    *,
    max_megapixels: float = MAX_MEGAPIXELS,
    key: str = "max_megapixels",
    how: Decoding = AS_STORED,
) -> NDArray[np.uint8]:
    """(H, W, 3) RGB pixels of an image, as training reads them, see `read_pixels`.

    Grey and palettes are converted, transparency is dropped. An array is returned as it is.
    max_megapixels: what a file or an image of Pillow's may have at most; key: what messages call
    that limit. Raises DataError naming the file or what was given.
    """
    if isinstance(source, str | os.PathLike):
        return read_pixels(Path(source), max_megapixels, how=how, key=key)
    if isinstance(source, Image.Image):
        name = str(getattr(source, "filename", "")) or "image"
        return pixels_of(source, name, max_megapixels, how=how, key=key)
    if not isinstance(source, np.ndarray):
        raise DataError(
            f"image: {type(source).__name__} given; the path of a file, an image of Pillow's or an "
            "array of numpy is needed"
        )
    is_rgb = source.ndim == 3 and source.shape[2] == 3 and source.size > 0
    if not is_rgb or source.dtype != np.uint8:
        raise DataError(
            f"image: array of shape {source.shape} and type {source.dtype} given; (H, W, 3) uint8 "
            "in the order R, G, B is needed"
        )
    return source


def preprocess(images: Sequence[NDArray[np.uint8]], config: PreprocessConfig) -> Preprocessed:
    """(H, W, 3) pixels of N images, each of its own size, resized and padded to one size.

    Equal to what `Albumentations.evaluate` and `collate` make of them in training; how closely,
    `detector/inference/resize.py` says. Raises DataError where there is no image.
    """
    if not images:
        raise DataError("images: none given, at least one is needed")
    resized = [
        resize(image, config.target_size(*image.shape[:2]), config.interpolation)
        for image in images
    ]
    sizes = np.array([image.shape[:2] for image in resized], np.int64)
    is_whole = all(image.dtype == np.uint8 for image in resized)
    shape = (len(images), 3, *padded_size(sizes.tolist()))
    padded = np.zeros(shape, np.uint8 if is_whole else np.float32)
    for canvas, image, (height, width) in zip(padded, resized, sizes, strict=True):
        canvas[:, :height, :width] = image.transpose(2, 0, 1)
    before = np.array([image.shape[:2] for image in images])
    return Preprocessed(padded, sizes, (sizes / before).astype(np.float32))


def normalize(
    images: NDArray[Any], sizes: NDArray[np.int64], mean: ArrayLike, std: ArrayLike
) -> NDArray[np.float32]:
    """(N, 3, H, W) less the mean, divided by the deviation, padding 0: what the model begins with.

    Equal to the bit to `Detector.normalize` in float32. images: (N, 3, H, W) from 0 to 255. sizes:
    (N, 2), height and width that are not padding. mean, std: of R, G, B, for pixels from 0 to 255.
    """
    means, deviations = (np.reshape(values, (3, 1, 1)) for values in (mean, std))
    pixels = (images.astype(np.float32) - means.astype(np.float32)) / deviations.astype(np.float32)
    for image, (height, width) in zip(pixels, sizes, strict=True):
        image[:, height:] = 0
        image[:, :, width:] = 0
    return pixels
