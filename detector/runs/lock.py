"""The claim of a run on its folder: one run works in it at a time."""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

from detector.errors import ConfigError
from detector.runs.run_folder import RunFolder
from detector.runtime.distributed import World

NOT_KNOWN = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}
"""What a filesystem answers that has no locks."""

MOST_TRIES = 100
"""Times that the file is opened anew because its last holder has just removed it."""

HELD: set[int] = set()
"""Descriptors of the locks that this process holds."""


@contextmanager
def claimed(folder: RunFolder, world: World) -> Iterator[None]:
    """The block in which no other run can claim the folder; the main process holds the lock.

    The system frees the lock of a process that dies, however it dies. Where there are no locks, one
    line says so. Raises ConfigError, which names the holder, where the folder is claimed already.
    """
    claim = Claim(folder)
    world.from_main(claim.take)
    try:
        yield
    finally:
        claim.release()


class Claim:
    """A lock on a file of a folder. Nothing is left of it, or of a folder made for it alone."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._made: list[Path] = []
        self._descriptor: int | None = None

    def take(self) -> None:
        """Locks the folder, which is made where it is not there."""
        self._folder.require_writable()
        path = self._folder.path.absolute()
        self._made = [p for p in (path, *path.parents) if not p.exists()]
        for _ in range(MOST_TRIES):
            # Where another claim removes the folder between two looks of `mkdir`, it raises.
            with suppress(FileExistsError):
                path.mkdir(parents=True, exist_ok=True)
            if self._try_once():
                return
        raise ConfigError(f"output_dir: {self._folder.lock} is removed again and again by others")

    def _try_once(self) -> bool:
        """False where the file that was locked is no longer that of the folder."""
        path = self._folder.lock
        with suppress(FileNotFoundError):  # the folder was removed a moment ago
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                self._lock(descriptor)
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    HELD.add(descriptor)
                    self._descriptor = descriptor
                    _write_holder(descriptor)
                    return True
            finally:
                if self._descriptor is None:
                    os.close(descriptor)
        return False

    def _lock(self, descriptor: int) -> None:
        if fcntl is None:
            _say_unlocked(self._folder, "this system has no flock")
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in NOT_KNOWN:
                _say_unlocked(self._folder, error.strerror)
                return
            who = _read_holder(descriptor)
            raise ConfigError(f"output_dir: {self._folder.path} is in use by {who}") from None

    def release(self) -> None:
        """Gives the folder free; does nothing where it was never taken."""
        if self._descriptor is None:
            return
        with suppress(OSError):  # before the lock is free, so that nobody can hold it
            self._folder.lock.unlink(missing_ok=True)
        HELD.discard(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = None
        with suppress(OSError):  # the first that is not empty
            for made in self._made:
                made.rmdir()


def _say_unlocked(folder: RunFolder, reason: str | None) -> None:
    print(
        f"WARNING: {folder.path} cannot be locked ({reason}): two runs that are started there at "
        "the same moment are not told apart",
        file=sys.stderr,
    )


def _write_holder(descriptor: int) -> None:
    holder = json.dumps({"host": socket.gethostname(), "pid": os.getpid()})
    with suppress(OSError):  # a full disk: the lock holds without a name
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, holder.encode(), 0)


def _read_holder(descriptor: int) -> str:
    """The process that a lock file names, in words."""
    try:
        holder = json.loads(os.pread(descriptor, 1000, 0))
        host, pid = holder["host"], holder["pid"]
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
    return f"process {pid} of {'this machine' if host == socket.gethostname() else host}"


def _forget() -> None:
    """A loader process must not keep the folder of a main process that was killed."""
    for descriptor in HELD:
        with suppress(OSError):
            os.close(descriptor)
    HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
