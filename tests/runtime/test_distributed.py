"""One process is a world of its own; what several say to each other is tested with the training."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from detector.errors import ConfigError
from detector.runtime.distributed import World, start, stop

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without CUDA, and not under torchrun."""
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_a_process_alone_has_the_sum_in_its_own_tensor() -> None:
    values = torch.tensor([1.0, torch.inf, -2.0])
    assert World(0, 1, CPU).sum(values) is values
    assert values.tolist() == [1.0, torch.inf, -2.0]


def test_a_process_alone_gathers_and_broadcasts_its_own_value() -> None:
    world, value = World(0, 1, CPU), {"AP": None}
    gathered = world.gather(value)
    assert len(gathered) == 1
    assert gathered[0] is value
    assert world.broadcast(value) is value


def test_a_process_alone_needs_no_wrapper() -> None:
    model = nn.Linear(1, 1)
    assert World(0, 1, CPU).wrap(model) is model


def test_only_the_first_process_is_the_main_one() -> None:
    assert [World(rank, 3, CPU).is_main for rank in range(3)] == [True, False, False]


@pytest.mark.parametrize("name", ["cpu", "auto"])
def test_without_a_launcher_and_without_cuda_it_is_one_process_on_the_cpu(name: str) -> None:
    assert start(name) == World(0, 1, CPU)
    assert not torch.distributed.is_initialized()
    stop()  # of a conversation that was never begun


def test_a_launcher_of_one_process_is_no_conversation(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("WORLD_SIZE", "1"), ("RANK", "0"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    assert start("cpu") == World(0, 1, CPU)
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:-1", "CPU", "", "meta", "mps"])
def test_a_device_that_no_run_can_use_is_answered_with_those_that_are_allowed(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        start(name)
    assert str(caught.value) == f"device: {name!r} given, auto, cpu, cuda or cuda:N is allowed"


@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_cuda_that_is_not_there_is_one_line(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        start(name)
    assert str(caught.value) == f"device: {name} given, but this machine has 0 CUDA devices"


def test_a_process_takes_the_cuda_device_of_its_place_on_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert start("auto").device == torch.device("cuda", 1)
    assert chosen == [1]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match="device: cuda given, but this machine has 2 CUDA"):
        start("cuda")
