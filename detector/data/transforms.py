"""From an image of a file to an image for the model, with its boxes.

Resizing and cropping are done here, in one interpolation, so that the scale of each axis and the
boxes are exact; flips and colour are albumentations'. All that is random about a sample follows
from one key: the same in any process, in any order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Protocol

import albumentations
import cv2
import numpy as np
from numpy.typing import NDArray

from detector.config.registry import AUGMENTATIONS
from detector.config.schema import require
from detector.data.resizing import (
    Interpolation,
    SizeRounding,
    averages,
    require_sizes,
    resize_by_pillow,
    target_size,
)

MIN_SIDE = 1.0
"""Pixels; a box with a shorter side is not trained on: no pixel shows the object."""


@dataclass(frozen=True)
class Sample:
    """An image and its objects.

    image: (H, W, 3) RGB, uint8 or float32 from 0 to 255. boxes: (M, 4) float32 xyxy in its pixels.
    labels: (M,) int64. crowd: (M,) bool.
    scale: (2,) float32, size after the resize by size in the file, (height,
    width): the two differ where a side was rounded to whole pixels. A crop does not change it.
    damaged: a line for each file that was to be read in the place of this one, and is damaged.
    """

    image: NDArray[Any]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    scale: NDArray[np.float32]
    damaged: tuple[str, ...] = ()


def without_objects(pixels: NDArray[np.uint8]) -> Sample:
    """A sample of (H, W, 3) pixels of which nothing is known."""
    return Sample(
        image=pixels,
        boxes=np.zeros((0, 4), np.float32),
        labels=np.zeros(0, np.int64),
        crowd=np.zeros(0, np.bool_),
        scale=np.ones(2, np.float32),
    )


class Others(Protocol):
    """The images of the data set as their files have them, by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


class Augmentation(ABC):
    """Afterwards 0 <= x1 < x2 <= W and 0 <= y1 < y2 <= H hold for every box."""

    @abstractmethod
    def train(self, sample: Sample, key: int) -> Sample:
        """A random variant, a pure function of its arguments. key: in [0, 2^63)."""

    def train_among(self, sample: Sample, key: int, others: Others, share: float) -> Sample:
        """What training sees of an image; by default `train`, which looks at no other.

        Still a pure function: of the image, the key, the data set and the `share` of the run that
        is done, 0 to 1.
        """
        return self.train(sample, key)

    @abstractmethod
    def evaluate(self, sample: Sample) -> Sample:
        """The sample at the size the model shall see; nothing else is changed."""


@AUGMENTATIONS.register("albumentations")
class Albumentations(Augmentation):
    """Resize, then for training scale jitter with crop, horizontal flip and colour.

    min_size: the shorter side becomes this many pixels, unless the longer would exceed max_size,
    which then decides; max_size alone sets the longer side; null for both leaves images alone.
    interpolation, size_rounding: how, see `detector/data/resizing.py`.
    horizontal_flip: probability. scale_jitter: a factor on the size, drawn evenly in its logarithm;
    what exceeds the size without jitter is cropped away at a random place. color: probability of
    a jitter of brightness, contrast and saturation by up to 30 % and of hue by 0.02 turns.
    min_visible: a box of which clipping and cropping leave a smaller share is dropped, unless it is
    a crowd.
    """

    def __init__(
        self,
        *,
        min_size: int | None = None,
        max_size: int | None = None,
        interpolation: Interpolation = "area",
        size_rounding: SizeRounding = "nearest",
        horizontal_flip: float = 0.5,
        scale_jitter: tuple[float, float] = (1.0, 1.0),
        color: float = 0.0,
        min_visible: float = 0.25,
    ) -> None:
        _require_options(min_size, max_size, scale_jitter)
        for key, value in (
            ("horizontal_flip", horizontal_flip),
            ("color", color),
            ("min_visible", min_visible),
        ):
            require(0 <= value <= 1, f"{key}: {value} given, 0 to 1 is allowed")
        require(
            color == 0 or interpolation != "torch",
            f"color: {color} given, but interpolation=torch gives fractions of pixels, "
            "whose colours stay; take 0, or another interpolation",
        )
        self.min_size, self.max_size = min_size, max_size
        self.interpolation: Interpolation = interpolation
        self.size_rounding: SizeRounding = size_rounding
        self.scale_jitter, self.min_visible = scale_jitter, min_visible
        self.flip = _flip(horizontal_flip) if horizontal_flip > 0 else None
        self.color = _color(color) if color > 0 else None

    def train(self, sample: Sample, key: int) -> Sample:
        draws = np.random.Generator(np.random.PCG64(np.random.SeedSequence([key, 1])))
        size = self.target_size(sample.image, 1.0)
        jittered = self.target_size(sample.image, self._jitter(draws.random()))
        resized = resize(sample, jittered, self.interpolation)
        result = crop(clip(resized), size, draws.random(2))
        result = keep(result, visible(result.boxes, resized.boxes) >= self.min_visible)
        if self.flip is not None:
            result = self._flipped(result, albumentations_seed(key, 2))
        if self.color is not None:
            self.color.set_random_seed(albumentations_seed(key, 3))
            result = replace(result, image=self.color(image=result.image)["image"])
        return result

    def evaluate(self, sample: Sample) -> Sample:
        size = self.target_size(sample.image, 1.0)
        result = clip(resize(sample, size, self.interpolation))
        return _select(result, np.all(result.boxes[:, 2:] > result.boxes[:, :2], axis=1))

    def target_size(self, image: NDArray[Any], factor: float) -> tuple[int, int]:
        """(height, width) of the resized image. factor: on its sides, before they are rounded."""
        return target_size(
            *image.shape[:2],
            min_size=self.min_size,
            max_size=self.max_size,
            size_rounding=self.size_rounding,
            factor=factor,
        )

    def _jitter(self, draw: float) -> float:
        low, high = self.scale_jitter
        return low * (high / low) ** draw

    def _flipped(self, sample: Sample, seed: int) -> Sample:
        """Boxes travel with their numbers, not with their labels: those would come back as floats.

        Costs about 0.3 ms, most of it albumentations' care for the boxes.
        """
        assert self.flip is not None
        self.flip.set_random_seed(seed)
        numbers = np.arange(len(sample.boxes))
        # In float64: its boxes are relative to the image's size and would be rounded twice.
        boxes = sample.boxes.astype(np.float64)
        result = self.flip(image=sample.image, bboxes=boxes, numbers=numbers)
        order = np.asarray(result["numbers"], np.int64)
        moved = replace(
            _select(sample, order),
            image=result["image"],
            boxes=np.asarray(result["bboxes"], np.float32).reshape(-1, 4),
        )
        return clip(moved)


def resize(sample: Sample, size: tuple[int, int], interpolation: Interpolation = "area") -> Sample:
    """The sample at (height, width); the same object where that is its size already."""
    height, width = sample.image.shape[:2]
    if size == (height, width):
        return sample
    image = resize_image(sample.image, size, interpolation)
    y, x = size[0] / height, size[1] / width
    return replace(
        sample,
        image=image,
        boxes=(sample.boxes * np.array([x, y, x, y])).astype(np.float32),
        scale=(sample.scale * np.array([y, x])).astype(np.float32),
    )


def resize_image(
    image: NDArray[np.uint8], size: tuple[int, int], interpolation: Interpolation
) -> NDArray[Any]:
    """The image at (height, width); what the interpolations do, `Interpolation` says."""
    wanted = (size[1], size[0])
    if interpolation == "pillow":
        return resize_by_pillow(image, size)
    if interpolation == "torch":
        return cv2.resize(image.astype(np.float32), wanted, interpolation=cv2.INTER_LINEAR)
    is_averaged = averages((image.shape[0], image.shape[1]), size, interpolation)
    method = cv2.INTER_AREA if is_averaged else cv2.INTER_LINEAR
    return cv2.resize(image, wanted, interpolation=method)


def crop(sample: Sample, size: tuple[int, int], draws: NDArray[np.float64]) -> Sample:
    """A window of at most (height, width), placed by two draws in [0, 1); boxes are cut to it."""
    spare = np.maximum(np.array(sample.image.shape[:2]) - size, 0)
    if not spare.any():
        return sample
    top, left = (int(d) for d in draws * (spare + 1))
    image = np.ascontiguousarray(sample.image[top : top + size[0], left : left + size[1]])
    shift = np.array([left, top, left, top], np.float32)
    return clip(replace(sample, image=image, boxes=sample.boxes - shift))


def clip(sample: Sample) -> Sample:
    """The sample with its boxes cut to the image; one outside keeps no area."""
    height, width = sample.image.shape[:2]
    limits = np.array([width, height, width, height], np.float32)
    return replace(sample, boxes=np.clip(sample.boxes, 0, limits))


def visible(boxes: NDArray[np.float32], whole: NDArray[np.float32]) -> NDArray[np.float64]:
    """(M,) areas of the boxes, divided by those of the same boxes before they were cut."""
    areas = [np.prod((b[:, 2:] - b[:, :2]).astype(np.float64), axis=1) for b in (boxes, whole)]
    return areas[0] / np.maximum(areas[1], np.finfo(np.float64).tiny)


def keep(sample: Sample, is_visible: NDArray[np.bool_]) -> Sample:
    """The sample with the objects that are visible or crowds, and at least MIN_SIDE long."""
    sides = sample.boxes[:, 2:] - sample.boxes[:, :2]
    return _select(sample, (is_visible | sample.crowd) & np.all(sides >= MIN_SIDE, axis=1))


def _select(sample: Sample, which: Any) -> Sample:
    """The sample with some of its objects, by mask or by index."""
    return replace(
        sample, boxes=sample.boxes[which], labels=sample.labels[which], crowd=sample.crowd[which]
    )


def _flip(probability: float) -> Any:
    boxes = albumentations.BboxParams(format="pascal_voc", label_fields=["numbers"])
    return albumentations.Compose([albumentations.HorizontalFlip(p=probability)], bbox_params=boxes)


def _color(probability: float) -> Any:
    strength = (0.7, 1.3)
    return albumentations.Compose(
        [albumentations.ColorJitter(strength, strength, strength, (-0.02, 0.02), p=probability)]
    )


def albumentations_seed(key: int, purpose: int) -> int:
    """32 bits for albumentations. Without a seed of its own, each worker would draw the same."""
    return int(np.random.SeedSequence([key, purpose]).generate_state(1)[0])


def _require_options(
    min_size: int | None, max_size: int | None, scale_jitter: tuple[float, float]
) -> None:
    require_sizes(min_size, max_size)
    low, high = scale_jitter
    require(
        0 < low <= high,
        f"scale_jitter: {list(scale_jitter)} given, 0 < smallest <= largest is needed",
    )
