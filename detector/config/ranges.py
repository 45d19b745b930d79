"""Ranges of options, stated where their types are: `gamma: Annotated[float, AtLeast(0)] = 2.0`."""

from __future__ import annotations

import functools
import math
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from detector.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`; both belong to it unless it is said to begin above `low` or to
    end below `high`. It holds for a number, for each number of a list, and for nothing else, so
    that null and words such as auto stay what their type allows."""

    low: float = -math.inf
    high: float = math.inf
    is_above: bool = False
    is_below: bool = False

    def holds(self, value: Any) -> bool:
        """Whether a value is inside, or is no number."""
        if isinstance(value, list | tuple):
            return all(map(self.holds, value))
        if isinstance(value, bool) or not isinstance(value, int | float):
            return True
        reaches = value > self.low if self.is_above else value >= self.low
        return reaches and (value < self.high if self.is_below else value <= self.high)

    def __str__(self) -> str:
        """In words: "at least 0", "above 0", "0 to 1", "0 to below 1", "above 0 and below 1"."""
        low, high = f"{self.low:g}", f"{self.high:g}"
        if math.isinf(self.high):
            return f"above {low}" if self.is_above else f"at least {low}"
        if self.is_above:
            return f"above {low} and {'below' if self.is_below else 'at most'} {high}"
        return f"{low} to {'below ' if self.is_below else ''}{high}"


def AtLeast(low: float) -> Range:
    """`low` or more."""
    return Range(low)


def Above(low: float) -> Range:
    """More than `low`."""
    return Range(low, is_above=True)


def Between(low: float, high: float, *, is_above: bool = False, is_below: bool = False) -> Range:
    """`low` to `high`, without `low` where `is_above`, without `high` where `is_below`."""
    return Range(low, high, is_above, is_below)


def split(annotation: Any) -> tuple[Any, Range | None]:
    """The type of an annotation, and the range that it states."""
    if typing.get_origin(annotation) is not Annotated:
        return annotation, None
    inner, *notes = typing.get_args(annotation)
    return inner, next((note for note in notes if isinstance(note, Range)), None)


def require_in_range(annotation: Any, value: Any, path: str) -> None:
    """Raises ConfigError where a value lies outside the range of its annotation."""
    inner, limit = split(annotation)
    if limit is None or limit.holds(value):
        return
    shown = list(value) if isinstance(value, tuple) else value
    others = " or null" if type(None) in typing.get_args(inner) else ""
    verb = "needed" if math.isinf(limit.high) else "allowed"
    raise ConfigError(f"{path}: {shown} given, {limit}{others} is {verb}")


def require_ranges(node: Any) -> None:
    """Raises ConfigError where a field of a dataclass lies outside the range it states."""
    for name, annotation in stated_by(type(node)).items():
        require_in_range(annotation, getattr(node, name), name)


def checked(constructor: F) -> F:
    """The constructor, which first looks at the ranges that its keyword arguments state."""

    @functools.wraps(constructor)
    def construct(*args: Any, **options: Any) -> Any:
        stated = stated_by(constructor)
        for name, value in options.items():
            if name in stated:
                require_in_range(stated[name], value, name)
        return constructor(*args, **options)

    return typing.cast(F, construct)


@functools.cache
def stated_by(owner: Any) -> Mapping[str, Any]:
    """The annotations with a range, by name: of a dataclass, or of a function's arguments."""
    return dict(_stated(typing.get_type_hints(owner, include_extras=True)))


def _stated(hints: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, annotation in hints.items():
        if split(annotation)[1] is not None:
            yield name, annotation
