"""What is minimised, as one object: who is matched with whom, the losses, and their weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, overload

import torch
from torch import Tensor, nn

from detector.box_losses.base import BoxLoss
from detector.box_losses.distribution import distribution_term
from detector.box_losses.rating import Rating, rating_term
from detector.config import Config
from detector.config.registry import BOX_LOSSES, LOSSES, MATCHERS
from detector.config.schema import LossPlug, Plug, coerce, require
from detector.criterion.judging import Judged, judged_by, judged_by_autograd, terms_and_gradients
from detector.criterion.quality import QualityTargets, require_quality, toward_quality
from detector.criterion.ramps import Ramps, build_ramps
from detector.criterion.terms import require_box_terms, require_class_terms
from detector.criterion.weighting import (
    LevelWeights,
    Normalizer,
    Weighting,
    build_weighting,
    require_level_weights,
    require_normalizer,
)
from detector.data.annotations import Annotations
from detector.layouts import Layout
from detector.losses.base import ClassLoss, layout_of
from detector.matchers.base import Matcher, may_be_matched
from detector.runtime.distributed import World
from detector.structures import Anchors, Matches, Predictions, Targets

Choice = str | Mapping[str, Any]
"""A part by its name, or with options: "focal", {"name": "focal", "gamma": 3.0}."""


class Criterion(nn.Module):
    """Judges what a model says of a batch. It knows no model.

    A step calls `match` for each of its micro-batches and `positives` for all of them, then for
    each micro-batch itself, whose terms are summed up for `backward`, and `update` once the step
    has been accepted:

        matches = criterion.match(anchors, targets)
        positives = criterion.positives([matches], [targets])
        terms = criterion(predictions, matches, positives)
        sum(terms.values()).backward()

    A matcher that uses predictions matches after the forward: `match` is None without them, and
    `positives` then counts the objects instead.

    `judge` does the same as the call and the sum, and may be compiled.

    Its `state_dict` holds the buffers of the losses and of the weighting: all that a checkpoint
    has to keep of it. The ramps are functions of the progress.
    """

    def __init__(
        self,
        loss: ClassLoss,
        box_loss: BoxLoss,
        matcher: Matcher,
        *,
        weighting: Weighting | None = None,
        ramps: Ramps | None = None,
        world: World | None = None,
        quality_targets: QualityTargets | None = None,
        distribution_weight: float = 0.25,
        rating: Rating | None = None,
        rating_weight: float = 1.0,
    ) -> None:
        """world: the processes over which a step is counted; None: this one alone.

        quality_targets: what the scores of positives are to be in place of 1, see `toward_quality`;
        None leaves it to the loss. distribution_weight: on `distribution_focal`, which joins the
        box loss where the boxes of a model are distributions. rating: what an output beside the
        classes says of the box, whose score multiplies theirs, see `Rated`; rating_weight: on its
        loss.
        """
        super().__init__()
        self.loss, self.box_loss, self.matcher = loss, box_loss, matcher
        self.quality_targets: QualityTargets | None = quality_targets
        self.distribution_weight = distribution_weight
        self.rating: Rating | None = rating
        self.rating_weight = rating_weight
        self.weighting = weighting or Weighting(class_normalizer=loss.normalizer)
        self.ramps = ramps or Ramps((), {"loss": 1.0, "box_loss": 1.0})
        self.world = world or World(0, 1, torch.device("cpu"))
        self.factors: dict[str, float | Tensor] = {**self.ramps.weights}
        self.compiled: Callable[..., Any] | None = None

    @classmethod
    def build(
        cls,
        num_classes: int,
        *,
        loss: Choice | ClassLoss = "focal",
        box_loss: Choice | BoxLoss = "smooth_l1",
        matcher: Choice | Matcher = "retinanet",
        normalizer: Normalizer | None = None,
        class_weights: Sequence[float] | None = None,
        guided_scale: bool = False,
        quality_targets: QualityTargets | None = None,
        distribution_weight: float = 0.25,
        rating: Rating | None = None,
        rating_weight: float = 1.0,
        level_weights: LevelWeights | None = None,
        batch_size: int = 1,
        world: World | None = None,
    ) -> Criterion:
        """The criterion of registered parts, for a training loop of one's own.

        loss, box_loss, matcher: a registered name; a mapping with a `name`, options and, for a
        loss, the `weight` on its terms; or the part itself. normalizer, class_weights (K,),
        guided_scale, level_weights, batch_size: see `Weighting`; None leaves the normaliser to the
        loss. All others: see the constructor.
        Raises ConfigError for a name or an option that is not known, naming the nearest.
        """
        plugs = {"loss": loss_plug(loss, "loss"), "box_loss": loss_plug(box_loss, "box_loss")}
        class_loss: ClassLoss = (
            loss if isinstance(loss, ClassLoss) else LOSSES.build(plugs["loss"], num_classes)
        )
        require_normalizer(class_loss, normalizer, plugs["loss"].name)
        require_level_weights(class_loss, level_weights, plugs["loss"].name)
        chosen = matcher if isinstance(matcher, Matcher) else MATCHERS.build(plug_of(matcher))
        matcher_name = (
            type(matcher).__name__ if isinstance(matcher, Matcher) else plug_of(matcher).name
        )
        require_quality(quality_targets, class_loss, plugs["loss"].name, chosen, matcher_name)
        if class_weights is not None:
            count = len(class_weights)
            require(count == num_classes, f"class_weights: {count} given, {num_classes} are needed")
        weighting = Weighting(
            class_normalizer=normalizer or class_loss.normalizer,
            box_normalizer=normalizer or "positives",
            class_weights=None if class_weights is None else torch.tensor([1.0, *class_weights]),
            guided_scale=guided_scale,
            level_weights=level_weights,
            batch_size=batch_size,
            world_size=1 if world is None else world.size,
        )
        return cls(
            class_loss,
            box_loss if isinstance(box_loss, BoxLoss) else BOX_LOSSES.build(plugs["box_loss"]),
            chosen,
            quality_targets=quality_targets,
            distribution_weight=distribution_weight,
            rating=rating,
            rating_weight=rating_weight,
            weighting=weighting,
            ramps=Ramps((), {name: plug.weight for name, plug in plugs.items()}),
            world=world,
        )

    @property
    def layout(self) -> Layout:
        """What the class outputs mean under the class loss; a head is built from it."""
        return layout_of(self.loss, self.rating)

    def progress(self, share: float) -> None:
        """Sets the ramped options to their values when `share`, 0 to 1, of the run is done."""
        factors = self.ramps.apply(share, loss=self.loss, box_loss=self.box_loss)
        self.factors = {**factors}
        if self.compiled is not None:  # a number would be a constant of the code
            like = self.weighting.class_scale
            self.factors = {name: torch.full_like(like, f) for name, f in factors.items()}

    @overload
    def match(self, anchors: Anchors, targets: Targets, predictions: Predictions) -> Matches: ...

    @overload
    def match(self, anchors: Anchors, targets: Targets) -> Matches | None: ...

    def match(
        self, anchors: Anchors, targets: Targets, predictions: Predictions | None = None
    ) -> Matches | None:
        """What each anchor shall say; None where the matcher has to see predictions first."""
        if self.matcher.uses_predictions and predictions is None:
            return None
        if self.matcher.uses_scores and predictions is not None:
            scores = self.layout.scores(predictions.logits.detach())
            predictions = replace(predictions, scores=scores)
        return self.matcher(anchors, targets, predictions)

    def positives(self, matches: Sequence[Matches | None], targets: Sequence[Targets]) -> Tensor:
        """() float64 positives of the whole step, over ranks and the micro-batches given.

        A matcher that needs predictions has no matches yet: then the objects are counted.
        """
        counts = [
            may_be_matched(t).sum() if m is None else m.foreground.sum()
            for m, t in zip(matches, targets, strict=True)
        ]
        return self.world.sum(torch.stack(counts).sum().double(), "the number of positives")

    def forward(
        self, predictions: Predictions, matches: Matches, positives: Tensor
    ) -> dict[str, Tensor]:
        """() terms by name, `loss_...`, weighted, summed and divided; their sum is minimised.

        positives: () of the whole step, from `positives`. Gradients of several ranks have to be
        averaged, and those of micro-batches added, as DDP and `backward` do.
        """
        class_terms, box_terms = self._terms(predictions, matches)
        return self.weighting(
            class_terms,
            box_terms,
            self.factors,
            matches,
            positives,
        )

    def judge(
        self, predictions: Predictions, matches: Matches, positives: Tensor, scale: Tensor
    ) -> Judged:
        """The terms, and what adds their gradient to the model's.

        scale: () factor on the gradient, such as that of a `GradScaler`. Arguments else as those of
        `forward`.
        """
        if self.compiled is None:
            return judged_by_autograd(self, predictions, matches, positives, scale)
        return judged_by(self.compiled, self, predictions, matches, positives, scale)

    def compile_by(self, compile: Callable[[Any], Any]) -> bool:
        """Lets `judge` use one compiled function for terms and gradient; whether it will.

        A class loss that is no sum over anchors stays as it is.
        """
        if self.loss.separable:
            self.compiled = compile(terms_and_gradients)
        return self.loss.separable

    def class_terms(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        """The terms of the class loss, neither weighted nor summed."""
        predictions = self.seen_by_loss(predictions)
        if self.quality_targets is None:
            return self.loss(predictions, matches)
        return toward_quality(self.loss, predictions, matches, self.quality_targets)

    def box_terms(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        """The terms of the box loss, of distributions where boxes are such, and of a rating."""
        terms = self.box_loss(predictions, matches)
        own = distribution_term(predictions, matches)
        if own is not None:
            terms = {**terms, "box_distribution": self.distribution_weight * own}
        if self.rating is not None:
            rated = rating_term(predictions.logits[..., -1], predictions, matches, self.rating)
            terms = {**terms, "box_rating": self.rating_weight * rated}
        return terms

    def seen_by_loss(self, predictions: Predictions) -> Predictions:
        """The predictions without the rating, of which the class loss knows nothing."""
        if self.rating is None:
            return predictions
        return replace(predictions, logits=predictions.logits[..., :-1])

    def unweighted(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        """The terms as the losses give them: (N, A, K), (N, A) or (N,), neither summed nor
        divided."""
        class_terms, box_terms = self._terms(predictions, matches)
        return {**class_terms, **box_terms}

    def _terms(
        self, predictions: Predictions, matches: Matches
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Of the class loss and of the box loss. Raises ConfigError for what are no terms."""
        class_terms = self.class_terms(predictions, matches)
        require_class_terms(type(self.loss).__name__, class_terms, matches, self.loss.num_classes)
        box_terms = self.box_terms(predictions, matches)
        require_box_terms(type(self.box_loss).__name__, box_terms, matches)
        return class_terms, box_terms

    def statistics(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        """What the class loss and the weighting want summed for `update`, of a micro-batch."""
        return {
            **self.loss.statistics(self.seen_by_loss(predictions), matches),
            **self.weighting.statistics(matches),
        }

    def update(
        self, statistics: Mapping[str, Tensor], terms: Mapping[str, float], positives: float
    ) -> None:
        """To be called once for each accepted step, on every rank.

        statistics: summed over the micro-batches of this rank. terms, positives: of the whole step.
        """
        sums = {name: self.world.sum(value) for name, value in statistics.items()}
        own = {name: sums.pop(name) for name in self.weighting.statistics_names}
        self.loss.update(sums)
        self.weighting.update(terms, positives, own)


def plug_of(choice: Choice) -> Plug:
    """The plug of a name, or of a mapping with a `name` and options. Raises ConfigError."""
    return coerce({"name": choice} if isinstance(choice, str) else choice, Plug, "matcher")


def loss_plug(choice: Choice | nn.Module, kind: str) -> LossPlug:
    """As `plug_of`, with the weight of a loss; of a loss itself its class, and the weight 1."""
    if isinstance(choice, nn.Module):
        return LossPlug(type(choice).__name__, {})
    return coerce({"name": choice} if isinstance(choice, str) else choice, LossPlug, kind)


def check_criterion(config: Config) -> None:
    """Raises ConfigError for options that the parts of the criterion cannot have.

    Needs no data, so a wrong option is answered before they are read.
    """
    loss, _, matcher = build_parts(config, 1)
    require_level_weights(loss, config.level_weights, config.loss.name)
    require_quality(config.quality_targets, loss, config.loss.name, matcher, config.matcher.name)
    build_ramps(config)


def build_parts(config: Config, num_classes: int) -> tuple[ClassLoss, BoxLoss, Matcher]:
    """Class loss, box loss and matcher of a config. Raises ConfigError."""
    matcher = MATCHERS.build(config.matcher)
    box_loss = BOX_LOSSES.build(config.box_loss)
    return LOSSES.build(config.loss, num_classes), box_loss, matcher


def build_criterion(config: Config, annotations: Annotations, world: World) -> Criterion:
    """The criterion of a config on the device of `world`; annotations: of the train split.

    Raises ConfigError for what the parts cannot have.
    """
    loss, box_loss, matcher = build_parts(config, len(annotations.classes))
    criterion = Criterion(
        loss,
        box_loss,
        matcher,
        weighting=build_weighting(config, loss, annotations, world.size),
        ramps=build_ramps(config),
        world=world,
        quality_targets=config.quality_targets,
        distribution_weight=config.distribution_weight,
        rating=config.rating,
        rating_weight=config.rating_weight,
    )
    return criterion.to(world.device)
