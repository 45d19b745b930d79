"""From the terms of a loss to the number that is minimised: weights, normaliser, guided scale.

A loss says how wrong each anchor is; what its sum is divided by and multiplied with is decided
here, the same for every loss. Otherwise a comparison of losses is one of their normalisers: each
framework has its own, and the same alpha, gamma and rate are not the same experiment under two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from detector.config import Config
from detector.config.schema import require
from detector.data.annotations import Annotations
from detector.errors import ConfigError
from detector.losses.base import ClassLoss
from detector.structures import Matches

Normalizer = Literal["positives", "image_positives", "ema_positives", "images"]

LevelWeights = Literal["positives"]

MOST_LEVELS = 16
"""Levels that a pyramid may have; finer ones come first, the rest of a buffer stays 0."""

EMA_START, EMA_MOMENTUM = 100.0, 0.9
"""Of `ema_positives`, as in detectron2's RetinaNet."""


def moving_average(average: Tensor, positives: Tensor) -> Tensor:
    """The () average after a step with () `positives`; 0 counts as 1, which is what they divide
    by."""
    return EMA_MOMENTUM * average + (1 - EMA_MOMENTUM) * positives.clamp(min=1)


def is_box_term(name: str) -> bool:
    """Whether a logged term, `loss_box...`, is of the box loss."""
    return name.startswith("loss_box")


class Weighting(nn.Module):
    """Turns the terms of a step into numbers.

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
    level_weights: "positives": the terms of an anchor are multiplied by 2 on the level with the
        fewest positives so far, by 1 on that with the most, and by what lies in proportion on the
        others. Chen et al. 2021, "DDOD", arXiv 2107.02963, section 3.4, and their code. Until a
        step has told them apart it is 1.
    batch_size: images of the optimizer step, over ranks and micro-batches. world_size: ranks whose
        gradients are averaged.

    Its buffers are what it remembers of the accepted steps, () float64, and are saved with a run:
    `ema_positives`, the moving average of the positives of a step, `class_scale`, what the guided
    scale multiplies the class terms with in the coming step, and with level weights
    `level_positives`, the positives of each level of all steps.
    """

    class_weights: Tensor | None
    ema_positives: Tensor
    class_scale: Tensor
    level_positives: Tensor

    def __init__(
        self,
        *,
        class_normalizer: Normalizer = "positives",
        box_normalizer: Normalizer = "positives",
        class_weights: Tensor | None = None,
        guided_scale: bool = False,
        level_weights: LevelWeights | None = None,
        batch_size: int = 1,
        world_size: int = 1,
    ) -> None:
        super().__init__()
        self.level_weights: LevelWeights | None = level_weights
        self.class_normalizer: Normalizer = class_normalizer
        self.box_normalizer: Normalizer = box_normalizer
        self.guided_scale = guided_scale
        self.batch_size = batch_size
        self.world_size = world_size
        self.register_buffer("class_weights", class_weights, persistent=False)  # of the config
        self.register_buffer("ema_positives", torch.tensor(EMA_START, dtype=torch.float64))
        self.register_buffer("class_scale", torch.ones((), dtype=torch.float64))
        if level_weights is not None:
            counts = torch.zeros(MOST_LEVELS, dtype=torch.float64)
            self.register_buffer("level_positives", counts)

    @property
    def statistics_names(self) -> tuple[str, ...]:
        """Names of what `statistics` gives and `update` wants."""
        return () if self.level_weights is None else ("level_positives",)

    def statistics(self, matches: Matches) -> dict[str, Tensor]:
        """Sums that `update` wants, added over micro-batches and ranks."""
        if self.level_weights is None:
            return {}
        counts = matches.foreground.sum(0).split(matches.anchors.level_sizes)
        sums = torch.stack([count.sum() for count in counts]).double()
        return {"level_positives": nn.functional.pad(sums, (0, MOST_LEVELS - len(sums)))}

    def level_factors(self, matches: Matches) -> Tensor | None:
        """(A,) factors of the levels of the anchors; None where all are 1."""
        if self.level_weights is None:
            return None
        sizes = matches.anchors.level_sizes
        counts = self.level_positives[: len(sizes)]
        span = counts.max() - counts.min()
        factors = torch.where(span > 0, 2 - (counts - counts.min()) / span.clamp(min=1), 1.0)
        repeats = torch.tensor(sizes, device=factors.device)
        return factors.repeat_interleave(repeats, output_size=sum(sizes))

    def update(
        self,
        terms: Mapping[str, float],
        positives: float,
        statistics: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Remembers an accepted step with these terms and positives, of the whole step.

        statistics: summed over micro-batches and ranks; needed with level weights.
        """
        if self.level_weights is not None:
            assert statistics is not None, "level weights need the positives of each level"
            self.level_positives += statistics["level_positives"]
        count = self.ema_positives.new_tensor(positives)
        self.ema_positives.copy_(moving_average(self.ema_positives, count))
        box = sum(v for k, v in terms.items() if is_box_term(k))
        scaled = sum(v for k, v in terms.items() if k.startswith("loss_") and not is_box_term(k))
        if box > 0 and scaled > 0:  # a step without objects says nothing about their ratio
            self.class_scale.mul_(box / scaled)

    def divisor(self, normalizer: Normalizer, matches: Matches, positives: Tensor) -> Tensor:
        """() or (N,) what the sums of the images are divided by on this rank.

        Gradients are averaged over ranks, hence the division by their number: the result is the
        step's sum over the step's count, however the step is split.
        """
        if normalizer == "image_positives":
            count = self.batch_size * matches.foreground.sum(1).clamp(min=1).double()
        elif normalizer == "ema_positives":
            count = moving_average(self.ema_positives, positives)
        elif normalizer == "images":
            count = torch.full_like(positives, self.batch_size)
        else:
            count = positives.clamp(min=1)
        return count / self.world_size

    def forward(
        self,
        class_terms: Mapping[str, Tensor],
        box_terms: Mapping[str, Tensor],
        factors: Mapping[str, float | Tensor],
        matches: Matches,
        positives: Tensor,
    ) -> dict[str, Tensor]:
        """() tensors by name, `loss_...`: each term weighted, summed and divided.

        class_terms: (N, A, K), (N, A) or (N,) of a class loss. box_terms: (N, A) of a box loss.
        factors: "loss" and "box_loss", on the terms of each, numbers or (). positives: () of the
            whole step.
        """
        result: dict[str, Tensor] = {}
        divisor = self.divisor(self.class_normalizer, matches, positives)
        levels = self.level_factors(matches)
        for name, term in class_terms.items():
            sums = of_levels(self.weigh_classes(term, matches), levels).flatten(1).sum(1)
            value = (sums / divisor.to(sums.dtype)).sum()
            result[f"loss_{name}"] = self.class_factor(factors["loss"], value) * value
        divisor = self.divisor(self.box_normalizer, matches, positives)
        for name, term in box_terms.items():
            sums = of_levels(term, levels).flatten(1).sum(1)
            value = (sums / divisor.to(sums.dtype)).sum()
            result[f"loss_{name}"] = in_type_of(value, factors["box_loss"]) * value
        return result

    def class_factor(self, factor: float | Tensor, like: Tensor) -> Tensor | float:
        """The factor on the class terms, with the guided scale where there is one."""
        return in_type_of(like, factor * self.class_scale if self.guided_scale else factor)

    def weigh_classes(self, term: Tensor, matches: Matches) -> Tensor:
        """`term` (N, A[, K]) times the weight of each anchor's class; as a (N, 1) if it is (N,)."""
        if term.dim() == 1:
            return term[:, None]
        if self.class_weights is None:
            return term
        factors = self.class_weights.to(term)[(matches.labels + 1).clamp(min=0)]
        return term * (factors if term.dim() == 2 else factors[..., None])


def in_type_of(like: Tensor, factor: float | Tensor) -> float | Tensor:
    """A factor that does not turn what it is multiplied with into another type."""
    return factor.to(like.dtype) if isinstance(factor, Tensor) else factor


def of_levels(term: Tensor, factors: Tensor | None) -> Tensor:
    """`term` (N, A[, K]) times the factors (A,) of the levels of the anchors, if there are any."""
    if factors is None:
        return term
    factors = factors.to(term.dtype)
    return term * (factors if term.dim() == 2 else factors[:, None])


def build_weighting(
    config: Config, loss: ClassLoss, annotations: Annotations, world_size: int
) -> Weighting:
    """The weighting a config asks for. Raises ConfigError for one that the loss cannot have."""
    chosen = config.normalizer
    require_normalizer(loss, chosen, config.loss.name)
    return Weighting(
        class_normalizer=chosen or loss.normalizer,
        box_normalizer=chosen or "positives",
        class_weights=class_weights(config, loss, annotations),
        guided_scale=config.guided_scale,
        level_weights=config.level_weights,
        batch_size=config.batch_size,
        world_size=world_size,
    )


def require_normalizer(loss: ClassLoss, normalizer: Normalizer | None, name: str) -> None:
    """Raises ConfigError where the loss of this name has taken its own mean, and is to be divided
    by something else than the images."""
    require(
        loss.normalizer == "positives" or normalizer in (None, "images"),
        f"normalizer: {normalizer} given, but loss={name} has taken a mean within each image; "
        "null or images is allowed",
    )


def require_level_weights(loss: ClassLoss, weights: LevelWeights | None, name: str) -> None:
    """Raises ConfigError where the loss of this name is no sum over anchors, but levels have
    weights."""
    require(
        weights is None or loss.separable,
        f"level_weights: {weights} given, but loss={name} is no sum over anchors; null is allowed",
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
    power = config.class_weights_power
    if isinstance(given, str):
        counts = np.bincount(annotations.labels[~annotations.crowd], minlength=num_classes)
        beta = config.effective_number_beta
        values = (
            effective_number_weights(counts, beta)
            if given == "effective_number"
            else 1 / np.maximum(counts, 1)
        )
        if power != 1 or given == "frequency":
            values = values**power
            values = values * len(values) / values.sum()
    else:
        if len(given) != num_classes:
            raise ConfigError(
                f"class_weights: {len(given)} given, one for each of {num_classes} classes is "
                f"needed: {', '.join(annotations.classes)}"
            )
        values = np.array(given) ** power
    return torch.tensor([1.0, *values], dtype=torch.float32)


def effective_number_weights(counts: np.ndarray, beta: float) -> np.ndarray:
    """(K,) weights (1 - beta) / (1 - beta^n) of classes with n objects, scaled to a mean of 1.

    Cui et al. 2019, "Class-Balanced Loss Based on Effective Number of Samples", arXiv 1901.05555,
    equation 3. A class without objects counts as one with 1. They balance classes among each other;
    background has no number of samples, so its weight is 1.
    """
    weights = (1 - beta) / (1 - beta ** np.maximum(counts, 1))
    return weights * len(weights) / weights.sum()
