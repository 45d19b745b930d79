"""What happens to an image and its boxes before the model sees them.

albumentations does the work, behind an adapter: every draw is a function of the image's key, so
that loader processes never repeat one another and their number changes nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray

from detector.registry import AUGMENTATIONS
from detector.schema import require


@dataclass(frozen=True)
class Sample:
    """An image and its objects, in the pixels of that image.

    image: (H, W, 3) uint8 RGB. boxes: (M, 4) float32 xyxy. labels: (M,) int64. crowd: (M,) bool.
    scale: (2,) float32, size here divided by size in the file, (height, width).
    """

    image: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    scale: NDArray[np.float32]


class Augmentation(ABC):
    """What training and evaluation do to a sample. The output keeps 0 <= x1 < x2 <= W."""

    @abstractmethod
    def train(self, sample: Sample, key: int) -> Sample:
        """The sample as training sees it; a function of the sample and the key alone."""

    @abstractmethod
    def evaluate(self, sample: Sample) -> Sample:
        """The sample as evaluation sees it: all objects, only the size may change."""


@AUGMENTATIONS.register("albumentations")
class Albumentations(Augmentation):
    """Resize, scale jitter with crop, horizontal flip, colour.

    min_size: length of the shorter side in pixels, max_size: limit of the longer one, which goes
    first; only max_size: the longer side gets that length; both null: no resize.
    horizontal_flip: probability. scale_jitter: range of a random factor on the size; what exceeds
    the size without it is cropped at random. color: probability of a change of brightness,
    contrast, saturation and hue. min_visible: share of a box's area that a crop must leave.
    """

    def __init__(
        self,
        *,
        min_size: int | None = None,
        max_size: int | None = None,
        horizontal_flip: float = 0.5,
        scale_jitter: tuple[float, float] = (1.0, 1.0),
        color: float = 0.0,
        min_visible: float = 0.25,
    ) -> None:
        for name, value in (("min_size", min_size), ("max_size", max_size)):
            require(value is None or value > 0, f"{name}: {value} given, above 0 or null is needed")
        for name, share in (("horizontal_flip", horizontal_flip), ("color", color)):
            require(0 <= share <= 1, f"{name}: {share} given, 0 to 1 is allowed")
        require(0 <= min_visible < 1, f"min_visible: {min_visible} given, 0 to below 1 is allowed")
        low, high = scale_jitter
        require(0 < low <= high, f"scale_jitter: [{low}, {high}] given, 0 < low <= high is needed")
        self.min_size = min_size
        self.max_size = max_size
        self.scale_jitter = scale_jitter
        self.min_visible = min_visible
        self._has_draws = horizontal_flip > 0 or color > 0
        jitter = A.ColorJitter(
            brightness=(0.7, 1.3),
            contrast=(0.7, 1.3),
            saturation=(0.7, 1.3),
            hue=(-0.03, 0.03),
            p=color,
        )
        self._compose = A.Compose(
            [A.HorizontalFlip(p=horizontal_flip), *([jitter] if color > 0 else [])],
            bbox_params=A.BboxParams(format="pascal_voc", label_fields=["index"]),
        )

    def train(self, sample: Sample, key: int) -> Sample:
        generator = np.random.default_rng(key)
        height, width = sample.image.shape[:2]
        target = self.size(height, width)
        factor = float(generator.uniform(*self.scale_jitter))
        sample = resize(sample, tuple(max(1, round(side * factor)) for side in target))
        sample = clip(self._crop(sample, target, generator), self.min_visible)
        return self._draw(sample, key) if self._has_draws else sample

    def evaluate(self, sample: Sample) -> Sample:
        return resize(sample, self.size(*sample.image.shape[:2]))

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) after the resize, without jitter; each side rounded on its own."""
        scale = 1.0
        if self.min_size is not None:
            scale = self.min_size / min(height, width)
        if self.max_size is not None:
            limit = self.max_size / max(height, width)
            scale = limit if self.min_size is None else min(scale, limit)
        return max(1, round(height * scale)), max(1, round(width * scale))

    def _crop(
        self, sample: Sample, target: tuple[int, int], generator: np.random.Generator
    ) -> Sample:
        """A random window of at most the target size."""
        height, width = sample.image.shape[:2]
        top = int(generator.integers(max(0, height - target[0]) + 1))
        left = int(generator.integers(max(0, width - target[1]) + 1))
        if height <= target[0] and width <= target[1]:
            return sample
        image = sample.image[top : top + target[0], left : left + target[1]]
        shift = np.array([left, top, left, top], np.float32)
        return replace(sample, image=image, boxes=sample.boxes - shift)

    def _draw(self, sample: Sample, key: int) -> Sample:
        """The random transforms of albumentations, which takes and gives lists of floats."""
        self._compose.set_random_seed(key % 2**32)
        done: dict[str, Any] = self._compose(
            image=np.ascontiguousarray(sample.image),
            bboxes=sample.boxes,
            index=np.arange(len(sample.boxes)),
        )
        boxes = np.asarray(done["bboxes"], np.float32).reshape(-1, 4)
        kept = np.asarray(done["index"], np.int64).reshape(-1)
        sample = replace(
            sample,
            image=done["image"],
            boxes=boxes,
            labels=sample.labels[kept],
            crowd=sample.crowd[kept],
        )
        return clip(sample, 0.0)  # its arithmetic on shares of the image may leave it by a rounding


def resize(sample: Sample, size: tuple[int, ...]) -> Sample:
    """The sample at (height, width), bilinear; itself where that is its size.

    Boxes are scaled by what each axis really got, since sides are rounded to whole pixels.
    """
    height, width = sample.image.shape[:2]
    if (height, width) == tuple(size):
        return sample
    ratio = np.array([size[0] / height, size[1] / width], np.float32)
    shrinks = size[0] < height or size[1] < width
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return replace(
        sample,
        image=cv2.resize(sample.image, (size[1], size[0]), interpolation=method),
        boxes=sample.boxes * ratio[[1, 0, 1, 0]],
        scale=sample.scale * ratio,
    )


def clip(sample: Sample, min_visible: float) -> Sample:
    """Boxes cut to the image; those of which less than `min_visible` (or no pixel) is left go."""
    height, width = sample.image.shape[:2]
    limit = np.array([width, height, width, height], np.float32)
    boxes = np.clip(sample.boxes, 0, limit)
    sides = boxes[:, 2:] - boxes[:, :2]
    whole = sample.boxes[:, 2:] - sample.boxes[:, :2]
    visible = sides.prod(1) / np.maximum(whole.prod(1), 1e-6)
    kept = (sides > 0).all(1) & (visible >= min_visible)
    if kept.all():
        return replace(sample, boxes=boxes)
    return replace(sample, boxes=boxes[kept], labels=sample.labels[kept], crowd=sample.crowd[kept])
