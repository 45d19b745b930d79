"""The values of keys that a config of an older version does not have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from typing import Any

from detector.config import schema
from detector.config.registry import REGISTRIES
from detector.config.schema import Plug
from detector.config.train import Config


def filled(plain: Mapping[str, Any]) -> dict[str, Any]:
    """The plain values of a `Config` with the default of every key that is not there.

    At any depth: keys of the run, of its groups, and options of its parts. Parts are looked up in
    their registries, which imports them; one that is not known here stays as it is. Keys that this
    version does not know stay too.
    """
    result = dict(plain)
    for field in fields(Config):
        default = field.default
        value = plain.get(field.name, default)
        if value is MISSING:
            continue
        if isinstance(value, Plug):
            value = {"name": value.name, **value.options}
        if field.name in REGISTRIES and isinstance(value, Mapping):
            value = {**options_of(field.name, value.get("name")), **value}
        elif is_dataclass(default) and not isinstance(default, type):
            known = value if isinstance(value, Mapping) else {}
            value = merged(asdict(default), known)
        result[field.name] = value
    return result


def merged(defaults: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` on top of `defaults`, group by group."""
    result = {**defaults, **values}
    for key, default in defaults.items():
        if isinstance(default, Mapping) and isinstance(result[key], Mapping):
            result[key] = merged(default, result[key])
    return result


def options_of(kind: str, name: Any) -> dict[str, Any]:
    """The defaults of the options of a part."""
    registry = REGISTRIES[kind]
    if name not in registry.names:
        return {}
    options = schema.options_of(registry.get(name))
    return {key: one.default for key, one in options.items() if not one.required}
