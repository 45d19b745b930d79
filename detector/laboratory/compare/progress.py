"""One display of many runs: a bar on a terminal, a line for each run that ends elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from detector.runs.launch import Job
from detector.runs.run_folder import RunFolder

REFRESH = 2.0
"""Seconds between two looks at what the runs say of themselves."""


class Progress:
    """Counts the steps of all runs together, so that the time left is that of the study."""

    def __init__(self, jobs: Sequence[Job], folder: Path, steps: int) -> None:
        self._folders = [RunFolder(folder / job.name) for job in jobs]
        self._steps, self._began, self._looked = steps, time.perf_counter(), 0.0
        self._before = self._now = self._count()
        self._bar = self._make_bar() if sys.stderr.isatty() else None

    def say(self, text: str) -> None:
        """What the launcher says of a run; without a bar also how far all are."""
        if self._bar is not None:
            tqdm.write(text)
            return
        self._now = self._count()
        print(f"{text}  [{self.summary()}]", flush=True)

    def look(self) -> None:
        """Called often; reads the runs' own words now and then."""
        if self._bar is None or time.perf_counter() - self._looked < REFRESH:
            return
        self._looked = time.perf_counter()
        self._now = self._count()
        self._bar.n = self._now
        self._bar.set_postfix_str(f"{self._num_done()} of {len(self._folders)} runs")

    def summary(self) -> str:
        """Such as "3 of 18 runs, 41 % of the steps, 12:30 left"."""
        all_steps = self._steps * len(self._folders)
        done = self._now - self._before
        seconds = time.perf_counter() - self._began
        left = tqdm.format_interval(seconds / max(done, 1) * (all_steps - self._now))
        share = f"{self._now / all_steps:.0%} of the steps" if all_steps else "nothing to do"
        return f"{self._num_done()} of {len(self._folders)} runs, {share}" + (
            f", {left} left" if done else ""
        )

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _make_bar(self) -> tqdm:
        total = self._steps * len(self._folders)
        return tqdm(total=total, initial=self._now, unit="step", dynamic_ncols=True)

    def _num_done(self) -> int:
        return sum(folder.read_status()["state"] == "done" for folder in self._folders)

    def _count(self) -> int:
        return sum(int(folder.read_status().get("step", 0)) for folder in self._folders)
