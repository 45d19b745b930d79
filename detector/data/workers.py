"""The processes that load batches, and what is said when one of them is no more."""

from __future__ import annotations

import atexit
import functools
import os
import re
import shutil
import signal
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path
from types import FrameType
from typing import Any

import cv2
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from detector.errors import LoaderError, UserError
from detector.runtime.signals import SIGNALS
from detector.structures import Batch, Targets

PREFETCH = 2
"""Batches that each worker has ready or in the making: torch's default."""

LOST = "DataLoader worker (pid"
LATE = "DataLoader timed out"
"""How torch's messages about its workers begin."""

MAX_NAMED = 16
"""Images that a message names."""

SHARED_MEMORY = Path("/dev/shm")
"""Through which batches come from the workers, on Linux."""

Group = Sequence[tuple[int, int]]
"""(epoch, index) of the images of a batch."""


class Batches(Iterator[tuple[Batch, Targets]]):
    """The batches of groups, in order. Workers are started by the first `next`.

    dataset: from a group to its batch, or to a UserError, which is raised here. image_ids (I,) of
    the indices. timeout: seconds to wait for a batch. Raises LoaderError, which names images, where
    a worker died or hangs.
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
        self._pids: set[int] = set()
        self._loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_size=None,
            sampler=noted(groups, self._on_the_way),  # type: ignore[arg-type]
            num_workers=num_workers,
            prefetch_factor=PREFETCH if num_workers > 0 else None,
            timeout=timeout if num_workers > 0 else 0,
            pin_memory=pin_memory,
            worker_init_fn=functools.partial(start_worker, ending()) if num_workers > 0 else None,
            # Else the loader draws a seed, which nothing here uses, from torch's global numbers.
            generator=torch.Generator(),
        )

    def __next__(self) -> tuple[Batch, Targets]:
        with explained(self):
            if self._loaded is None:
                ALIVE.add(self)
                self._loaded = iter(self._loader)
                self._pids = {worker.pid for worker in getattr(self._loaded, "_workers", ())}
            batch = next(self._loaded)
        self._on_the_way.popleft()
        if isinstance(batch, UserError):
            raise batch
        return batch

    def ids_on_the_way(self, *, first: bool) -> list[int]:
        """Image ids of the batches that were handed to workers and have not come back.

        first: of the one that is to come next alone.
        """
        groups = list(self._on_the_way)[: 1 if first else None]
        return [int(self._image_ids[index]) for group in groups for _, index in group]


def noted(groups: Iterator[Group], on_the_way: deque[Group]) -> Iterator[Group]:
    """The groups, each noted when it is handed to a worker."""
    for group in groups:
        on_the_way.append(group)
        yield group


ALIVE: weakref.WeakSet[Batches] = weakref.WeakSet()
"""Those whose workers were started. torch tells of any lost worker wherever this process is: while
it works on batches of the same workers, or evaluates with others."""


@contextmanager
def explained(waiting: Batches | None = None) -> Iterator[None]:
    """Turns what torch says of a lost worker, at any place of the block, into LoaderError.

    waiting: the batches that the block waits for.
    """
    try:
        yield
    except RuntimeError as error:
        said = str(error)
        if not said.startswith((LOST, LATE)):
            raise
        # Where the block waits for a batch, torch's first error is the cause of the one that comes.
        if error.__cause__ is not None and str(error.__cause__).startswith(LOST):
            said = str(error.__cause__)
        lost = set(map(int, re.findall(r"\d+", said.partition(")")[0]))) if LOST in said else set()
        owner = next((one for one in ALIVE if one._pids & lost), waiting)
        is_late = said.startswith(LATE)
        ids = [] if owner is None else owner.ids_on_the_way(first=is_late)
        raise LoaderError(in_words(said, ids, is_late=is_late)) from error


def in_words(said: str, ids: Sequence[int], *, is_late: bool) -> str:
    """One line of what torch says, the images that may be the cause, and what to do."""
    line = said.splitlines()[0].strip().rstrip(".")
    if ids:
        more = f" and {len(ids) - MAX_NAMED} more" if len(ids) > MAX_NAMED else ""
        line += f"; loading image ids {', '.join(map(str, ids[:MAX_NAMED]))}{more}"
    room = f"{shared_memory()}; in Docker, --ipc=host gives all of the machine's"
    if "shared memory" in said or "Bus error" in said:
        return f"{line}; {room}"
    if is_late:
        return f"{line}; a slow disk or network, too short a loader.timeout, or no room: {room}"
    return (
        f"{line}; processes are often killed for memory, which a smaller loader.num_workers saves"
    )


def shared_memory() -> str:
    """How much there is, in words."""
    if not SHARED_MEMORY.is_dir():
        return "shared memory is short"
    usage = shutil.disk_usage(SHARED_MEMORY)
    return f"{SHARED_MEMORY} has {usage.free / 1e6:.0f} MB free of {usage.total / 1e6:.0f} MB"


@functools.cache
def ending() -> Event:
    """Set when this process comes to its end, where multiprocessing asks each worker once to end,
    with SIGTERM, and waits for it for ever."""
    event = torch.multiprocessing.Event()
    atexit.register(event.set)  # later than multiprocessing has registered: so it runs before
    return event


def start_worker(is_ending: Event, worker: int) -> None:
    """One thread a process. Ctrl-C is for the main process, which ends its workers in order.

    A request to stop often goes to all processes of a group (torchrun, Slurm and a terminal that is
    closed send it so): the main process obeys at the end of its step, and until then it needs its
    workers. A second one ends a worker that hangs.
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def outlive(number: int, frame: FrameType | None) -> None:
        if is_ending.is_set():
            os._exit(0)
        signal.signal(number, signal.SIG_DFL)

    for number in SIGNALS:
        if number != signal.SIGINT:
            signal.signal(number, outlive)
