"""Where the time of a step goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

ALWAYS = "data"
"""The part that is timed in every run: waiting for the loader."""

PARTS = ("data", "match", "forward", "loss", "backward", "optimizer")
"""In the order of a step. Evaluations, logging and savings are not parts of it."""


class Stopwatch:
    """Seconds of the parts of a step: `with clock("forward"): ...`. A step waits for data once.

    enabled: time all parts, waiting for a GPU before and after each, so that its work counts where
    it was asked for. Otherwise only `ALWAYS`, without waiting: what the step itself waits for.
    """

    def __init__(self, device: torch.device, enabled: bool) -> None:
        self._device = device
        self._enabled = enabled
        self._seconds: dict[str, float] = {}
        self._steps = 0
        self._total: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Adds the time of the block to `part`."""
        if not self._enabled and part != ALWAYS:
            yield
            return
        began = self._now()
        yield
        self._seconds[part] = self._seconds.get(part, 0.0) + self._now() - began
        self._steps += part == ALWAYS

    def take(self) -> dict[str, float]:
        """`seconds_PART`: the mean of a step over the steps since the last call."""
        for part, seconds in self._seconds.items():
            self._total[part] = self._total.get(part, 0.0) + seconds
        means = {f"seconds_{part}": s / max(1, self._steps) for part, s in self._seconds.items()}
        self._seconds, self._steps = {}, 0
        return means

    def table(self) -> str:
        """Share and seconds of each part since the start; empty where not enabled."""
        if not self._enabled or not self._total:
            return ""
        every = sum(self._total.values())
        lines = [f"{'part of a step':<16}{'seconds':>10}{'share':>8}"]
        for part in PARTS:
            seconds = self._total.get(part, 0.0)
            lines.append(f"{part:<16}{seconds:>10.2f}{seconds / every:>8.1%}")
        return "\n".join(lines)

    def _now(self) -> float:
        if self._enabled and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
