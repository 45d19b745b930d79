"""What the class outputs of an anchor mean.

The head takes its width and its bias from here, post-processing and calibration its scores; none of
them knows the loss. Mixing these up (a softmax read as sigmoids) is the commonest way to compare
losses wrongly.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from detector.structures import promote


def logit(p: float) -> float:
    """log(p / (1 - p)) for p in (0, 1)."""
    return math.log(p / (1 - p))


class Layout(ABC):
    """The meaning of D outputs per anchor for K classes."""

    def __init__(self, num_classes: int) -> None:
        if num_classes < 1:
            raise ValueError(f"num_classes={num_classes}: at least 1 is needed")
        self.num_classes = num_classes

    @property
    @abstractmethod
    def num_outputs(self) -> int:
        """D."""

    @abstractmethod
    def initial_bias(self, prior: float) -> Tensor:
        """(D,) float32 bias at which `foreground` is `prior` (Lin et al. 2017, section 4.1)."""

    @abstractmethod
    def scores(self, logits: Tensor) -> Tensor:
        """(..., K) probabilities in [0, 1] of (..., D) logits, in float32 or better."""

    @abstractmethod
    def foreground(self, logits: Tensor) -> Tensor:
        """What equals the prior at the initial bias: (..., K) for Sigmoid, else (..., 1)."""


class Sigmoid(Layout):
    """K independent probabilities; background is where all are low (RetinaNet)."""

    @property
    def num_outputs(self) -> int:
        return self.num_classes

    def initial_bias(self, prior: float) -> Tensor:
        return torch.full((self.num_classes,), logit(prior))

    def scores(self, logits: Tensor) -> Tensor:
        return promote(logits).sigmoid()

    def foreground(self, logits: Tensor) -> Tensor:
        return self.scores(logits)


class Softmax(Layout):
    """One of K + 1, background first (class 0, as in SSD)."""

    @property
    def num_outputs(self) -> int:
        return 1 + self.num_classes

    def initial_bias(self, prior: float) -> Tensor:
        bias = torch.zeros(self.num_outputs)
        bias[0] = math.log(self.num_classes) - logit(prior)
        return bias

    def scores(self, logits: Tensor) -> Tensor:
        return promote(logits).softmax(-1)[..., 1:]

    def foreground(self, logits: Tensor) -> Tensor:
        # The sum of the classes, not 1 - background: that cancels where the prior is small.
        return self.scores(logits).sum(-1, keepdim=True)


class Objectness(Layout):
    """One probability that there is an object, times K independent class probabilities (YOLO)."""

    @property
    def num_outputs(self) -> int:
        return 1 + self.num_classes

    def initial_bias(self, prior: float) -> Tensor:
        class_bias = -math.log(self.num_classes - 1) if self.num_classes > 1 else 0.0
        return torch.tensor([logit(prior)] + [class_bias] * self.num_classes)

    def scores(self, logits: Tensor) -> Tensor:
        probabilities = promote(logits).sigmoid()
        return probabilities[..., :1] * probabilities[..., 1:]

    def foreground(self, logits: Tensor) -> Tensor:
        return promote(logits[..., :1]).sigmoid()
