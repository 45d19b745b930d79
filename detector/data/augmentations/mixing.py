"""Images made of several: mosaic, mixup and copy-paste of boxes, then blur, noise and JPEG.

Boxes stay exact: images are put together at whole pixels, and what is cut away is cut off the box.
What takes part, where it goes and how it looks follows from the key of the sample, so it is the
same in any process, in any order.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import albumentations
import numpy as np
from numpy.typing import NDArray

from detector.config.registry import AUGMENTATIONS
from detector.config.schema import require
from detector.data.resizing import Interpolation, SizeRounding
from detector.data.transforms import (
    Albumentations,
    Augmentation,
    Others,
    Sample,
    albumentations_seed,
    clip,
    crop,
    keep,
    visible,
)

FILL = (124, 116, 104)
"""Pixels where no image is: ImageNet's mean, which is near 0 for the model, as its padding is."""

MOST_COVERED = 0.3
"""Share of an object that a pasted one may hide."""

PLACES = 8
"""Tries to find a place at which a pasted object hides no other."""

MIX_ALIKE = 32.0
"""Both parameters of mixup's Beta distribution: nearly half and half, as in YOLOX's successors, so
that the objects of both images can be seen and count in full."""


@AUGMENTATIONS.register("mixing")
class Mixing(Augmentation):
    """What `albumentations` does to one image, and beyond it images made of several.

    min_size, max_size, interpolation, size_rounding, horizontal_flip, scale_jitter, color,
    min_visible: as there, for each image that takes part.
    mosaic: probability that an image is made of four, which meet at a random point of its middle
    (Bochkovskiy et al. 2020, "YOLOv4", arXiv 2004.10934, section 3.3). It has the size of the first
    one without jitter; of an image that is larger than its quarter a random window is seen.
    copy_paste: probability that objects of another image are pasted, each with its box's content,
    where they hide no other by more than 0.3 (Dwibedi et al. 2017, "Cut, Paste and Learn", arXiv
    1708.01642; Ghiasi et al. 2021, arXiv 2012.07177, with masks, which boxes do not have).
    mixup: probability that it is blended with a window of another one, about half and half; the
    objects of both count (Zhang et al. 2019, "Bag of Freebies", arXiv 1902.04103).
    blur, noise, jpeg: probabilities of a Gaussian blur of up to 7 px, of Gaussian noise of a
    deviation of 2 % to 8 % and of a JPEG quality of 40 to 95, of what has been put together.
    mix_until: share of the run after which images are no longer mixed, so that training ends on
    images as they are (Ge et al. 2021, "YOLOX", arXiv 2107.08430: the last 15 of 300 epochs).

    Where there are no other images, as in a look at one alone, nothing is mixed.
    """

    def __init__(
        self,
        *,
        min_size: int | None = None,
        max_size: int | None = None,
        interpolation: Interpolation = "area",
        size_rounding: SizeRounding = "nearest",
        horizontal_flip: float = 0.5,
        scale_jitter: tuple[float, float] = (0.5, 2.0),
        color: float = 0.5,
        min_visible: float = 0.25,
        mosaic: float = 0.5,
        copy_paste: float = 0.3,
        mixup: float = 0.1,
        blur: float = 0.1,
        noise: float = 0.1,
        jpeg: float = 0.1,
        mix_until: float = 0.9,
    ) -> None:
        shares = {"mosaic": mosaic, "copy_paste": copy_paste, "mixup": mixup, "blur": blur,
                  "noise": noise, "jpeg": jpeg, "mix_until": mix_until}  # fmt: skip
        for key, value in shares.items():
            require(0 <= value <= 1, f"{key}: {value} given, 0 to 1 is allowed")
        require(
            interpolation != "torch",
            "interpolation: torch gives fractions of pixels, which are not mixed; take another",
        )
        self.single = Albumentations(
            min_size=min_size,
            max_size=max_size,
            interpolation=interpolation,
            size_rounding=size_rounding,
            horizontal_flip=horizontal_flip,
            scale_jitter=scale_jitter,
            color=color,
            min_visible=min_visible,
        )
        self.mosaic, self.copy_paste, self.mixup = mosaic, copy_paste, mixup
        self.min_visible, self.mix_until = min_visible, mix_until
        self.degrade = _degrade(blur, noise, jpeg) if max(blur, noise, jpeg) > 0 else None

    def train(self, sample: Sample, key: int) -> Sample:
        return self._degraded(self.single.train(sample, key), key)

    def evaluate(self, sample: Sample) -> Sample:
        return self.single.evaluate(sample)

    def train_among(self, sample: Sample, key: int, others: Others, share: float) -> Sample:
        """As `train`, with other images mixed in until the share `mix_until` of the run."""
        if share >= self.mix_until or len(others) < 2:
            return self.train(sample, key)
        draws = _generator(key, 10)
        has_mosaic, has_paste, has_mixup = draws.random(3) < (
            self.mosaic, self.copy_paste, self.mixup,
        )  # fmt: skip
        result = self.single.train(sample, key)
        if has_mosaic:
            parts = [result, *(self._other(others, key, 20 + i) for i in range(3))]
            size = self.single.target_size(sample.image, 1.0)
            result = mosaic(parts, size, _generator(key, 11), self.min_visible)
        if has_paste:
            result = paste(result, self._other(others, key, 23), _generator(key, 12))
        if has_mixup:
            other, more = self._other(others, key, 24), _generator(key, 13)
            result = blend(result, other, more, self.min_visible)
        return self._degraded(result, key)

    def _other(self, others: Others, key: int, purpose: int) -> Sample:
        """Another image that the key chooses, as it would be trained on alone."""
        draws = _generator(key, purpose)
        return self.single.train(
            others[int(draws.integers(len(others)))], int(draws.integers(2**63))
        )

    def _degraded(self, sample: Sample, key: int) -> Sample:
        if self.degrade is None:
            return sample
        self.degrade.set_random_seed(albumentations_seed(key, 4))
        return replace(sample, image=self.degrade(image=sample.image)["image"])


def mosaic(
    parts: list[Sample], size: tuple[int, int], draws: np.random.Generator, min_visible: float
) -> Sample:
    """Four samples in the quarters of an image of (height, width), from the upper left row by row.

    The point at which they meet is drawn from the middle 40 % of each side. An image with a side of
    1 px has no quarters: it is returned as it is.
    """
    if min(size) < 2:
        return parts[0]
    y, x = (
        min(max(1, round(side * (0.3 + 0.4 * d))), side - 1)
        for side, d in zip(size, draws.random(2), strict=True)
    )
    corners = [(0, 0), (0, x), (y, 0), (y, x)]
    sizes = [(y, x), (y, size[1] - x), (size[0] - y, x), (size[0] - y, size[1] - x)]
    image = np.empty((*size, 3), np.uint8)
    placed = []
    for part, (top, left), (height, width) in zip(parts, corners, sizes, strict=True):
        seen = window(part, (height, width), draws.random(2), min_visible)
        image[top : top + height, left : left + width] = seen.image
        placed.append(moved(seen, top, left))
    return together(placed, image, parts[0].scale)


def window(
    sample: Sample, size: tuple[int, int], draws: NDArray[np.float64], min_visible: float
) -> Sample:
    """A random window of exactly (height, width); right and below of a smaller image is `FILL`.

    An object of which a smaller share than `min_visible` is seen is dropped.
    """
    seen = crop(sample, size, draws)
    seen = keep(seen, visible(seen.boxes, sample.boxes) >= min_visible)
    height, width = seen.image.shape[:2]
    if (height, width) == size:
        return seen
    image = np.empty((*size, 3), np.uint8)
    image[:] = FILL
    image[:height, :width] = seen.image
    return replace(seen, image=image)


def paste(sample: Sample, source: Sample, draws: np.random.Generator) -> Sample:
    """The sample with about half of the objects of another pasted in, their boxes' content.

    Each at a random place at which it hides at most `MOST_COVERED` of any object that is there, and
    not at all where none is found in `PLACES` tries. Crowds are not pasted.
    """
    image, boxes = sample.image.copy(), [*sample.boxes]
    chosen = []
    for m in draws.permutation(len(source.boxes)):
        is_chosen = draws.random() < 0.5
        places = draws.random((PLACES, 2))
        if not is_chosen or source.crowd[m]:
            continue
        left, top = np.floor(source.boxes[m, :2]).astype(int)
        right, bottom = np.ceil(source.boxes[m, 2:]).astype(int)
        spare = np.array(image.shape[:2]) - (bottom - top, right - left)
        if spare.min() < 0:
            continue
        for y, x in (places * (spare + 1)).astype(int):
            box = source.boxes[m] + np.array([x - left, y - top] * 2, np.float32)
            if max(_hidden(boxes, box), default=0.0) <= MOST_COVERED:
                patch = source.image[top:bottom, left:right]
                image[y : y + bottom - top, x : x + right - left] = patch
                boxes.append(box)
                chosen.append(m)
                break
    return clip(
        replace(
            sample,
            image=image,
            boxes=np.array(boxes, np.float32).reshape(-1, 4),
            labels=np.concatenate([sample.labels, source.labels[chosen]]),
            crowd=np.concatenate([sample.crowd, source.crowd[chosen]]),
        )
    )


def blend(sample: Sample, other: Sample, draws: np.random.Generator, min_visible: float) -> Sample:
    """The sample blended with a window of another of its size, with the objects of both."""
    height, width = sample.image.shape[:2]
    seen = window(other, (height, width), draws.random(2), min_visible)
    weight = np.float32(draws.beta(MIX_ALIKE, MIX_ALIKE))
    mixed = weight * sample.image.astype(np.float32) + (1 - weight) * seen.image.astype(np.float32)
    return together([sample, seen], np.rint(mixed).astype(np.uint8), sample.scale)


def moved(sample: Sample, top: int, left: int) -> Sample:
    """The sample with its boxes in the pixels of an image in which it lies at (top, left)."""
    return replace(sample, boxes=sample.boxes + np.array([left, top] * 2, np.float32))


def together(parts: list[Sample], image: NDArray[np.uint8], scale: NDArray[np.float32]) -> Sample:
    """One sample of an image with the objects of all parts."""
    return Sample(
        image=image,
        boxes=np.concatenate([part.boxes for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        crowd=np.concatenate([part.crowd for part in parts]),
        scale=scale,
    )


def _hidden(boxes: list[NDArray[np.float32]], box: NDArray[np.float32]) -> list[float]:
    """Share of the area of each of some boxes that lies in `box`."""
    shares = []
    for b in boxes:
        sides = np.minimum(b[2:], box[2:]) - np.maximum(b[:2], box[:2])
        shares.append(float(np.prod(np.maximum(sides, 0)) / np.prod(b[2:] - b[:2])))
    return shares


def _generator(key: int, purpose: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([key, purpose])))


def _degrade(blur: float, noise: float, jpeg: float) -> Any:
    return albumentations.Compose(
        [
            albumentations.GaussianBlur(blur_limit=(3, 7), p=blur),
            albumentations.GaussNoise(std_range=(0.02, 0.08), p=noise),
            albumentations.ImageCompression(quality_range=(40, 95), p=jpeg),
        ]
    )
