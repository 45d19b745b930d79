"""What a run says: a bar on a terminal, plain lines elsewhere, JSON and TensorBoard on disk."""

from __future__ import annotations

import errno
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from detector.criterion.initial_loss import describe
from detector.errors import StorageError
from detector.evaluation.text import digits
from detector.runs import status
from detector.runs.checkpoint import write_atomically
from detector.runs.run_folder import RunFolder
from detector.training.setup import Setup
from detector.training.state import State

COLUMNS = 80
"""Of a terminal as it opens; a line that is longer is broken, or cut where it says what is left."""

MAX_WAITING = 0.25
"""Share of the time that a step may wait for data before the run says so."""


class Log:
    """Writes for the main process; the others get `Silent`.

    Nothing of it decides over a run: what cannot be written is named once, and training goes on.
    """

    def __init__(
        self,
        folder: RunFolder,
        num_steps: int,
        start_step: int,
        tensorboard: bool,
        *,
        evaluated: int | None = None,
    ) -> None:
        """evaluated: the step whose weights were scored last; None: none is to be made again."""
        self._folder = folder
        self._num_steps = num_steps
        self._began = self._beat = time.perf_counter()
        self._evaluating = 0.0
        self._lost: set[Path] = set()
        self._damaged: set[str] = set()
        self._bar = None
        self.status("running", step=start_step, steps=num_steps)
        kept = {folder.log: start_step, folder.evaluations: evaluated}
        for path, step in kept.items():
            with self._written(path):
                _keep_lines(path, start_step if step is None else step)
        self._last = (time.perf_counter(), start_step)
        self._waiting: list[float] = []
        self._has_warned = False
        self._best = _best_ap(folder.evaluations)
        self._bar = _bar(num_steps, start_step) if sys.stderr.isatty() else None
        self._writer: Any = None
        if tensorboard:
            with self._written(folder.tensorboard):
                self._writer = _summary_writer(folder.tensorboard, start_step)

    def say(self, text: str) -> None:
        """A line for the reader."""
        tqdm.write(text) if self._bar is not None else print(text, flush=True)

    def status(self, state: str, **facts: Any) -> None:
        """What the run does, or how it ended, into status.json."""
        with self._written(self._folder.status):
            self._folder.write_status(state, **facts)

    def config(self, text: str) -> None:
        """The config of the run, as it is gone on with, into config.yaml."""
        with self._written(self._folder.config):
            write_atomically(self._folder.config, text.encode())

    def data(self, text: str) -> None:
        """What the run was given, and what became of it, into data.json."""
        with self._written(self._folder.data):
            write_atomically(self._folder.data, text.encode())

    def damaged(self, lines: Sequence[str]) -> None:
        """Names the files that cannot be decoded, each once."""
        for line in dict.fromkeys(lines):
            if line not in self._damaged:
                self._damaged.add(line)
                self.say(f"left out, another image takes its place: {line}")

    @contextmanager
    def _written(self, path: Path) -> Iterator[None]:
        """The block that writes a file, or into a folder. Where it cannot, that is said once."""
        try:
            yield
        except (OSError, StorageError) as error:
            if path not in self._lost:
                self._lost.add(path)
                why = f"{path} cannot be written: {getattr(error, 'strerror', None) or error}"
                why = str(error) if isinstance(error, StorageError) else why
                self.say(f"WARNING: {why}; training goes on")

    def restart_clock(self, step: int) -> None:
        """What was done until now, such as an evaluation, does not count as training time."""
        self._last = (time.perf_counter(), step)

    def advance(self) -> None:
        """One more step is done."""
        if self._bar is not None:
            self._bar.update()

    def initial(self, expected: dict[str, float], measured: dict[str, float]) -> None:
        """The terms of the first step as expected and as measured."""
        self.say(describe(expected, measured))
        record = {"foretold": expected, "measured": measured}
        with self._written(self._folder.initial):
            self._folder.initial.write_text(json.dumps(record, indent=1) + "\n")

    def step(self, step: int, values: dict[str, float], batch_size: int) -> None:
        """The facts of the step just done, the `step`-th (1, 2, ...)."""
        now = time.perf_counter()
        seconds = (now - self._last[0]) / max(1, step - self._last[1])
        self._last = (now, step)
        if now - self._beat > status.BEAT:
            self._beat = now
            self.status("running", step=step, steps=self._num_steps)
        line = {"step": step, **values, "images_per_second": batch_size / seconds}
        self._warn_of_waiting(values.get("seconds_data", 0.0) / seconds, step)
        with self._written(self._folder.log):
            _append(self._folder.log, line)
        self._scalars(step, {f"train/{key}": value for key, value in line.items() if key != "step"})
        if self._bar is not None:
            taken = len(f"{self._num_steps}/{self._num_steps} 0:00:00 left  ")
            self._bar.set_postfix_str(fitted(_terms(line), COLUMNS - taken), refresh=True)
        else:
            eta = tqdm.format_interval(seconds * (self._num_steps - step))
            parts = [f"step {step}/{self._num_steps}", f"eta {eta}", *_terms(line)]
            print(fitted(parts, COLUMNS), flush=True)

    def evaluation(self, step: int, metrics: dict[str, Any]) -> None:
        """The metrics of an evaluation after `step` steps; pictures of an analysis too."""
        analysis = metrics.get("analysis")
        found = {key: value for key, value in metrics.items() if key != "analysis"}
        numbers = {k: v for k, v in found.items() if isinstance(v, float)}
        numbers |= {f"AP/{k}": v for k, v in metrics["per_class"].items() if v is not None}
        if analysis is not None:
            from detector.analysis.report import Report  # loaded where it is used

            found["analysis"] = Report(**analysis).scalars()
            numbers |= found["analysis"]
        parts = self._ap_in_words(step, metrics)
        if "seconds" in metrics:
            share = numbers["share_of_time"] = self._share(metrics["seconds"])
            parts.append(f"{metrics['seconds']:.1f} s, {share:.1%} of the time")
        self.say(fitted(parts, COLUMNS))
        with self._written(self._folder.evaluations):
            _append(self._folder.evaluations, {"step": step, **found})
        self._scalars(step, {f"val/{key}": value for key, value in numbers.items()})
        if analysis is not None and self._writer is not None:
            from detector.inference import pictures  # loaded where it is used

            with self._shown():
                pictures.show(self._writer, analysis, step)

    def _ap_in_words(self, step: int, metrics: dict[str, Any]) -> list[str]:
        """AP, AP50 and the best AP of the run so far, with its step."""
        ap = metrics["AP"]
        if ap is not None and (self._best is None or ap > self._best[0]):
            self._best = (ap, step)
        best = "none yet" if self._best is None else f"{self._best[0]:.3f} at step {self._best[1]}"
        if self._best == (ap, step):
            best = "this"
        found = [f"AP {digits(ap)}", f"AP50 {digits(metrics['AP50'])}"]
        return [f"step {step}", *found, f"best: {best}"]

    def _share(self, seconds: float) -> float:
        """Evaluation's share of the time since this log began, this one included."""
        self._evaluating += seconds
        return self._evaluating / max(time.perf_counter() - self._began, self._evaluating)

    def panels(self, setup: Setup, state: State) -> None:
        """What the evaluated model makes of a few images, for TensorBoard alone."""
        if self._writer is not None:
            from detector.training import panels  # loaded where it is used

            with self._shown():
                panels.write(self._writer, setup, state)

    def _warn_of_waiting(self, share: float, step: int) -> None:
        """Says once that the loader is the bottleneck; the first line waits for its start."""
        self._waiting.append(share)
        recent = self._waiting[1:]
        if len(recent) >= 3 and not self._has_warned and min(recent[-3:]) > MAX_WAITING:
            self._has_warned = True
            self.say(
                f"step {step}: {share:.0%} of the time waits for data; loader.num_workers more, "
                "smaller images, or a faster disk"
            )

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        if self._writer is not None:
            with self._shown():
                self._writer.close()

    def _scalars(self, step: int, values: dict[str, float]) -> None:
        if self._writer is not None:
            with self._shown():
                for key, value in values.items():
                    self._writer.add_scalar(key, value, step)

    @contextmanager
    def _shown(self) -> Iterator[None]:
        """The block that writes for TensorBoard, whose writer is no more once it has failed."""
        wrote = False
        with self._written(self._folder.tensorboard):
            yield
            wrote = True
        if not wrote:
            self._writer = None


def _terms(line: dict[str, float]) -> list[str]:
    """What is shown of a step, what matters first."""
    losses = [f"{k.removeprefix('loss_')} {v:.4g}" for k, v in line.items() if k.startswith("loss")]
    return [
        *losses,
        f"{line['images_per_second']:.1f} img/s",
        f"lr {line['lr']:.2e}",
        f"grad {line['grad_norm']:.3g}",
        f"{line['memory_gb']:.2f} GB",
    ]


def fitted(parts: Sequence[str], columns: int) -> str:
    """As many of the parts, from the first on, as fit into a line; never half of one."""
    text = parts[0]
    for part in parts[1:]:
        if len(text) + 2 + len(part) > columns:
            break
        text += f"  {part}"
    return text


def _best_ap(path: Path) -> tuple[float, int] | None:
    """(AP, step) of the best evaluation in a file, None without one."""
    best: tuple[float, int] | None = None
    try:  # a side file decides nothing: it may be damaged, or a FIFO, which would be waited for
        lines = path.read_text().splitlines() if path.is_file() else []
    except (OSError, UnicodeDecodeError):
        return None
    for line in lines:
        try:
            row = json.loads(line)
            ap, step = float(row["AP"]), int(row["step"])
        except (ValueError, TypeError, KeyError):
            continue
        best = max(best, (ap, step), key=lambda pair: pair[0]) if best else (ap, step)
    return best


def _bar(num_steps: int, start_step: int) -> tqdm[Any]:
    """No picture of a bar: the numbers need its place."""
    return tqdm(
        total=num_steps,
        initial=start_step,
        ncols=COLUMNS,
        bar_format="{n_fmt}/{total_fmt} {remaining} left{postfix}",
    )


def _summary_writer(folder: Path, start_step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter  # slow to import, and optional

    # TensorBoard drops what an earlier, broken run wrote from `purge_step` on.
    return SummaryWriter(str(folder), purge_step=start_step + 1)


def _append(path: Path, line: dict[str, Any]) -> None:
    """Adds a line of JSON, which has no word for nan and inf: they become null.

    Raises OSError where it cannot be written; no part of the line stays then.
    """
    finite = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in line.items()
    }
    text = json.dumps(finite, allow_nan=False) + "\n"
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    # A FIFO that nobody reads would be waited for.
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)
    try:
        size = os.fstat(descriptor).st_size
        if os.write(descriptor, text.encode()) < len(text):
            os.ftruncate(descriptor, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(descriptor)


def _keep_lines(path: Path, step: int) -> None:
    """Drops lines of steps that a resumed run will make again, and those that are damaged, as a
    line is that was cut off by a crash."""
    if path.is_file():
        with open(path, "rb") as file:
            kept = [text.rstrip(b"\n") + b"\n" for text in file if _is_before(text, step)]
        write_atomically(path, b"".join(kept))


def _is_before(text: bytes, step: int) -> bool:
    """Whether a line of JSON is of this step or an earlier one."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):  # ValueError: no JSON, no UTF-8
        return False
    return isinstance(line, dict) and isinstance(line.get("step"), int) and line["step"] <= step


class Silent:
    """The log of a process that is not the main one."""

    def say(self, text: str) -> None: ...

    def status(self, state: str, **facts: Any) -> None: ...

    def config(self, text: str) -> None: ...

    def data(self, text: str) -> None: ...

    def damaged(self, lines: Sequence[str]) -> None: ...

    def restart_clock(self, step: int) -> None: ...

    def advance(self) -> None: ...

    def initial(self, expected: dict[str, float], measured: dict[str, float]) -> None: ...

    def step(self, step: int, values: dict[str, float], batch_size: int) -> None: ...

    def evaluation(self, step: int, metrics: dict[str, Any]) -> None: ...

    def panels(self, setup: Setup, state: State) -> None: ...

    def close(self) -> None: ...
