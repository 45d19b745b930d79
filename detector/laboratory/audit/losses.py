"""What each registered loss would be at the first step, and who would have its gradient."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.optimize import brentq

from detector.config import Config
from detector.config.registry import LOSSES, MATCHERS, SAMPLERS
from detector.config.schema import LossPlug, options_of
from detector.criterion import build_criterion
from detector.criterion.initial_loss import expected_initial_loss
from detector.criterion.weighting import is_box_term
from detector.data.readers.base import Dataset
from detector.data.sampler import Order
from detector.errors import ConfigError
from detector.laboratory.audit.counts import Blank, Counts, blank_batches
from detector.matchers.base import Matcher
from detector.models.anchors import AnchorGenerator
from detector.models.coder import build_coder
from detector.runtime.distributed import World
from detector.structures import Anchors, Matches, Predictions, Targets
from detector.training.setup import foreground_outputs

IMAGES_AT_A_TIME = 2
"""Of a group: 200,000 anchors with 80 classes are 64 MB an image, several times over."""

SPANS = {"alpha": (1e-4, 1 - 1e-4), "lambda_noobj": (1e-6, 1e2)}
"""Options that weigh objects against background, and between what they are looked for."""


@dataclass(frozen=True)
class Start:
    """The first step under a loss.

    prior: the score of the foreground that it begins with. class_loss: the class terms, weighted
    and divided as in training. negative_share: of |d class terms / d logits|, what lies on
    background.
    """

    prior: float
    class_loss: float
    negative_share: float


@dataclass(frozen=True)
class LossRow:
    """One registered loss. given: at the run's prior; data: at the share of positives; None for
    both with a `reason` where the config does not allow the loss.

    option, balanced: what weighs objects against background, and its value at which each has half
    of the gradient at `given`; None where there is no such option or value, or no need.
    """

    loss: str
    given: Start | None
    data: Start | None
    option: str | None = None
    balanced: float | None = None
    reason: str = ""


class Remembered(Matcher):
    """A matcher that is asked once for each group, whatever number of losses look at it."""

    def __init__(self, matcher: Matcher) -> None:
        self.matcher = matcher
        self.known: dict[tuple[int, ...], Matches] = {}

    def __call__(
        self, anchors: Anchors, targets: Targets, predictions: Predictions | None
    ) -> Matches:
        if targets.image_ids not in self.known:
            self.known[targets.image_ids] = self.matcher(anchors, targets, predictions)
        return self.known[targets.image_ids]


class FirstStep:
    """The first step of a run, for any loss: the images of that step, unaugmented. No model is
    needed for it: its outputs are the biases of the head.

    num_images: how many of them, in the order in which the run would take them.
    """

    def __init__(self, config: Config, dataset: Dataset, num_images: int) -> None:
        self.given = config
        self.annotations = dataset.annotations
        size = min(num_images, len(self.annotations))
        repeats = SAMPLERS.build(config.sampler).repeats(self.annotations)
        draws = Order(config.seed, len(self.annotations), repeats).step(0, size)
        chosen = sorted({draw.image for draw in draws})
        self.config = replace(config, batch_size=len(chosen), micro_batch=None)
        sample = Blank(dataset.name, self.annotations.select(chosen))
        generator = AnchorGenerator(config.model.anchors)
        self.step = [
            (generator.for_image(batch.images.shape[-2], batch.images.shape[-1]), targets)
            for batch, targets in blank_batches(self.config, sample, None, IMAGES_AT_A_TIME)
        ]
        self.num_classes = len(self.annotations.classes)
        self.coder = build_coder(config.model.coder)
        self.world = World(0, 1, torch.device("cpu"))
        self.matcher: Matcher = MATCHERS.build(config.matcher)
        if not self.matcher.uses_predictions:
            self.matcher = Remembered(self.matcher)

    def __call__(self, plug: LossPlug, prior: float) -> Start:
        """Raises ConfigError for options, and for what the config asks that it cannot have."""
        config = replace(self.config, loss=plug, ramps=self.ramps(plug))
        criterion = build_criterion(config, self.annotations, self.world)
        criterion.matcher = self.matcher
        matches = [criterion.match(anchors, targets) for anchors, targets in self.step]
        positives = criterion.positives(matches, [targets for _, targets in self.step])
        numbers = expected_initial_loss(criterion, self.step, self.coder, prior, positives)
        share = numbers.pop("negative_share")
        return Start(prior, sum(v for k, v in numbers.items() if not is_box_term(k)), share)

    def ramps(self, plug: LossPlug) -> tuple[Any, ...]:
        """Those of the run; of its loss only where that is the loss."""
        is_own = plug.name == self.config.loss.name
        return tuple(r for r in self.config.ramps if is_own or not r.option.startswith("loss."))

    def plug(self, name: str) -> LossPlug:
        """The run's own loss as it is configured, any other with its defaults."""
        return self.config.loss if name == self.config.loss.name else LossPlug(name, {})

    def row(self, name: str, counts: Counts) -> LossRow:
        """The row of a loss. counts: of the data, for the prior."""
        plug = self.plug(name)
        try:
            outputs = outputs_of(name, self.num_classes)
            given = self(plug, run_prior(self.given, counts, outputs))
            prior = counts.prior(outputs)
            data = self(plug, prior) if 0 < prior < 1 else None
        except ConfigError as error:
            return LossRow(name, None, None, reason=str(error))
        option = balancing_option(name)
        balanced = None
        if option is not None and given.negative_share > 0.5:
            balanced = self.balance(plug, given.prior, option)
        return LossRow(name, given, data, option, balanced)

    def balance(self, plug: LossPlug, prior: float, option: str) -> float | None:
        """The value of the option at which background has half of the gradient; None: it never has.

        To two digits; looked for within `SPANS`.
        """
        low, high = (to_line(option, end) for end in SPANS[option])

        def excess(place: float) -> float:
            value = from_line(option, place)
            changed = replace(plug, options={**plug.options, option: value})
            return self(changed, prior).negative_share - 0.5

        if excess(low) * excess(high) >= 0:
            return None
        place: Any = brentq(excess, low, high, xtol=2e-3)
        value = from_line(option, place)
        if option == "alpha" and value > 0.5:  # it is 1 - alpha that counts there
            return round(1 - float(f"{1 - value:.2g}"), 9)
        return float(f"{value:.2g}")


def outputs_of(name: str, num_classes: int) -> int:
    """Outputs of an anchor that each begin at the prior under a loss."""
    return foreground_outputs(LOSSES.get(name).layout_class(num_classes))


def run_prior(config: Config, counts: Counts, outputs: int) -> float:
    """The number that the run's prior is; 0.01 where it is to come from data without positives."""
    return config.prior if isinstance(config.prior, float) else counts.prior(outputs) or 0.01


def balancing_option(name: str) -> str | None:
    """The option of a loss that weighs objects against background."""
    known = options_of(LOSSES.get(name))
    return next((option for option in SPANS if option in known), None)


def to_line(option: str, value: float) -> float:
    """Where a bisection is even: log odds of an alpha, the logarithm of a factor."""
    return float(np.log(value / (1 - value)) if option == "alpha" else np.log(value))


def from_line(option: str, place: float) -> float:
    """The inverse."""
    return float(1 / (1 + np.exp(-place)) if option == "alpha" else np.exp(place))


def rows(first_step: FirstStep, counts: Counts) -> list[LossRow]:
    """Every registered loss, by falling share of background at the run's prior."""
    found = [first_step.row(name, counts) for name in LOSSES.names]
    return sorted(found, key=lambda row: -row.given.negative_share if row.given else 1.0)
