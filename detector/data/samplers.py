"""Which images a run sees more often than others. A sampler is a class here and a yaml in
`configs/sampler`; what it says is a number for each image, all else is `detector/data/sampler.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from detector.config.ranges import Between
from detector.config.registry import SAMPLERS
from detector.data.annotations import Annotations


class Sampler(ABC):
    """Its options are the keyword-only arguments of its constructor."""

    @abstractmethod
    def repeats(self, annotations: Annotations) -> NDArray[np.float64] | None:
        """(I,) how often each image comes in an epoch on average; None: each exactly once."""


@SAMPLERS.register("shuffle")
class Shuffle(Sampler):
    """Every image once in each epoch, in an order of its own."""

    def repeats(self, annotations: Annotations) -> None:
        return None


@SAMPLERS.register("repeat_factor")
class RepeatFactor(Sampler):
    """An image comes as often as its rarest class asks: max(1, sqrt(threshold / f)).

    f is the share of the images that hold the class. Classes in at least `threshold` of the images
    are left as they are, and so are images without objects. Crowds count as objects of their class:
    it is seen on the image. An epoch is longer than the data set by what is repeated.

    Gupta et al. 2019, "LVIS", arXiv 1908.03195, section 5.3 and appendix; 0.001 is theirs, for
    1,203 classes. Where a class of few is rare, a threshold of 0.1 to 0.5 does something.
    """

    def __init__(self, *, threshold: Annotated[float, Between(0, 1)] = 0.001) -> None:
        self.threshold = threshold

    def repeats(self, annotations: Annotations) -> NDArray[np.float64]:
        images, labels = pairs(annotations)
        share = np.bincount(labels, minlength=len(annotations.classes)) / len(annotations)
        factor = np.sqrt(self.threshold / np.maximum(share, 1 / len(annotations)))
        result = np.ones(len(annotations))
        np.maximum.at(result, images, factor[labels])
        return result


@SAMPLERS.register("class_balanced")
class ClassBalanced(Sampler):
    """As if a class were drawn first, and then an image that holds it.

    power: a class in n images is drawn in proportion to n^(1 - power): 1, the default, draws all
    classes alike, 0.5 by the root of n, 0 as often as the images hold them. An image stands for
    each class that it holds, and comes the more often the more and the rarer they are. Images
    without objects come once an epoch, as they do without a sampler; an epoch is as long as the
    data set.

    Shen et al. 2016, "Relay Backpropagation", arXiv 1512.05830, section 3.2, "class-aware
    sampling".
    """

    def __init__(self, *, power: Annotated[float, Between(0, 1)] = 1.0) -> None:
        self.power = power

    def repeats(self, annotations: Annotations) -> NDArray[np.float64]:
        images, labels = pairs(annotations)
        counts = np.bincount(labels, minlength=len(annotations.classes))
        result = np.zeros(len(annotations))
        np.add.at(result, images, counts[labels] ** -self.power)
        has_objects = result > 0
        result *= has_objects.sum() / max(result.sum(), np.finfo(float).tiny)
        result[~has_objects] = 1.0
        return result


def pairs(annotations: Annotations) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Images and the classes that they hold, each pair once: (P,) indices and (P,) classes."""
    owners = np.repeat(np.arange(len(annotations)), np.diff(annotations.starts))
    flat = np.unique(owners * len(annotations.classes) + annotations.labels)
    images, labels = np.divmod(flat, len(annotations.classes))
    return images, labels
