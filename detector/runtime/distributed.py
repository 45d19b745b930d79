"""The processes of a run: how many, which one this is, what they say to each other."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from detector.errors import ConfigError, LostProcess, UserError
from detector.runtime.startup import keep_freed_memory

T = TypeVar("T")

LATE = ("timed out", "timeout")
GONE = ("connection closed by peer", "connection reset by peer", "broken pipe")
"""What gloo says, in small letters, of a process that does not answer, and of one that is gone."""

SAID_AFTER = 0.9
"""Share of the timeout after which a wait is told: NCCL ends the process without a word of its own
from which one could tell the step."""


class Waits:
    """What a process waits for the others with, and in which step; said where it takes too long.

    step: 1, 2, ..., set by the training; None outside of one.
    """

    def __init__(self) -> None:
        self.step: int | None = None
        self._rank, self._timeout = 0, float("inf")
        self._current: tuple[float, str] | None = None

    def watch(self, rank: int, timeout: float) -> None:
        """Begins to say it, from a thread of its own. timeout: seconds of a wait."""
        self._rank, self._timeout = rank, timeout
        threading.Thread(target=self._watch, daemon=True, name="waits").start()

    @contextmanager
    def __call__(self, operation: str) -> Iterator[None]:
        """The block of an operation that all processes take part in.

        Raises LostProcess, which names rank, step and operation, where another does not.
        """
        around = self._current
        self._current = time.monotonic(), operation
        try:
            yield
        except RuntimeError as error:
            said = str(error).lower()
            if any(words in said for words in LATE):
                why = f"the others have not answered for {self._timeout:g} s (process_timeout)"
            elif any(words in said for words in GONE):
                why = "another process is gone; its own message says why"
            else:
                raise
            raise LostProcess(f"{self._place(operation)}: {why}") from error
        finally:
            self._current = around

    def _place(self, operation: str) -> str:
        step = "" if self.step is None else f", step {self.step}"
        return f"rank {self._rank}{step}, {operation}"

    def _watch(self) -> None:
        limit, told = SAID_AFTER * self._timeout, None
        while True:
            time.sleep(min(1.0, self._timeout / 20))
            current = self._current
            if current is None or current is told or time.monotonic() - current[0] < limit:
                continue
            told = current
            line = f"WARNING: {self._place(current[1])}: waits for the others since {limit:g} s"
            print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class World:
    """rank of size processes, working on device; a single process needs no launcher."""

    rank: int
    size: int
    device: torch.device
    waits: Waits = field(default_factory=Waits, compare=False, repr=False)

    @property
    def is_main(self) -> bool:
        """This process writes the files and prints."""
        return self.rank == 0

    def sum(self, values: Tensor, what: str = "a sum") -> Tensor:
        """`values` added over all processes, in place. what: as messages call it.

        On a GPU it may not be done yet, see `numbers`.
        """
        if self.size > 1:
            with self.waits(what):
                dist.all_reduce(values)
        return values

    def numbers(self, values: Tensor, what: str = "a sum") -> list[float]:
        """The numbers of a tensor (V,) over all processes, added up and waited for."""
        if self.size == 1:
            return values.tolist()
        with self.waits(what):
            return self.sum(values, what).tolist()

    def any(self, fact: bool) -> bool:
        """Whether it is so on any process."""
        if self.size == 1:
            return fact
        return self.numbers(torch.tensor([float(fact)]).to(self.device), "a question")[0] > 0

    def gather(self, value: T) -> list[T]:
        """The values of all processes in order of rank, on every one of them."""
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        with self.waits("gathering what each process has"):
            dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]

    def broadcast(self, value: T) -> T:
        """The main process's value, on every one of them."""
        if self.size == 1:
            return value
        values = [value]
        with self.waits("what rank 0 has found"):
            dist.broadcast_object_list(values, src=0)
        return values[0]

    def from_main(self, make: Callable[[], T]) -> T:
        """What `make` returns on the main process, on every one; a UserError of it is raised there.

        So that all decide alike what depends on files, which change while they look.
        """
        outcome: tuple[T | None, UserError | None] = (None, None)
        if self.is_main:
            try:
                outcome = (make(), None)
            except UserError as error:
                outcome = (None, error)
        value, failure = self.broadcast(outcome)
        if failure is not None:
            raise failure
        return value  # type: ignore[return-value]

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model with gradients averaged over processes; itself where there is only one."""
        if self.size == 1:
            return model
        devices = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)


def start(device: str = "auto", timeout: float = 600.0) -> World:
    """The world that torchrun's variables describe, one process without them.

    device: "auto" takes CUDA where there is one. timeout: seconds a process waits for the others.
    Raises ConfigError for a device that is not there.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    chosen = choose_device(device, int(os.environ.get("LOCAL_RANK", "0")))
    if chosen.type == "cpu":
        keep_freed_memory()
    if size == 1:
        return World(0, 1, chosen)
    if not dist.is_initialized():
        backend = "nccl" if chosen.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout))
    world = World(dist.get_rank(), dist.get_world_size(), chosen)
    world.waits.watch(world.rank, timeout)
    return world


def stop() -> None:
    """Ends the conversation between the processes, where there was one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """The device of a name: "auto" takes CUDA where there is one, "cuda" the GPU of the local rank.

    Raises ConfigError for a device that is not there.
    """
    available = torch.cuda.is_available()
    if name == "auto":
        name = "cuda" if available else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device: {name!r} given, auto, cpu, cuda or cuda:N is allowed")
    if device.type == "cpu":
        return device
    index = local_rank if device.index is None else device.index
    if not available or index >= torch.cuda.device_count():
        count = torch.cuda.device_count() if available else 0
        raise ConfigError(f"device: {name} given, but this machine has {count} CUDA devices")
    torch.cuda.set_device(index)
    return torch.device("cuda", index)
