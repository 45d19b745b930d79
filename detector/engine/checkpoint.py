"""Checkpoints: one file that is enough to evaluate, to predict and to go on."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import torch

from detector.errors import ConfigError

FORMAT_VERSION = 1


def write_atomically(path: Path, content: bytes) -> None:
    """Writes beside, flushes, renames: whenever the process dies, `path` is whole, old or new."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def save(path: Path, content: dict[str, Any]) -> None:
    """Saves plain containers and tensors, as `weights_only=True` can read them."""
    buffer = io.BytesIO()
    torch.save({"format_version": FORMAT_VERSION, **content}, buffer)
    write_atomically(path, buffer.getvalue())


def load(path: str | Path) -> dict[str, Any]:
    """What `save` was given, on the CPU. Never runs code of the file.

    Raises ConfigError where there is no such file, or it is not a checkpoint of this project.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"checkpoint: {path} is not a file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ConfigError(f"checkpoint: {path} cannot be read: {error.strerror or error}") from None
    except Exception:  # of many kinds, whose words advise to switch `weights_only` off
        reason = "it is damaged, or holds more than tensors and plain values"
        raise ConfigError(f"checkpoint: {path} cannot be read: {reason}") from None
    if not isinstance(content, dict) or "format_version" not in content:
        raise ConfigError(f"checkpoint: {path} is not a checkpoint of this project")
    if content["format_version"] != FORMAT_VERSION:
        raise ConfigError(
            f"checkpoint: {path} has format {content['format_version']}, "
            f"{FORMAT_VERSION} is what this version reads"
        )
    return content
