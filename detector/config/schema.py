"""Checks plain values (as a config holds them) against annotated signatures and dataclasses.

One mechanism for the whole config: the nodes of `config.py` are dataclasses, the options of a plug
are the keyword-only arguments of its constructor. Unknown keys name the nearest one, wrong types
say what is allowed, and every message begins with the key's path.
"""

from __future__ import annotations

import inspect
import math
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union

from detector.errors import ConfigError, did_you_mean

T = TypeVar("T")

REFERENCE = re.compile(r"\$\{[\w.\[\]-]+\}")
"""`${data.root}`, another key of the config: the only kind of interpolation that is allowed."""


@dataclass(frozen=True)
class Option:
    """One permitted key: its type, whether it has to be given, and what it is where it is not."""

    annotation: Any
    required: bool
    default: Any = None


@dataclass(frozen=True)
class Plug:
    """A named part and its options, as the config states it; `registry.py` builds it."""

    name: str
    options: dict[str, Any]


@dataclass(frozen=True)
class LossPlug(Plug):
    """A loss and the factor on it. Raises ConfigError for a negative or infinite factor."""

    weight: float = 1.0

    def __post_init__(self) -> None:
        require(
            0 <= self.weight < float("inf"),
            f"weight: {self.weight} given, a number of at least 0 is needed",
        )


def options_of(constructor: Callable[..., Any]) -> dict[str, Option]:
    """The keyword-only arguments of a constructor: what a config may set.

    Arguments that several constructors share are those of a TypedDict, as in
    `**shared: Unpack[SharedOptions]` (PEP 692), whose defaults are the fields of the dataclass
    `Shared` of the same module.
    """
    hints = typing.get_type_hints(
        constructor.__init__ if inspect.isclass(constructor) else constructor
    )
    parameters = inspect.signature(constructor).parameters.values()
    own = {
        p.name: Option(
            hints.get(p.name, Any),
            p.default is p.empty,
            None if p.default is p.empty else p.default,
        )
        for p in parameters
        if p.kind is p.KEYWORD_ONLY
    }
    rest = next((hints.get(p.name) for p in parameters if p.kind is p.VAR_KEYWORD), None)
    if typing.get_origin(rest) is not typing.Unpack:
        return own
    (shared,) = typing.get_args(rest)
    holder = getattr(sys.modules[shared.__module__], shared.__name__.removesuffix("Options"))
    defaults = {field.name: field.default for field in fields(holder)}
    hints = typing.get_type_hints(shared)
    return own | {name: Option(hint, False, defaults[name]) for name, hint in hints.items()}


def coerce_options(
    options: Mapping[str, Option], values: Mapping[str, Any], path: str
) -> dict[str, Any]:
    """`values` with every value checked. Raises ConfigError on unknown, missing or wrong ones."""
    for key in values:
        if key not in options:
            keys = ", ".join(options) or "none"
            raise ConfigError(
                f"{_join(path, key)}: unknown key{did_you_mean(key, options)}; allowed: {keys}"
            )
    missing = [key for key, option in options.items() if option.required and key not in values]
    if missing:
        raise ConfigError(f"{_join(path, missing[0])}: has to be given")
    return {
        key: coerce(value, options[key].annotation, _join(path, key))
        for key, value in values.items()
    }


def build(cls: type[T], values: Any, path: str = "") -> T:
    """The dataclass `cls` from a mapping of plain values. Raises ConfigError."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path}: {values!r} given, keys and values are needed")
    hints = typing.get_type_hints(cls)
    options = {
        field.name: Option(
            hints[field.name], field.default is MISSING and field.default_factory is MISSING
        )
        for field in fields(cls)  # type: ignore[arg-type]
    }
    checked = coerce_options(options, values, path)
    try:
        return cls(**checked)
    except ConfigError as error:
        raise ConfigError(_join(path, str(error))) from None


def coerce(value: Any, annotation: Any, path: str) -> Any:
    """`value` as the type of `annotation`; an int serves as a float. Raises ConfigError."""
    if value == "???":
        raise ConfigError(f"{path}: has to be given")
    if annotation is Any:
        return value
    origin = typing.get_origin(annotation)
    if origin is Union or origin is types.UnionType:
        return _coerce_union(value, typing.get_args(annotation), path)
    if origin is Literal:
        return _one_of(value, typing.get_args(annotation), path)
    if origin is not None and issubclass(origin, Sequence):
        return _coerce_sequence(value, typing.get_args(annotation), annotation, path)
    if annotation in (Plug, LossPlug):
        return _coerce_plug(value, annotation, path)
    if is_dataclass(annotation):
        return build(typing.cast(type, annotation), value, path)
    return _coerce_scalar(value, annotation, path)


def require(condition: bool, message: str) -> None:
    """Raises ConfigError(message) unless the condition holds; a message begins with the key."""
    if not condition:
        raise ConfigError(message)


def require_at_least(low: int, node: Any, *keys: str) -> None:
    """Raises ConfigError where one of the fields of `node` is below `low`; None is not."""
    for key in keys:
        value = getattr(node, key)
        require(value is None or value >= low, f"{key}: {value} given, at least {low} is needed")


def refuse_targets(value: Any) -> None:
    """Raises ConfigError where a key is `_target_`, at any depth: nothing is called by path."""
    for path, key, _ in walk(value):
        if key == "_target_":
            raise ConfigError(f"{path}: parts are chosen by `name`, `_target_` is refused")


def refuse_resolvers(value: Any) -> None:
    """Raises ConfigError where a text holds an interpolation other than a `REFERENCE`."""
    for path, _, inner in walk(value):
        if isinstance(inner, str) and "${" in REFERENCE.sub("", inner):
            raise ConfigError(
                f"{path}: {inner!r} is refused; only references to other keys are allowed, "
                "such as ${data.root}"
            )


def walk(value: Any, path: str = "") -> Iterator[tuple[str, str, Any]]:
    """(path, key, value) of everything inside nested dicts and lists; an index is a key."""
    if isinstance(value, dict):
        for key, inner in value.items():
            where = f"{path}.{key}" if path else str(key)
            yield where, str(key), inner
            yield from walk(inner, where)
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield f"{path}[{i}]", str(i), inner
            yield from walk(inner, f"{path}[{i}]")


def describe(annotation: Any) -> str:
    """A type in a user's words: 'number', 'one of a, b', 'number or null'."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Union or origin is types.UnionType:
        return " or ".join(describe(arg) for arg in args)
    if origin is Literal:
        return "one of " + ", ".join(map(str, args))
    if origin is not None:
        return f"list of {describe(args[0])}s"
    words = {int: "integer", float: "number", bool: "true or false", str: "text"}
    return "null" if annotation is type(None) else words.get(annotation, "keys and values")


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _one_of(value: Any, allowed: tuple[Any, ...], path: str) -> Any:
    if value is False and "off" in allowed:
        return "off"  # as YAML reads an `off` without quotation marks
    if value not in allowed:
        hint = did_you_mean(str(value), map(str, allowed))
        raise ConfigError(f"{path}: {value!r} is not one of {', '.join(map(str, allowed))}{hint}")
    return value


def _coerce_union(value: Any, allowed: tuple[Any, ...], path: str) -> Any:
    if value is None and type(None) in allowed:
        return None
    inner = [arg for arg in allowed if arg is not type(None)]
    if len(inner) == 1 and value is not None:
        return coerce(value, inner[0], path)
    for arg in inner:
        try:
            return coerce(value, arg, path)
        except ConfigError:
            continue
    raise ConfigError(f"{path}: {value!r} is not {' or '.join(describe(arg) for arg in allowed)}")


def _coerce_sequence(
    value: Any, args: tuple[Any, ...], annotation: Any, path: str
) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ConfigError(f"{path}: {value!r} is not a {describe(annotation)}")
    fixed = typing.get_origin(annotation) is tuple and args[-1] is not Ellipsis
    if fixed and len(value) != len(args):
        raise ConfigError(f"{path}: {len(value)} entries given, {len(args)} are needed")
    return tuple(coerce(entry, args[0], f"{path}[{i}]") for i, entry in enumerate(value))


def _coerce_plug(value: Any, cls: type[Plug], path: str) -> Plug:
    """The fields of `cls` are taken out of the keys; all others are options of the part."""
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise ConfigError(f"{path}: a part with a `name` is needed, {value!r} given")
    own = {field.name for field in fields(cls)} - {"name", "options"}
    options = {str(key): inner for key, inner in value.items() if key not in {"name", *own}}
    hints = typing.get_type_hints(cls)
    checked = {key: coerce(value[key], hints[key], _join(path, key)) for key in own & set(value)}
    try:
        return cls(value["name"], options, **checked)
    except ConfigError as error:
        raise ConfigError(_join(path, str(error))) from None


def _coerce_scalar(value: Any, annotation: type, path: str) -> Any:
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ConfigError(f"{path}: an integer of more than 64 bits given")
    if annotation is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    is_mistaken_bool = isinstance(value, bool) and annotation is not bool
    if is_mistaken_bool or not isinstance(value, annotation):
        raise ConfigError(f"{path}: {value!r} is not {_article(describe(annotation))}")
    if annotation is float and not math.isfinite(value):
        raise ConfigError(f"{path}: {value} is not a number one can use")
    return value


def _article(words: str) -> str:
    if words in ("true or false", "text"):
        return words
    return ("an " if words[0] in "aeiou" else "a ") + words
