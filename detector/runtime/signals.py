"""A polite request to stop: noted at once, obeyed at the end of a step or inside an evaluation."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from detector.errors import Preempted

SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGUSR1", "SIGINT", "SIGHUP")
    if hasattr(signal, name)  # Windows lacks some
)

SAME_REQUEST = 3.0
"""Seconds within which torchrun repeats a signal that its processes have got from the terminal or
the scheduler already: theirs is one request."""


class Interrupted(Preempted):
    """Asked to stop inside an evaluation, of which nothing is kept."""


class StopRequest:
    """Listens for SIGTERM, SIGUSR1, SIGHUP and Ctrl-C; the second one ends the process at once.

    A signal that was ignored before, as SIGHUP is under nohup, stays ignored.
    """

    def __init__(self) -> None:
        self.requested = False
        self.reason = "a signal"
        """What was asked with, in words; of this process."""
        self._breaks = False
        self._noted = 0.0
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            is_repeated = time.monotonic() - self._noted < SAME_REQUEST
            if is_repeated and "TORCHELASTIC_RUN_ID" in os.environ:
                return
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.requested, self._noted = True, time.monotonic()
        self.reason = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        if self._breaks:
            self._breaks = False
            raise Interrupted(f"stopped by {self.reason}")

    @contextmanager
    def breaks(self) -> Iterator[None]:
        """The block that a request, also one from before it, breaks off with Interrupted.

        At any line: nothing in it may be left half done.
        """
        self._breaks = True
        try:
            if self.requested:
                raise Interrupted(f"stopped by {self.reason}")
            yield
        finally:
            self._breaks = False


@contextmanager
def handlers_kept() -> Iterator[None]:
    """The block after which signals do what they did before it: Ctrl-C is the caller's again."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                if handler is not None:  # None: it was not set from Python
                    signal.signal(number, handler)
