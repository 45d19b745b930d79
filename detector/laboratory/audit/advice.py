"""What to change before training, as overrides that can be pasted, each with its reason."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.config import Config, from_plain
from detector.data.readers.base import Dataset
from detector.data.resizing import RESIZING
from detector.laboratory.audit import classes
from detector.laboratory.audit.anchors import MOST_OBJECTS, Grid, alike, fit
from detector.laboratory.audit.counts import Counts
from detector.laboratory.audit.losses import FirstStep, balancing_option, outputs_of, run_prior
from detector.laboratory.audit.overrides import Advice

SMALL_SHARE = 0.1
"""The share of objects that may be smaller than a cell before a larger image is advised."""

MOST_ENLARGED = 4.0
"""Largest factor on the image's sides: sixteen times the memory and the time."""

WORTH = 0.01
"""Share of the objects of a class, on average over the classes, that has to gain an anchor of its
own before other anchors are advised."""

FEWEST = 10
"""Objects that a class needs before it decides about the size of all images."""

DOMINATED = 0.9
"""Share of the gradient on background from which prior and weights are to be changed."""


def changed(plain: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The plain values of a config with other values under dotted keys."""
    result = copy.deepcopy(plain)
    for key, value in changes.items():
        *groups, last = key.split(".")
        node = result
        for group in groups:
            node = node.setdefault(group, {})
        node[last] = list(value) if isinstance(value, tuple) else value
    return result


def config_with(plain: dict[str, Any], changes: dict[str, Any]) -> Config:
    """The checked config after the changes. Raises ConfigError."""
    return from_plain(changed(plain, changes))


def on_image_size(config: Config, dataset: Dataset, counts: Counts) -> Advice:
    """Larger images where too many objects of a class are smaller than a cell of the finest level.

    The class with the smallest objects decides: a mean over all would be that of the most frequent.
    """
    topic, cell = "image size", int(counts.strides[0])
    whose, short = smallest(counts, dataset.annotations.classes)
    below = float((short < cell).mean())
    small = float(np.quantile(short, SMALL_SHARE))
    now = int(np.median(counts.image_sides.max(1)))
    facts = (
        f"{below:.1%} of the {whose} are narrower than {cell} px, one cell of the finest level; "
        f"nine in ten are at least {small:.3g} px wide and high (images of {now} px)"
    )
    if below <= SMALL_SHARE:
        return Advice(topic, f"{facts}. Few enough.")
    factor = min(cell / small, MOST_ENLARGED)
    changes = size_changes(config, factor, now)
    if not changes:
        return Advice(topic, f"{facts}. Sides {factor:.2g} times as long would do; augment="
                      f"{config.augment.name} has no max_size to set")  # fmt: skip
    file_side = int(np.median(dataset.annotations.sizes.max(1)))
    reason = f"{facts}. With sides {factor:.2g} times as long that is a tenth of them at most; "
    reason += f"a step then costs about {factor**2:.2g} times as much"
    if factor * now > file_side:
        reason += f". The files have {file_side} px: beyond that nothing new is seen"
    return Advice(topic, f"{reason}.", changes)


def smallest(counts: Counts, classes: Sequence[str]) -> tuple[str, NDArray[np.float64]]:
    """The class with the smallest objects, as "objects of cat", and the shorter side of each.

    All objects where no class has `FEWEST`, or there is one class only.
    """
    short = counts.sides.min(1)
    groups = {name: short[counts.labels == k] for k, name in enumerate(classes)}
    groups = {name: sides for name, sides in groups.items() if len(sides) >= FEWEST}
    if not groups or len(classes) == 1:
        return "objects", short
    name = min(groups, key=lambda name: np.quantile(groups[name], SMALL_SHARE))
    return f"objects of {name}", groups[name]


def size_changes(config: Config, factor: float, now: int) -> dict[str, Any]:
    """The sizes of the augmentation times the factor, as multiples of 32 px.

    now: px of the longer side, which is set where the config leaves images as they are.
    """
    if config.augment.name not in RESIZING:
        return {}
    options = config.augment.options
    sizes = {key: options.get(key) for key in ("min_size", "max_size")}
    given = {key: value for key, value in sizes.items() if value is not None} or {"max_size": now}
    return {f"augment.{k}": math.ceil(v * factor / 32) * 32 for k, v in given.items()}


def fitted(config: Config, counts: Counts) -> tuple[dict[str, Any], Grid]:
    """Scales and ratios for the objects, each class counting alike, and the overrides for them."""
    sides = counts.sides[alike(counts.labels, MOST_OBJECTS)]
    grid = fit(sides, config.model.anchors, counts.strides.tolist())
    changes = {"model.anchors.scales": grid.scales, "model.anchors.ratios": grid.ratios}
    return changes, grid


def poor(counts: Counts) -> int:
    """Objects that no anchor reaches, or only by force."""
    return int((counts.unreached | counts.forced).sum())


def gain(before: Counts, after: Counts) -> float:
    """The share of the objects that gain an anchor of their own, a mean over the classes."""
    known = np.unique(before.labels)
    shares = [[(c.unforced[c.labels == k] > 0).mean() for k in known] for c in (before, after)]
    return float(np.mean(shares[1]) - np.mean(shares[0]))


def on_anchors(changes: dict[str, Any], before: Counts, after: Counts) -> Advice:
    """Whether the fitted anchors, counted with the real matcher, are worth a change."""
    total = len(before.labels)
    facts = (
        f"without an anchor, or with a forced one only: {poor(before)} of {total} objects now, "
        f"{poor(after)} with fitted scales and ratios; mean best IoU {before.overlaps.mean():.3f} "
        f"now, {after.overlaps.mean():.3f} then"
    )
    if gain(before, after) < WORTH:
        return Advice("anchors", f"{facts}. Too little to change them.")
    return Advice("anchors", f"{facts}.", changes)


def on_classes(config: Config, rows: list[classes.ClassFacts]) -> Advice | None:
    """Weights for the classes where one is rare; None for a single class.

    rows: the facts of each class.
    """
    if len(rows) < 2:
        return None
    topic = "class weights"
    rare = [row for row in rows if classes.is_rare(row, len(rows))]
    if not rare:
        return Advice(topic, "No class is rare beside the others. No need to change.")
    named = ", ".join(f"{row.name} {row.objects} ({row.weight:.2f})" for row in rare)
    most = max(rows, key=lambda row: row.objects)
    reason = (
        f"beside {most.name} with {most.objects} objects these are rare, with the weight that the "
        f"effective number gives them: {named}; {most.name} {most.weight:.2f}"
    )
    why_not = classes.refusal(config)
    if why_not:
        return Advice(topic, f"{reason}. Not advised: {why_not}.")
    return Advice(topic, f"{reason}.", classes.weight_changes(config))


def on_prior(
    config: Config, first_step: FirstStep, counts: Counts, lead: str = ""
) -> tuple[Advice, float]:
    """The prior of the data where background would dominate the start; and the prior then.

    lead: said first, where other advice is taken already.
    """
    topic, name = "prior", config.loss.name
    outputs = outputs_of(name, first_step.num_classes)
    now, data = run_prior(config, counts, outputs), counts.prior(outputs)
    start = first_step(config.loss, now)
    facts = (
        f"{lead}loss={name} at prior={now:.2g} begins at {start.class_loss:.3g}, and background "
        f"has {start.negative_share:.1%} of its gradient"
    )
    if not 0 < data < 1:
        return Advice(topic, f"{facts}. No anchor has an object, so the data give no prior."), now
    if start.negative_share <= DOMINATED or math.isclose(data, now, rel_tol=0.1):
        return Advice(topic, f"{facts}. The data's share of positives is {data:.2g}; "
                      "no need to change."), now  # fmt: skip
    then = first_step(config.loss, data)
    value = float(f"{data:.2g}")
    if then.negative_share >= start.negative_share:
        return Advice(topic, f"{facts}. The data's share of positives, {data:.2g}, "
                      "does not lower it."), now  # fmt: skip
    reason = (
        f"{facts}; at the share of positives of the data it is {then.class_loss:.3g} and "
        f"{then.negative_share:.1%}. prior=from_data takes the same number"
    )
    return Advice(topic, f"{reason}.", {"prior": value}), value


def on_balance(config: Config, first_step: FirstStep, prior: float) -> Advice | None:
    """The option that weighs objects against background, for the run's own loss."""
    option = balancing_option(config.loss.name)
    if option is None:
        return None
    share = first_step(config.loss, prior).negative_share
    facts = f"at prior={prior:.2g} background has {share:.1%} of the gradient of the first step"
    if share <= DOMINATED:
        return Advice(option, f"{facts}. No need to change.")
    value = first_step.balance(config.loss, prior, option)
    if value is None:
        return Advice(option, f"{facts}, and no value of loss.{option} gives objects half of it.")
    reason = f"{facts}; with this value objects have half of it"
    return Advice(option, f"{reason}. A place to start a search from.", {f"loss.{option}": value})
