"""The processes that load batches, and what is said when one of them is no more."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import signal
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
        self._image_ids, self._groups = image_ids, groups
        self._on_the_way: deque[Group] = deque()
        self._loaded: Iterator[Any] | None = None
        self._loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_size=None,
            sampler=self._sent(),  # type: ignore[arg-type]
            num_workers=num_workers,
            prefetch_factor=PREFETCH if num_workers > 0 else None,
            timeout=timeout if num_workers > 0 else 0,
            pin_memory=pin_memory,
            worker_init_fn=functools.partial(start_worker, ending()) if num_workers > 0 else None,
            # Else the loader draws a seed, which nothing here uses, from torch's global numbers.
            generator=torch.Generator(),
        )

    def __next__(self) -> tuple[Batch, Targets]:
        if self._loaded is None:
            self._loaded = iter(self._loader)
        with self.explained():
            batch = next(self._loaded)
        self._on_the_way.popleft()
        if isinstance(batch, UserError):
            raise batch
        return batch

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turns what torch says of a lost worker, at any place of the block, into LoaderError."""
        try:
            yield
        except RuntimeError as error:
            if not str(error).startswith((LOST, LATE)):
                raise
            raise LoaderError(in_words(str(error), self._image_ids, self._on_the_way)) from error

    def _sent(self) -> Iterator[Group]:
        """The groups, each noted when it is handed to a worker."""
        for group in self._groups:
            self._on_the_way.append(group)
            yield group


def in_words(error: str, image_ids: NDArray, on_the_way: Sequence[Group]) -> str:
    """One line of what torch says, the images that may be the cause, and what to do."""
    said = error.splitlines()[0].strip().rstrip(".")
    is_late = error.startswith(LATE)
    # Batches come in order, so one that is late is the first.
    groups = list(on_the_way)[:1] if is_late else on_the_way
    ids = [int(image_ids[index]) for group in groups for _, index in group]
    named = ", ".join(map(str, ids[:MAX_NAMED]))
    more = f" and {len(ids) - MAX_NAMED} more" if len(ids) > MAX_NAMED else ""
    advice = (
        "a slow disk or network, or loader.timeout is too short"
        if is_late
        else "processes are often killed for memory, which a smaller loader.num_workers saves"
    )
    if "shared memory" in error or "Bus error" in error:
        advice = f"{shared_memory()}; in Docker, --ipc=host gives all of the machine's"
    return f"{said}; loading image ids {named}{more}; {advice}"


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

    A request to stop often goes to all processes of a group (torchrun and Slurm send it so): the
    main process obeys at the end of its step, and until then it needs its workers. A second one
    ends a worker that hangs.
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def outlive(number: int, frame: FrameType | None) -> None:
        if is_ending.is_set():
            os._exit(0)
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, outlive)
