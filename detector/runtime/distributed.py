"""The processes of a run: how many, which one this is, what they say to each other."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from detector.errors import ConfigError, UserError
from detector.runtime.startup import keep_freed_memory

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """rank of size processes, working on device; a single process needs no launcher."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """This process writes the files and prints."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """`values` added over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def any(self, fact: bool) -> bool:
        """Whether it is so on any process."""
        return fact if self.size == 1 else bool(self.sum(torch.tensor(float(fact)).to(self.device)))

    def gather(self, value: T) -> list[T]:
        """The values of all processes in order of rank, on every one of them."""
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]

    def broadcast(self, value: T) -> T:
        """The main process's value, on every one of them."""
        if self.size == 1:
            return value
        values = [value]
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
    return World(dist.get_rank(), dist.get_world_size(), chosen)


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
