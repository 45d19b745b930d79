"""What the entries of a checkpoint have to be: its checksum says that it is whole, not that it is
what a run has saved."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from detector.errors import ConfigError


def _is_state(value: Any) -> bool:
    """Tensors by name."""
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(item, torch.Tensor) for name, item in value.items()
    )


def _is_plain(value: Any) -> bool:
    """What a yaml file may hold."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float | bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value < 2**63


def _is_split(value: Any) -> bool:
    """What tells the annotations of a split from others."""
    names = {"num_images", "num_objects", "fingerprint"}
    return isinstance(value, dict) and value.keys() == names and _is_plain(value)


def _is_files(value: Any) -> bool:
    """What tells the image files of each split from others."""
    is_known = isinstance(value, dict) and value.keys() <= {"train", "val"} and _is_plain(value)
    return is_known and all(isinstance(stamps, dict) for stamps in value.values())


def _holds(kind: type) -> Callable[[Any], bool]:
    """A list of values of a kind, which may be in other lists too."""
    return lambda value: isinstance(value, list) and all(isinstance(item, kind) for item in value)


ENTRIES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "config": (lambda value: isinstance(value, dict) and _is_plain(value), "a plain config"),
    "classes": (_holds(str), "a list of names"),
    "category_ids": (_holds(int), "a list of integers"),
    "num_images": (_is_count, "a count"),
    "num_objects": (_is_count, "a count"),
    "fingerprint": (lambda value: value is None or isinstance(value, str), "a text"),
    "val": (_is_split, "the counts of a split"),
    "files": (_is_files, "texts by split"),
    "step": (_is_count, "a count"),
    "evaluated": (_is_count, "a count"),
    "skipped": (_is_count, "a count"),
    "images": (lambda value: isinstance(value, str), "a text"),
    "best_metric": (
        lambda value: isinstance(value, int | float) and math.isfinite(value),
        "a finite number",
    ),
    "model": (_is_state, "tensors by name"),
    "ema": (lambda value: value is None or _is_state(value), "tensors by name, or nothing"),
    "criterion": (_is_state, "tensors by name"),
    "optimizer": (lambda value: isinstance(value, dict), "a state by name"),
    "scaler": (lambda value: isinstance(value, dict), "a state by name"),
    "detector_version": (lambda value: isinstance(value, str), "a text"),
    "torch_version": (lambda value: isinstance(value, str), "a text"),
}
"""Whether a value can be that of an entry, and what is needed in words."""

EVALUATED = ("config", "classes", "category_ids", "model", "ema")
"""What a model is made of."""

GONE_ON_WITH = (
    *EVALUATED,
    *("num_images", "num_objects", "fingerprint", "step", "evaluated", "best_metric"),
    *("criterion", "optimizer", "scaler"),
)
"""What a run goes on from."""


def check(content: Mapping[str, Any], source: str) -> None:
    """Raises ConfigError where an entry that is there is not what it has to be. source: the file,
    as messages call it."""
    for name, (is_fit, needed) in ENTRIES.items():
        if name in content and not is_fit(content[name]):
            raise ConfigError(f"{source} cannot be used: {name} in it is not {needed}")


def require(content: Mapping[str, Any], names: tuple[str, ...], source: str) -> None:
    """Raises ConfigError where an entry is missing."""
    missing = [name for name in names if name not in content]
    if missing:
        raise ConfigError(f"{source} cannot be used: it has no {', '.join(missing)}")
