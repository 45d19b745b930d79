"""The processes that load batches, and what is said when one of them is no more."""

from __future__ import annotations

import atexit
import errno
import functools
import os
import re
import shutil
import signal
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection, queues
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import cv2
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data._utils import signal_handling

from detector.data.sampler import Draw
from detector.errors import LoaderError, UserError
from detector.runtime.signals import SIGNALS
from detector.structures import Batch, Targets

PREFETCH = 2
"""Batches that each worker has ready or in the making: torch's default."""

LOST = "DataLoader worker (pid"
LATE = "DataLoader timed out"
"""How torch's messages about its workers begin."""

ANCILLARY = "received 0 items of ancdata"
"""What multiprocessing says where a file is handed to a process that may open no more."""

NO_ROOM, TOO_MANY_FILES = 101, 102
"""Exit codes of a worker whose batch finds no room in shared memory, and of one that may open no
more files."""

TOO_MANY = (
    "too many open files, of which every batch that waits holds some; a larger `ulimit -n`, or a "
    "smaller loader.num_workers"
)

MAX_NAMED = 16
"""Images that a message names."""

SHARED_MEMORY = Path("/dev/shm")
"""Through which batches come from the workers, on Linux."""

Group = Sequence[Draw]
"""The images of a batch."""


class Batches(Iterator[tuple[Batch, Targets]]):
    """The batches of groups, in order. Workers are started by the first `next`.

    dataset: from a group to its batch, or to a UserError, which is raised here. image_ids (I,) of
    the indices. timeout: seconds to wait for a batch. Raises LoaderError, which names images, where
    a worker died, hangs or was stopped; all of its workers are killed then.
    """

    def __init__(
        self,
        dataset: TorchDataset[Any],
        groups: Iterator[Group],
        image_ids: NDArray,
        num_workers: int,
        *,
        timeout: float,
        pin_memory: bool = False,
    ) -> None:
        self._image_ids = image_ids
        self._on_the_way: deque[Group] = deque()
        self._loaded: Iterator[Any] | None = None
        self._workers: list[Any] = []
        self._watchdog = Watchdog(timeout)
        self._loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_size=None,
            sampler=noted(groups, self._on_the_way),  # type: ignore[arg-type]
            num_workers=num_workers,
            prefetch_factor=PREFETCH if num_workers > 0 else None,
            timeout=timeout if num_workers > 0 else 0,
            pin_memory=pin_memory,
            worker_init_fn=start_worker if num_workers > 0 else None,
            # Else the loader draws a seed, which nothing here uses, from torch's global numbers.
            generator=torch.Generator(),
        )

    def __next__(self) -> tuple[Batch, Targets]:
        try:
            with explained(self):
                if self._loaded is None:
                    self._start()
                assert self._loaded is not None
                with self._watchdog:
                    batch = next(self._loaded)
        except StopIteration:
            raise
        except BaseException:  # also of Ctrl-C: a worker that is stopped does not hear a request
            self.kill()
            raise
        self._on_the_way.popleft()
        if isinstance(batch, UserError):
            raise batch
        return batch

    def _start(self) -> None:
        ALIVE.add(self)
        try:
            self._loaded = iter(self._loader)
        except OSError as error:
            why = TOO_MANY if error.errno == errno.EMFILE else f"{error.strerror}; {room()}"
            raise LoaderError(f"loader processes cannot be started: {why}") from None
        self._workers = list(getattr(self._loaded, "_workers", ()))
        WORKERS.update(self._workers)
        if self._workers:
            kill_at_exit()
            self._watchdog.watch(self._workers)

    def kill(self) -> None:
        """Ends the workers at once, those too that do not listen."""
        if getattr(self._loaded, "_worker_pids_set", False):
            # Else torch raises, at whatever line this process is, that they were killed.
            signal_handling._remove_worker_pids(id(self._loaded))  # type: ignore[attr-defined]
            self._loaded._worker_pids_set = False  # type: ignore[union-attr]
        kill(self._workers)

    def end_of_a_worker(self) -> str:
        """What torch says of the end of a worker, with which there is no conversation any more."""
        sentinels = [worker.sentinel for worker in self._workers]
        try:
            connection.wait(sentinels, timeout=LATER)
        except (RuntimeError, OSError) as error:  # as torch hears of the end while this waits
            return str(error) if str(error).startswith(LOST) else f"{LOST}) exited unexpectedly"
        return f"{LOST}) exited unexpectedly"

    @property
    def is_late(self) -> bool:
        """Whether a batch was waited for in vain, and the workers were killed for it."""
        return self._watchdog.has_barked

    def exit_codes(self) -> set[int | None]:
        """Of the workers; None of one that is alive."""
        return {worker.exitcode for worker in self._workers}

    def owns(self, pids: set[int]) -> bool:
        """Whether one of the processes is a worker of these batches."""
        return any(worker.pid in pids for worker in self._workers)

    def ids_on_the_way(self, *, first: bool) -> list[int]:
        """Image ids of the batches that were handed to workers and have not come back.

        first: of the one that is to come next alone.
        """
        groups = list(self._on_the_way)[: 1 if first else None]
        return [int(self._image_ids[draw.image]) for group in groups for draw in group]


def noted(groups: Iterator[Group], on_the_way: deque[Group]) -> Iterator[Group]:
    """The groups, each noted when it is handed to a worker."""
    for group in groups:
        on_the_way.append(group)
        yield group


ALIVE: weakref.WeakSet[Batches] = weakref.WeakSet()
"""Those whose workers were started. torch tells of any lost worker wherever this process is: while
it works on batches of the same workers, or evaluates with others."""

WORKERS: weakref.WeakSet[Any] = weakref.WeakSet()
"""The processes that were started, as long as somebody knows of them."""


def kill(workers: Iterable[Any]) -> None:
    """Ends processes with the only signal that one hears which was stopped."""
    for worker in workers:
        if worker.is_alive():
            worker.kill()


@functools.cache
def kill_at_exit() -> None:
    """Where this process comes to its end, multiprocessing asks each worker to end, with SIGTERM,
    and waits for it, for ever where it was stopped; loaders have nothing to finish."""

    def end() -> None:
        if hasattr(signal, "SIGCHLD"):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where torch raises that one was killed
        kill(list(WORKERS))

    atexit.register(end)  # later than multiprocessing has registered its own: so it runs before


class Watchdog:
    """Kills workers that let this process wait for longer than some seconds: `with watchdog: ...`.

    torch waits for a message with a timeout, and then for the memory that the message names without
    one: a worker that was stopped in between would be waited for for ever.
    """

    def __init__(self, seconds: float) -> None:
        self._limit = seconds + LATER
        self._since: float | None = None
        self._over = threading.Event()
        self.has_barked = False

    def watch(self, workers: Sequence[Any]) -> None:
        """Begins to watch. A thread does so until nobody knows of this object any more."""
        weakref.finalize(self, self._over.set)
        arguments = (weakref.ref(self), self._over, list(workers), min(1.0, self._limit / 5))
        threading.Thread(target=_watch, args=arguments, daemon=True, name="watchdog").start()

    def __enter__(self) -> None:
        self._since = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._since = None

    def waits_too_long(self) -> bool:
        """Whether the block has been waiting for longer than it may; it is noted."""
        since = self._since
        self.has_barked |= since is not None and time.monotonic() - since > self._limit
        return self.has_barked


LATER = 1.0
"""Seconds that the watchdog leaves torch to find out for itself."""


def _watch(
    watchdog: weakref.ref[Watchdog], over: threading.Event, workers: list[Any], pause: float
) -> None:
    while not over.wait(pause):
        found = watchdog()
        if found is None:
            return
        if found.waits_too_long():
            kill(workers)
            return
        del found  # or it would be known here for as long as this thread sleeps


@contextmanager
def explained(waiting: Batches | None = None) -> Iterator[None]:
    """Turns what torch says of a lost worker, at any place of the block, into LoaderError.

    waiting: the batches that the block waits for.
    """
    try:
        yield
    except (RuntimeError, OSError, EOFError) as error:
        said = str(error)
        if waiting is not None and waiting.is_late:
            said = f"{LATE}: no batch came, and a loader process did not answer"
        elif getattr(error, "errno", None) == errno.EMFILE or ANCILLARY in said:
            raise LoaderError(f"DataLoader: {TOO_MANY}") from error
        elif waiting is not None and isinstance(error, OSError | EOFError):
            # Those of a worker's own work begin so: this one is of the conversation with it.
            if said.startswith("Caught "):
                raise
            said = waiting.end_of_a_worker()
        elif not said.startswith((LOST, LATE)):
            raise
        # Where the block waits for a batch, torch's first error is the cause of the one that comes.
        elif error.__cause__ is not None and str(error.__cause__).startswith(LOST):
            said = str(error.__cause__)
        lost = set(map(int, re.findall(r"\d+", said.partition(")")[0]))) if LOST in said else set()
        owner = next((one for one in ALIVE if one.owns(lost)), waiting)
        is_late = said.startswith(LATE)
        ids = [] if owner is None else owner.ids_on_the_way(first=is_late)
        codes = set() if owner is None else owner.exit_codes()
        raise LoaderError(in_words(said, ids, is_late=is_late, codes=codes)) from error


def in_words(
    said: str, ids: Sequence[int], *, is_late: bool, codes: Collection[int | None] = ()
) -> str:
    """One line of what torch says, the images that may be the cause, and what to do."""
    line = said.splitlines()[0].partition(". Details are lost")[0].strip().rstrip(".")
    if ids:
        more = f" and {len(ids) - MAX_NAMED} more" if len(ids) > MAX_NAMED else ""
        line += f"; loading image ids {', '.join(map(str, ids[:MAX_NAMED]))}{more}"
    if TOO_MANY_FILES in codes:
        return f"{line}; {TOO_MANY}"
    if NO_ROOM in codes or "shared memory" in said or "Bus error" in said:
        return f"{line}; {room()}"
    if is_late:
        return f"{line}; a slow disk or network, too short a loader.timeout, or no room: {room()}"
    return (
        f"{line}; processes are often killed for memory, which a smaller loader.num_workers saves"
    )


def room() -> str:
    """How much shared memory there is, and how to get more."""
    return f"{shared_memory()}; in Docker, --ipc=host gives all of the machine's"


def shared_memory() -> str:
    """How much there is, in words."""
    if not SHARED_MEMORY.is_dir():
        return "shared memory is short"
    usage = shutil.disk_usage(SHARED_MEMORY)
    return f"{SHARED_MEMORY} has {usage.free / 1e6:.0f} MB free of {usage.total / 1e6:.0f} MB"


def start_worker(worker: int) -> None:
    """One thread a process. Ctrl-C is for the main process, which ends its workers in order.

    A request to stop often goes to all processes of a group (torchrun, Slurm and a terminal that is
    closed send it so): the main process obeys at the end of its step, and until then it needs its
    workers. A second one ends a worker that hangs.
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def outlive(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)

    for number in SIGNALS:
        if number != signal.SIGINT:
            signal.signal(number, outlive)
    queues.Queue._on_queue_feeder_error = staticmethod(end_for)  # type: ignore[method-assign]


def end_for(error: Exception, batch: object) -> NoReturn:
    """Ends a worker whose batch cannot be handed over. Python's own answer prints a traceback and
    lets the batch be waited for until the timeout."""
    is_full = getattr(error, "errno", None) == errno.EMFILE or "Too many open files" in str(error)
    no_room = "shared memory" in str(error) or "No space left" in str(error)
    if not is_full and not no_room:
        print(f"loader process: {error!r}", file=sys.stderr, flush=True)
    os._exit(TOO_MANY_FILES if is_full else NO_ROOM if no_room else 1)
