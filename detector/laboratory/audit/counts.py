"""Goes through a data set as training would, without its pixels, and counts what is matched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detector.boxes import iou
from detector.config import Config
from detector.config.registry import AUGMENTATIONS, MATCHERS
from detector.data.loader import evaluation_batches
from detector.data.readers.base import Dataset
from detector.matchers.base import Matcher, Thresholds, match_images, may_be_matched, slices
from detector.models.anchors import AnchorGenerator
from detector.models.coder import build_coder
from detector.structures import Anchors, Batch, Matches, Predictions, Targets

IMAGES_PER_GROUP = 8
"""Images padded to a common size, as `prior=from_data` takes them."""


class Blank(Dataset):
    """The same objects on black images, for which no file is read.

    Sizes, resizing, padding and boxes are those of the real images; nothing counted needs more.
    """

    def image(self, index: int) -> NDArray[np.uint8]:
        """(H, W, 3) zeros."""
        height, width = self.annotations.sizes[index].tolist()
        return np.zeros((height, width, 3), np.uint8)


@dataclass(frozen=True)
class Counts:
    """What the anchors of L levels are to say in I images with B objects, crowds left out.

    strides, anchors, positives, neutral: (L,) of each level, summed over images.
    labels: (B,) classes. sides: (B, 2) width and height in pixels of the model's input.
    matched: (B,) positive anchors of each object. unforced: (B,) the same without those that the
        matcher gives to an object only because it has no better one.
    overlaps: (B,) largest IoU of each object with any anchor. images: (B,) index of its image.
    image_sides: (I, 2) height and width of the images at the model's size, without padding.
    """

    strides: NDArray[np.int64]
    anchors: NDArray[np.int64]
    positives: NDArray[np.int64]
    neutral: NDArray[np.int64]
    labels: NDArray[np.int64]
    sides: NDArray[np.float64]
    matched: NDArray[np.int64]
    unforced: NDArray[np.int64]
    overlaps: NDArray[np.float64]
    images: NDArray[np.int64]
    image_sides: NDArray[np.int64]

    @property
    def unreached(self) -> NDArray[np.bool_]:
        """(B,) objects without a positive anchor."""
        return self.matched == 0

    @property
    def forced(self) -> NDArray[np.bool_]:
        """(B,) objects that have one, but none that overlaps them enough."""
        return (self.matched > 0) & (self.unforced == 0)

    @property
    def background(self) -> NDArray[np.int64]:
        """(L,) anchors that are to say that there is nothing."""
        return self.anchors - self.positives - self.neutral

    def prior(self, num_outputs: int) -> float:
        """Share of positives among anchors that count, each with so many foreground outputs.

        Chen et al. 2019, arXiv 1909.04868; what `prior=from_data` takes.
        """
        valid = int((self.anchors - self.neutral).sum())
        return int(self.positives.sum()) / (valid * num_outputs) if valid else 0.0


def count(config: Config, dataset: Dataset, limit: int | None = None) -> Counts:
    """`Counts` of the first `limit` images with the config's sizes, anchors and matcher.

    One group of images is held at a time; what is kept is a few numbers for each object. No random
    augmentation takes part: images have the size of evaluation, which is that of training before
    any jitter.
    """
    matcher: Matcher = MATCHERS.build(config.matcher)
    generator = AnchorGenerator(config.model.anchors)
    weak = without_force(matcher)
    levels: NDArray[np.int64] = np.zeros((3, len(generator.strides)), np.int64)
    rows: list[NDArray[np.float64]] = []
    sizes: list[NDArray[np.int64]] = []
    images: list[NDArray[np.int64]] = []
    first = 0
    for batch, targets in blank_batches(config, dataset, limit):
        height, width = batch.images.shape[-2:]
        anchors = generator.for_image(height, width)
        matches = match(matcher, anchors, targets, config)
        unforced = matches if weak is None else match_images(anchors, targets, weak)
        levels += of_levels(matches)
        rows.append(of_objects(matches, unforced))
        images.append(first + images_of_objects(targets))
        first += len(batch.sizes)
        sizes.append(batch.sizes.numpy())
    objects = np.concatenate(rows)
    all_anchors, positives, neutral = levels
    return Counts(
        np.array(generator.strides), all_anchors, positives, neutral,
        objects[:, 0].astype(np.int64), objects[:, 1:3], objects[:, 3].astype(np.int64),
        objects[:, 4].astype(np.int64), objects[:, 5], np.concatenate(images),
        np.concatenate(sizes),
    )  # fmt: skip


def blank_batches(
    config: Config, dataset: Dataset, limit: int | None, size: int = IMAGES_PER_GROUP
) -> Iterator[tuple[Batch, Targets]]:
    """The images in groups of neighbours, at the size that the model sees, black."""
    augment = AUGMENTATIONS.build(config.augment)
    blank = Blank(dataset.name, dataset.annotations)
    return evaluation_batches(blank, augment, images_per_group=size, limit=limit)


def without_force(matcher: Matcher) -> Thresholds | None:
    """The thresholds of a matcher that forces anchors on objects, with the force taken out."""
    thresholds = getattr(matcher, "thresholds", None)
    if not isinstance(thresholds, Thresholds) or thresholds.force == "none":
        return None
    return replace(thresholds, force="none")


def match(matcher: Matcher, anchors: Anchors, targets: Targets, config: Config) -> Matches:
    """The matches; where a matcher asks what the model says, that is the anchors themselves."""
    if not matcher.uses_predictions:
        return matcher(anchors, targets, None)
    shape = (len(targets.labels), len(anchors.boxes))
    coder = build_coder(config.model.coder)
    deltas = coder.box_layout.initial_bias().expand(*shape, -1)
    predictions = Predictions(torch.zeros(*shape, 1), deltas, anchors, coder)
    return matcher(anchors, targets, predictions)


def of_levels(matches: Matches) -> NDArray[np.int64]:
    """(3, L) anchors, positives and neutral anchors of each level, summed over the images."""
    sizes = list(matches.anchors.level_sizes)
    parts = (torch.ones_like(matches.foreground), matches.foreground, ~matches.valid)
    sums = [[int(level.sum()) for level in part.sum(0).split(sizes)] for part in parts]
    return np.array(sums, np.int64)


def of_objects(matches: Matches, unforced: Matches) -> NDArray[np.float64]:
    """(B, 6) label, width, height, positives, those without force, best IoU, of each object."""
    targets = matches.targets
    which = may_be_matched(targets)
    rows = []
    for i in range(len(which)):
        boxes = targets.boxes[i, which[i]]
        row = torch.stack(
            [
                targets.labels[i, which[i]],
                boxes[:, 2] - boxes[:, 0],
                boxes[:, 3] - boxes[:, 1],
                positives_of_objects(matches.objects[i], which[i]),
                positives_of_objects(unforced.objects[i], which[i]),
                best_overlaps(boxes, matches.anchors.boxes),
            ],
            1,
        )
        rows.append(row.double().numpy())
    return np.concatenate(rows)


def images_of_objects(targets: Targets) -> NDArray[np.int64]:
    """(B,) index within the group of the image of each object that counts."""
    return may_be_matched(targets).nonzero()[:, 0].numpy()


def positives_of_objects(objects: Tensor, which: Tensor) -> Tensor:
    """(B,) anchors of each object that counts. objects: (A,) indices or -1; which: (M,) bool."""
    return torch.bincount(objects[objects >= 0], minlength=len(which))[which]


def best_overlaps(boxes: Tensor, anchors: Tensor) -> Tensor:
    """(B,) largest IoU of boxes (B, 4) with anchors (A, 4)."""
    best = [iou(boxes[part, None], anchors).amax(1) for _, part in slices(boxes, len(anchors))]
    return torch.cat(best) if best else boxes.new_zeros(0)
