"""What a command says: it cannot end the command, nor move the cursor of a terminal."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f"  # all but the tab and the end of a line
    r"\u200e\u200f\u202a-\u202e\u2066-\u2069]"  # the order in which letters are shown
)
"""Signs that a terminal obeys instead of showing them. A name in somebody's data may hold them."""


class Steady:
    """A stream of text that takes everything it is told.

    Where it cannot be written (a full disk, a closed pipe), one line on the other stream says so,
    and nothing more is written. Letters that its encoding lacks, and signs that a terminal would
    obey, are written as escapes: `\\x1b`. A carriage return that begins a text is that of a bar.
    """

    def __init__(self, stream: TextIO | None, name: str) -> None:
        """stream: None where the process was started without it."""
        self._stream, self._name = stream, name
        self.failure: OSError | ValueError | None = None
        """Why nothing more is written."""

    def write(self, text: str) -> int:
        """Takes the whole text. Returns its length."""
        if self._stream is not None and self.failure is None:
            try:
                self._stream.write(self._plain(text))
            except (OSError, ValueError) as error:  # the second: it was closed
                self._give_up(error)
        return len(text)

    def flush(self) -> None:
        if self._stream is not None and self.failure is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._give_up(error)

    def isatty(self) -> bool:
        return self._stream is not None and self.failure is None and self._stream.isatty()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _plain(self, text: str) -> str:
        bar = "\r" if text.startswith("\r") else ""
        shown = bar + CONTROL.sub(_escaped, text.removeprefix(bar))
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        return shown.encode(encoding, "backslashreplace").decode(encoding)

    def _give_up(self, error: OSError | ValueError) -> None:
        self.failure = error
        with suppress(OSError, ValueError):  # else what is left in its buffer fails at the exit
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())  # type: ignore[union-attr]
            os.close(nowhere)
        reason = getattr(error, "strerror", None) or str(error)
        other = sys.stderr if self._name == "standard output" else sys.stdout
        print(
            f"WARNING: {self._name} cannot be written ({reason}); what is said from here on is "
            "lost, all else goes on",
            file=other,
            flush=True,
        )


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


@contextmanager
def steady_output() -> Iterator[tuple[Steady, Steady]]:
    """The block in which standard output and standard error are `Steady`; both of them."""
    before: Any = sys.stdout, sys.stderr
    if all(isinstance(stream, Steady) for stream in before):
        yield before
        return
    now: Any = Steady(before[0], "standard output"), Steady(before[1], "standard error")
    sys.stdout, sys.stderr = now
    try:
        yield now
    finally:
        for stream in now:
            stream.flush()
        sys.stdout, sys.stderr = before


def is_closed_pipe(failure: OSError | ValueError | None) -> bool:
    """Whether whoever read a stream has read enough: `| head`."""
    return isinstance(failure, OSError) and failure.errno == errno.EPIPE
