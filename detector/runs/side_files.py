"""JSON that a run has written, read again: what is damaged is named, in one line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any

from detector.errors import ConfigError

NUMBER = int | float


def read_record(path: Path, kinds: Mapping[str, type | UnionType]) -> dict[str, Any]:
    """An object of a JSON file that has at least these keys, with values of these kinds.

    Raises ConfigError that names the file, and the key where it is one.
    """
    return checked(_parsed(path, _content(path)), kinds, str(path))


def read_records(path: Path, kinds: Mapping[str, type | UnionType]) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines, as `read_record`; at least one."""
    lines = [text for text in _content(path).splitlines() if text.strip()]
    if not lines:
        raise ConfigError(f"{path}: is empty")
    return [
        checked(_parsed(path, text), kinds, f"{path}, line {number}")
        for number, text in enumerate(lines, 1)
    ]


def checked(record: Any, kinds: Mapping[str, type | UnionType], source: str) -> dict[str, Any]:
    """The record. source: how messages call it. Raises ConfigError."""
    if not isinstance(record, dict):
        raise ConfigError(f"{source}: is damaged (no keys and values)")
    for key, kind in kinds.items():
        if not isinstance(record.get(key), kind):
            raise ConfigError(f"{source}: is damaged ({key} is missing, or of another kind)")
    return record


def _content(path: Path) -> bytes:
    try:
        if not path.is_file():  # nor a FIFO, which would be waited for
            raise ConfigError(f"{path}: is not a file")
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def _parsed(path: Path, text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # ValueError: no JSON, no UTF-8
        raise ConfigError(f"{path}: is damaged (no JSON)") from None
