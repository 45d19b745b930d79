"""What the class outputs of an anchor mean, and what its box outputs do.

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
    def name(self) -> str:
        """What it is called in files."""
        return type(self).__name__

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


class Rated(Layout):
    """Another layout and, last, the logit of a rating of the box, which multiplies every score.

    The loss of the classes sees the outputs of the layout inside and knows nothing of it. Tian et
    al. 2019, "FCOS", arXiv 1904.01355, section 3.2, rate by centerness.
    """

    def __init__(self, inner: Layout) -> None:
        super().__init__(inner.num_classes)
        self.inner = inner

    @property
    def name(self) -> str:
        return f"{type(self).__name__} {self.inner.name}"

    @property
    def num_outputs(self) -> int:
        return self.inner.num_outputs + 1

    def initial_bias(self, prior: float) -> Tensor:
        return torch.cat([self.inner.initial_bias(prior), torch.zeros(1)])

    def scores(self, logits: Tensor) -> Tensor:
        classes, rating = self.split(logits)
        return self.inner.scores(classes) * promote(rating).sigmoid()[..., None]

    def foreground(self, logits: Tensor) -> Tensor:
        return self.inner.foreground(self.split(logits)[0])

    def split(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """(..., D - 1) outputs of the layout inside, and (...) logits of the rating."""
        return logits[..., :-1], logits[..., -1]


class BoxLayout(ABC):
    """The meaning of B outputs per anchor for the four numbers by which a coder knows a box."""

    @property
    @abstractmethod
    def num_outputs(self) -> int:
        """B."""

    @abstractmethod
    def initial_bias(self) -> Tensor:
        """(B,) float32 bias at which an anchor says its own box."""

    @abstractmethod
    def numbers(self, outputs: Tensor) -> Tensor:
        """(..., 4) numbers of (..., B) outputs, in float32 or better, differentiable."""


class Deltas(BoxLayout):
    """The four numbers themselves."""

    @property
    def num_outputs(self) -> int:
        return 4

    def initial_bias(self) -> Tensor:
        return torch.zeros(4)

    def numbers(self, outputs: Tensor) -> Tensor:
        return promote(outputs)


class Distribution(BoxLayout):
    """A probability for each of `bins` values from 0 to `reach`, whose mean is the number.

    The numbers are distances of sides, so that there is none below 0. A box whose side is hard to
    tell can say so: its distribution is wide. Li et al. 2020, "Generalized Focal Loss", arXiv
    2006.04388, section 3.2; 17 bins are theirs.
    """

    SELF = 0.5
    """Distance of an anchor's sides from its own centre, in anchor sides."""

    def __init__(self, bins: int, reach: float) -> None:
        if bins < 2:
            raise ValueError(f"bins={bins}: at least 2 are needed")
        if reach <= self.SELF:
            raise ValueError(f"reach={reach}: more than {self.SELF} is needed")
        self.bins, self.reach = bins, reach

    @property
    def num_outputs(self) -> int:
        return 4 * self.bins

    def values(self, like: Tensor) -> Tensor:
        """(bins,) the values that have a probability, on the device and in the type of `like`."""
        return torch.linspace(0, self.reach, self.bins, device=like.device, dtype=like.dtype)

    def initial_bias(self) -> Tensor:
        """Of all distributions whose mean is `SELF` the widest: exp(-rate x), by bisection."""
        values = self.values(torch.zeros((), dtype=torch.float64))
        low, high = -64.0, 64.0 * self.bins / self.reach
        for _ in range(200):
            rate = (low + high) / 2
            mean = float(((-rate * values).softmax(0) * values).sum())
            low, high = (rate, high) if mean > self.SELF else (low, rate)
        return (-low * values).float().repeat(4)

    def numbers(self, outputs: Tensor) -> Tensor:
        shares = promote(outputs).unflatten(-1, (4, self.bins)).softmax(-1)
        return (shares * self.values(shares)).sum(-1)
