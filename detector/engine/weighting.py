"""From the terms of a loss to the number that is minimised: weights, normaliser, guided scale.

A loss says how wrong each anchor is; what its sum is divided by and multiplied with is decided
here, the same for every loss. Otherwise a comparison of losses is one of their normalisers: each
framework has its own, and the same alpha, gamma and rate are not the same experiment under two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from detector.box_losses import BoxLoss
from detector.config import Config
from detector.data.annotations import Annotations
from detector.distributed import World
from detector.errors import ConfigError
from detector.losses.base import ClassLoss
from detector.schema import require
from detector.structures import Matches, Predictions, Targets

Normalizer = Literal["positives", "image_positives", "ema_positives", "images"]

EMA_START, EMA_MOMENTUM = 100.0, 0.9
"""Of `ema_positives`, as in detectron2's RetinaNet."""


@dataclass
class Balance:
    """What the weighting remembers of the accepted steps; saved with the run.

    ema_positives: moving average of the positives of a step.
    class_scale: what the guided scale multiplies the class terms with in the coming step.
    """

    ema_positives: float = EMA_START
    class_scale: float = 1.0

    def update(self, values: dict[str, float], positives: float) -> None:
        """After an accepted step with the terms `values`, summed over everything."""
        self.ema_positives = moving_average(self.ema_positives, positives)
        box = sum(v for k, v in values.items() if is_box_term(k))
        scaled = sum(v for k, v in values.items() if k.startswith("loss_") and not is_box_term(k))
        if box > 0 and scaled > 0:  # a step without objects says nothing about their ratio
            self.class_scale *= box / scaled


def moving_average(average: Any, positives: Any) -> Any:
    """The average after a step with `positives`; 0 counts as 1, which is what they divide by."""
    at_least_1 = positives.clamp(min=1) if isinstance(positives, Tensor) else max(1.0, positives)
    return EMA_MOMENTUM * average + (1 - EMA_MOMENTUM) * at_least_1


def is_box_term(name: str) -> bool:
    """Whether a logged term, `loss_box...`, is of the box loss."""
    return name.startswith("loss_box")


@dataclass(frozen=True)
class Weighting:
    """How the terms of a step become numbers.

    class_normalizer, box_normalizer: what the sums over anchors are divided by.
        positives: the positives of the whole step, over ranks and micro-batches (the default: the
            gradient does not depend on how a step is split).
        image_positives: in each image by its own positives, then the mean over the images of the
            step (torchvision).
        ema_positives: as positives, averaged over steps with momentum 0.9 from 100 (detectron2).
        images: the images of the step.
    class_weights: (1 + K,) factor on the class terms of an anchor, background first; or None.
    guided_scale: the class terms are scaled to the sum of the box terms, by the ratio of the
        previous accepted step, so that losses of another scale share the layers alike. Chen et al.
        2019, "Is Sampling Heuristics Necessary", arXiv 1909.04868, who take the ratio of the
        present step; that of the previous one is the same for every rank and micro-batch.
    """

    class_normalizer: Normalizer
    box_normalizer: Normalizer
    class_weights: Tensor | None
    guided_scale: bool
    batch_size: int
    world: World

    def positives(self, matches: list[Matches | None], targets: list[Targets]) -> Tensor:
        """() float64 positives of the whole step, over ranks and the micro-batches given.

        A matcher that needs predictions has no matches yet: then the objects are counted.
        """
        counts = [
            count_objects(t.labels, t.crowd) if m is None else m.foreground.sum()
            for m, t in zip(matches, targets, strict=True)
        ]
        return self.world.sum(torch.stack(counts).sum().double())

    def divisor(
        self, normalizer: Normalizer, matches: Matches, positives: Tensor, balance: Balance
    ) -> Tensor:
        """() or (N,) what the sums of the images are divided by on this rank.

        Gradients are averaged over ranks, hence the division by their number: the result is the
        step's sum over the step's count, however the step is split.
        """
        if normalizer == "image_positives":
            count = self.batch_size * matches.foreground.sum(1).clamp(min=1).double()
        elif normalizer == "ema_positives":
            count = moving_average(balance.ema_positives, positives)
        elif normalizer == "images":
            count = torch.full_like(positives, self.batch_size)
        else:
            count = positives.clamp(min=1)
        return count / self.world.size

    def __call__(
        self,
        loss: ClassLoss,
        box_loss: BoxLoss,
        weights: dict[str, float],
        predictions: Predictions,
        matches: Matches,
        positives: Tensor,
        balance: Balance,
    ) -> dict[str, Tensor]:
        """() tensors by name, `loss_...`: each term weighted, summed and divided.

        weights: factors "loss" and "box_loss". positives: of the whole step, from `positives`.
        """
        terms: dict[str, Tensor] = {}
        scale = weights["loss"] * (balance.class_scale if self.guided_scale else 1.0)
        divisor = self.divisor(self.class_normalizer, matches, positives, balance)
        for name, term in loss(predictions, matches).items():
            sums = self.weigh_classes(term, matches).flatten(1).sum(1)
            terms[f"loss_{name}"] = scale * (sums / divisor.to(sums.dtype)).sum()
        divisor = self.divisor(self.box_normalizer, matches, positives, balance)
        for name, term in box_loss(predictions, matches).items():
            sums = term.flatten(1).sum(1)
            terms[f"loss_{name}"] = weights["box_loss"] * (sums / divisor.to(sums.dtype)).sum()
        return terms

    def weigh_classes(self, term: Tensor, matches: Matches) -> Tensor:
        """`term` (N, A[, K]) times the weight of each anchor's class; as a (N, 1) if it is (N,)."""
        if term.dim() == 1:
            return term[:, None]
        if self.class_weights is None:
            return term
        factors = self.class_weights.to(term)[(matches.labels + 1).clamp(min=0)]
        return term * (factors if term.dim() == 2 else factors[..., None])


def build_weighting(
    config: Config, loss: ClassLoss, annotations: Annotations, world: World
) -> Weighting:
    """The weighting a config asks for. Raises ConfigError for one that the loss cannot have."""
    chosen = config.normalizer
    require(
        loss.normalizer == "positives" or chosen in (None, "images"),
        f"normalizer: {chosen} given, but loss={config.loss.name} has taken a mean within each "
        "image; null or images is allowed",
    )
    weights = class_weights(config, loss, annotations)
    return Weighting(
        class_normalizer=chosen or loss.normalizer,
        box_normalizer=chosen or "positives",
        class_weights=None if weights is None else weights.to(world.device),
        guided_scale=config.guided_scale,
        batch_size=config.batch_size,
        world=world,
    )


def class_weights(config: Config, loss: ClassLoss, annotations: Annotations) -> Tensor | None:
    """(1 + K,) float32 factors, 1 for background; None where `class_weights` is null.

    Raises ConfigError for a wrong number of them and for a loss that is no sum over anchors.
    """
    given = config.class_weights
    if given is None:
        return None
    name, num_classes = config.loss.name, len(annotations.classes)
    require(
        loss.separable,
        f"class_weights: {given} given, but loss={name} is no sum over anchors; null is allowed",
    )
    if isinstance(given, str):
        counts = np.bincount(annotations.labels[~annotations.crowd], minlength=num_classes)
        values = effective_number_weights(counts, config.effective_number_beta)
    else:
        if len(given) != num_classes:
            raise ConfigError(
                f"class_weights: {len(given)} given, one for each of {num_classes} classes is "
                f"needed: {', '.join(annotations.classes)}"
            )
        values = np.array(given)
    return torch.tensor([1.0, *values], dtype=torch.float32)


def effective_number_weights(counts: np.ndarray, beta: float) -> np.ndarray:
    """(K,) weights (1 - beta) / (1 - beta^n) of classes with n objects, scaled to a mean of 1.

    Cui et al. 2019, "Class-Balanced Loss Based on Effective Number of Samples", arXiv 1901.05555,
    equation 3. A class without objects counts as one with 1. They balance classes among each other;
    background has no number of samples, so its weight is 1.
    """
    weights = (1 - beta) / (1 - beta ** np.maximum(counts, 1))
    return weights * len(weights) / weights.sum()


def count_objects(labels: Tensor, crowd: Tensor) -> Tensor:
    """() objects that a matcher may serve."""
    return ((labels >= 0) & ~crowd).sum()
