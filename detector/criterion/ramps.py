"""Numeric options of a loss as functions of the step, such as gamma from 0 to 2."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from detector.config import Config, Ramp
from detector.config.registry import BOX_LOSSES, LOSSES
from detector.config.schema import options_of, require
from detector.errors import ConfigError, did_you_mean

PARTS = ("loss", "box_loss")
"""The parts whose options can be ramped."""


def value_at(ramp: Ramp, progress: float) -> float:
    """The option's value when `progress`, 0 to 1, of the run is done."""
    if progress >= ramp.until:
        return ramp.end
    done = max(0.0, progress - ramp.begin) / (ramp.until - ramp.begin)
    return ramp.start + done * (ramp.end - ramp.start)


@dataclass(frozen=True)
class Ramps:
    """All ramps of a run. They are functions of the step, so a checkpoint holds nothing of them."""

    ramps: tuple[Ramp, ...]
    weights: dict[str, float]

    def apply(self, progress: float, **parts: nn.Module) -> dict[str, float]:
        """Sets the options of the parts for a step; the weights "loss" and "box_loss" of it."""
        weights = dict(self.weights)
        for ramp in self.ramps:
            part, _, option = ramp.option.partition(".")
            value = value_at(ramp, progress)
            if option == "weight":
                weights[part] = value
            else:
                is_whole = isinstance(getattr(parts[part], option), int)
                setattr(parts[part], option, round(value) if is_whole else value)
        return weights


def build_ramps(config: Config) -> Ramps:
    """The ramps of a config. Raises ConfigError for an option that is not there or not a number."""
    for i, ramp in enumerate(config.ramps):
        check(f"ramps[{i}]", ramp, config)
    names = [ramp.option for ramp in config.ramps]
    require(len(set(names)) == len(names), f"ramps: {names} given, each option once is allowed")
    return Ramps(config.ramps, {part: getattr(config, part).weight for part in PARTS})


def check(path: str, ramp: Ramp, config: Config) -> None:
    """Raises ConfigError unless the option is a number and may have both ends of the ramp."""
    part, _, option = ramp.option.partition(".")
    if part not in PARTS or not option:
        raise ConfigError(
            f"{path}.option: {ramp.option} given, loss.OPTION or box_loss.OPTION is allowed"
        )
    for value in (ramp.start, ramp.end):
        if option == "weight":
            require(value >= 0, f"{path}: {ramp.option}={value} given, at least 0 is needed")
        else:
            _build(path, part, option, value, config)


def _build(path: str, part: str, option: str, value: float, config: Config) -> None:
    """Builds the part with the value, so that its own checks speak."""
    registry: Any = {"loss": LOSSES, "box_loss": BOX_LOSSES}[part]
    arguments = (1,) if part == "loss" else ()
    plug = getattr(config, part)
    part_now = registry.build(plug, *arguments)
    numbers = numeric_options(part_now, options_of(type(part_now)))
    if option not in numbers:
        raise ConfigError(
            f"{path}.option: {part}.{option} given, a number of {part}={plug.name} is allowed: "
            f"{', '.join(sorted([*numbers, 'weight']))}{did_you_mean(option, numbers)}"
        )
    whole = numbers[option]
    given = round(value) if whole else value
    registry.build(replace(plug, options={**plug.options, option: given}), *arguments)


def numeric_options(part: nn.Module, options: Iterable[str]) -> dict[str, bool]:
    """The options that hold a number, each with whether it is a whole one.

    An option is an attribute of its part, read anew in each `forward`.
    """
    values = {name: getattr(part, name, None) for name in options}
    return {
        name: isinstance(value, int)
        for name, value in values.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }
