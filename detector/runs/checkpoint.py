"""Checkpoints: one file that is enough to evaluate, to predict and to go on.

A zip archive as torch writes it. Its comment holds the SHA-256 of all that is before it: in the
file itself, so that there is no moment in which the two disagree, and a copy carries it along.
torch notices neither a flipped bit nor exchanged bytes.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import struct
import sys
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import torch

from detector.errors import ConfigError, StorageError
from detector.runs import entries
from detector.runtime import archive
from detector.runtime.pickles import Unreadable

FORMAT_VERSION = 3
READABLE = (1, 2, FORMAT_VERSION)
"""1: without a checksum, and without what weightings remember: good for evaluation. 2: the parts of
the criterion as entries of their own."""

RENAMED = {"loss": "loss.", "balance": "weighting."}
"""Entries of formats 1 and 2, and what their keys begin with in the entry `criterion` of 3."""

CALIBRATION = "calibration"
"""The entry of a calibrated checkpoint that `inference.calibrated` reads and writes."""

MARK = b"sha256:"
DIGITS = 64
SPARE_BYTES = 2**20
"""What has to stay free after a save, for the log and the status."""

TEMPORARY = ".tmp"
"""What the name of a file ends with that is not yet whole."""


class Damaged(ConfigError):
    """A checkpoint whose bytes are not those that were written, as far as can be told."""


def save(path: Path, content: dict[str, Any]) -> None:
    """Saves plain containers and tensors, as `weights_only=True` can read them.

    Raises StorageError where there is no room for them.
    """
    packed = pack(content)
    require_space(path.parent, len(packed))
    write_atomically(path, packed)


def pack(content: dict[str, Any]) -> bytes:
    """The bytes of a checkpoint."""
    buffer = io.BytesIO()
    torch.save({"format_version": FORMAT_VERSION, **content}, buffer)
    archive = buffer.getvalue()
    assert archive.endswith(b"\0\0"), "the length of the archive's comment, which is empty"
    checked = archive[:-2] + struct.pack("<H", len(MARK) + DIGITS) + MARK
    return checked + hashlib.sha256(checked).hexdigest().encode()


def write_atomically(path: Path, content: bytes) -> None:
    """Writes beside, flushes, renames: whenever the process dies, `path` is whole, old or new.

    Raises StorageError where that fails; nothing is left behind then.
    """
    put_in_place(write_beside(path, content), path)


def write_beside(path: Path, content: bytes) -> Path:
    """The temporary file, on the disk to its last byte. Raises StorageError where that fails."""
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StorageError(f"{path} cannot be written: {error.strerror or error}") from None
    return temporary


def put_in_place(temporary: Path, path: Path) -> None:
    """Renames, and flushes the folder that holds the name. Raises StorageError where that fails."""
    try:
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StorageError(f"{path} cannot be written: {error.strerror or error}") from None


def require_space(folder: Path, num_bytes: int) -> None:
    """Raises StorageError where the disk has no room for as many bytes and a little more."""
    if lacks_space(folder, num_bytes):
        free = shutil.disk_usage(folder).free
        raise StorageError(
            f"{folder}: {num_bytes / 1e6:.1f} MB are to be written, {free / 1e6:.1f} MB are free"
        )


def lacks_space(folder: Path, num_bytes: int) -> bool:
    """Whether fewer bytes are free than that and SPARE_BYTES."""
    return shutil.disk_usage(folder).free < num_bytes + SPARE_BYTES


def load(path: str | Path) -> dict[str, Any]:
    """What `save` was given, on the CPU. Never runs code of the file.

    Raises Damaged where its checksum is of other bytes, or it has none and cannot be read. Raises
    ConfigError where there is no such file, it may not be read, a newer version wrote it, or it is
    not a checkpoint of this project.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"checkpoint: {path} is not a file")
    fits = None
    try:
        with open(path, "rb") as file:
            fits = fits_checksum(file)
            if fits is False:
                raise Unreadable("it is damaged (its checksum is of other bytes)")
            content = archive.read(file)
    except OSError as error:
        kind = Damaged if error.errno == errno.EIO else ConfigError
        raise kind(f"checkpoint: {path} cannot be read: {error.strerror or error}") from None
    except Unreadable as error:
        # Whole, as its checksum says, but not for this version: whoever can read it may want it.
        kind = ConfigError if fits else Damaged
        raise kind(f"checkpoint: {path} cannot be read: {error}") from None
    _check_format(content, path, has_checksum=fits is not None)
    content = _upgraded(content, path)
    entries.check(content, f"checkpoint: {path}")
    return content


def weights_to_evaluate(saved: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The averaged weights of a checkpoint where it has any, else the last ones."""
    if saved["ema"] is None:
        return saved["model"]
    prefix = "module."
    return {
        name.removeprefix(prefix): value
        for name, value in saved["ema"].items()
        if name.startswith(prefix)
    }


def fits_checksum(file: BinaryIO) -> bool | None:
    """Whether the bytes are those that were written; None where the file has no checksum.

    The file is left at its beginning.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - DIGITS - len(MARK)))
    tail = file.read()
    file.seek(0)
    if not tail.startswith(MARK):
        return None
    digest, rest = hashlib.sha256(), size - DIGITS
    while rest > 0:
        part = file.read(min(rest, 2**22))
        digest.update(part)
        rest -= len(part)
    file.seek(0)
    return digest.hexdigest().encode() == tail[len(MARK) :]


def _check_format(content: Any, path: Path, *, has_checksum: bool) -> None:
    kind = ConfigError if has_checksum else Damaged
    if not isinstance(content, dict) or "format_version" not in content:
        raise kind(f"checkpoint: {path} is not a checkpoint of this project")
    version = content["format_version"]
    if version not in READABLE:
        newer = isinstance(version, int) and version > FORMAT_VERSION
        by_whom = "a newer version of this project wrote it and can read it; " if newer else ""
        raise ConfigError(
            f"checkpoint: {path} has format {version!r:.40}; {by_whom}"
            f"{', '.join(map(str, READABLE[:-1]))} and {READABLE[-1]} are what this version reads"
        )
    if version > 1 and not has_checksum:
        raise Damaged(f"checkpoint: {path} cannot be read: it is damaged (no checksum)")


def _upgraded(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """The content as the present format has it. One of format 1 keeps its number, since it lacks
    what going on takes."""
    version = content["format_version"]
    if version == FORMAT_VERSION:
        return content
    old = {name: content.pop(name) for name in RENAMED if name in content}
    content["criterion"] = {
        RENAMED[name] + key: torch.as_tensor(value, dtype=_kind(value))
        for name, part in old.items()
        for key, value in part.items()
    }
    if version > 1:
        content["format_version"] = FORMAT_VERSION
    _tell_once(
        f"note: {path} has format {version}, which later versions will not read; what is saved "
        f"from it has format {FORMAT_VERSION} ({', '.join(old)} are now in criterion)"
    )
    return content


def _kind(value: Any) -> torch.dtype | None:
    """float64 for a Python number, the kind that it was computed in; a tensor keeps its own."""
    return None if isinstance(value, torch.Tensor) else torch.float64


@lru_cache
def _tell_once(line: str) -> None:
    """Prints the line where it has not been said: a run reads its checkpoint several times."""
    print(line, file=sys.stderr)
