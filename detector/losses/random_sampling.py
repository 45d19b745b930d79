"""Random sampling: as many positives as negatives, whichever they are."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from detector.config.ranges import AtLeast, Between
from detector.config.registry import LOSSES
from detector.layouts import Sigmoid
from detector.losses.base import ClassLoss
from detector.losses.cross_entropy import sigmoid_cross_entropy
from detector.losses.mining import hardest
from detector.structures import Matches, Predictions, promote

MULTIPLIERS = (-0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15)
"""Of splitmix64, 0xBF58476D1CE4E5B9 and 0x94D049BB133111EB as signed numbers."""

STEP = -0x61C8864680B583EB
"""Of splitmix64, 0x9E3779B97F4A7C15: 2^64 over the golden ratio."""


def mix(values: Tensor) -> Tensor:
    """(...) int64 of int64: one step of splitmix64, in which every bit hangs on every bit.

    Steele et al. 2014, "Fast Splittable Pseudorandom Number Generators". Integers wrap around
    alike on every device.
    """
    z = values + STEP
    for shift, multiplier in zip((30, 27), MULTIPLIERS, strict=True):
        z = (z ^ _shift_right(z, shift)) * multiplier
    return z ^ _shift_right(z, 31)


def _shift_right(values: Tensor, bits: int) -> Tensor:
    """Zeros come in from the left; the shift of signed numbers brings in their sign."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def draw(keys: Tensor, boxes: Tensor) -> Tensor:
    """(N, A) float64 in [0, 1): a fixed random number for each key (N,) and box (A, 4).

    Boxes are told apart by their corners in 1/1024 px.
    """
    code = keys.new_zeros(len(boxes))
    for corner in (boxes * 1024).round().long().unbind(-1):
        code = mix(code ^ corner)
    bits = _shift_right(mix(mix(keys)[:, None] ^ code), 11)
    return bits.double() / 2**53  # 53 bits are what a float64 holds exactly


@LOSSES.register("random_sampling")
class RandomSamplingLoss(ClassLoss):
    """Mean sigmoid cross entropy of anchors drawn at random in each image.

    num_sampled: anchors of an image that count. positive_fraction: at most this share of them are
    positives; negatives fill the rest, also where positives are few.

    Ren et al. 2015, "Faster R-CNN", arXiv 1506.01497, section 3.1.3, where 256 anchors, half of
    them positives, train the region proposals of an image. What a dense detector does without
    hard mining or focal loss; with it most of the background is never seen.

    The draw is a function of the image's key and the anchor's box, of nothing else: the same on
    every rank, device and split, after a resume, for any padding and order of anchors, and new in
    each epoch. (Of two anchors on the same box the first goes first.) Each image has its own mean,
    so images are counted. A score has no closed form as a posterior: the share of negatives
    that are kept differs from image to image.
    """

    layout_class = Sigmoid
    selects = True
    normalizer = "images"

    def __init__(
        self,
        num_classes: int,
        *,
        num_sampled: Annotated[int, AtLeast(1)] = 256,
        positive_fraction: Annotated[float, Between(0, 1)] = 0.5,
    ) -> None:
        super().__init__(num_classes)
        self.num_sampled = num_sampled
        self.positive_fraction = positive_fraction

    def forward(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        targets = matches.one_hot(self.num_classes)
        loss = sigmoid_cross_entropy(promote(predictions.logits), targets)
        selected = self.select(matches)[..., None]
        count = selected.sum(1, keepdim=True).clamp(min=1)
        return {"class": torch.where(selected, loss / count, 0)}

    def select(self, matches: Matches) -> Tensor:
        """(N, A) bool: the anchors that count."""
        numbers = draw(matches.targets.keys, matches.anchors.boxes)
        quota = numbers.new_full((len(numbers),), int(self.positive_fraction * self.num_sampled))
        positives = hardest(numbers, matches.foreground, quota)
        left = self.num_sampled - positives.sum(1)
        return positives | hardest(numbers, matches.background, left)
