"""Opens a file of a folder, and no other: names in a data set are somebody else's.

A check of a name, and an open of it afterwards, are two looks at a disk that may change in between.
Here each part is opened relative to the one before it, and no link is followed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from detector.errors import DataError

NO_LINK = getattr(os, "O_NOFOLLOW", 0)
NOT_WAITED_FOR = getattr(os, "O_NONBLOCK", 0)  # a FIFO that nobody writes
IS_FOLDER = getattr(os, "O_DIRECTORY", 0)

A_LINK = (errno.ELOOP, errno.ENOTDIR, errno.EMLINK)
"""What systems answer where a link was not to be followed."""


def open_inside(root: Path, name: str) -> BinaryIO:
    """The file of a name relative to a folder, links within that folder followed.

    Raises DataError where it leads out of the folder, at the moment at which it is opened, or is
    not a file; OSError where it cannot be opened.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." not in parts and not name.startswith("/"):
        with suppress(_Link):
            return _opened(root, parts, name)
    real_root = Path(os.path.realpath(root))
    real = Path(os.path.realpath(real_root / name))
    if not real.is_relative_to(real_root):
        raise DataError(f"{root}: file name {name!r} leads out of the folder")
    try:
        return _opened(real_root, real.relative_to(real_root).parts, name)
    except _Link:
        raise DataError(f"{root}: file name {name!r} became a link while it was opened") from None


class _Link(Exception):
    """A part of a name is a link, or lies in a file."""


def _opened(root: Path, parts: Sequence[str], name: str) -> BinaryIO:
    if os.open not in os.supports_dir_fd:  # Windows
        return open(root.joinpath(*parts), "rb")
    folder = os.open(root, os.O_RDONLY | IS_FOLDER)
    try:
        for part in parts[:-1]:
            inner = _open_part(part, os.O_RDONLY | IS_FOLDER, folder)
            os.close(folder)
            folder = inner
        last = parts[-1] if parts else "."
        descriptor = _open_part(last, os.O_RDONLY | NOT_WAITED_FOR, folder)
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DataError(f"{root}: {name!r} is not a file")
    return open(descriptor, "rb")


def _open_part(part: str, flags: int, folder: int) -> int:
    try:
        return os.open(part, flags | NO_LINK, dir_fd=folder)
    except OSError as error:
        if error.errno in A_LINK:
            raise _Link from None
        raise
