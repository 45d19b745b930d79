"""A steady step waits for the device once: counted, since on a CPU a wait costs nothing.

On a GPU each read of a number, and each shape that depends on values, stops the stream of work. A
dispatch mode sees every operator of a step; reads by Python are counted where they are made.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from detector.config import from_plain
from detector.config.registry import LOSSES
from detector.runtime.distributed import World
from detector.runtime.stopwatch import Stopwatch
from detector.training.replay import micro_batches
from detector.training.setup import Setup, build
from detector.training.state import State
from detector.training.train import backward, update
from tests.training.tiny import tiny

WAITING = {
    "aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::unique",
    "aten::_unique2", "aten::unique_dim", "aten::equal", "aten::is_nonzero", "torchvision::nms",
}  # fmt: skip
"""Operators whose result, or its shape, has to be known before the program goes on."""

BY_NMS = {"ohem"}
"""Losses that suppress neighbours while they mine, which no shape can foretell."""

RANKED = {name for name in LOSSES.names if LOSSES.get(name).ranks}
"""Losses whose tables are as large as the number of positives, which is asked for."""

READS = ("tolist", "item", "__float__", "__int__", "__bool__", "numpy")


class Counter(TorchDispatchMode):
    """Names of the operators that run, with how often each does."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().partition(".")[0]
        if name == "aten::index" and any(
            isinstance(i, torch.Tensor) and i.dtype == torch.bool for i in args[1] if i is not None
        ):
            name = "aten::nonzero"  # which is what indexing by a mask does first
        self.counts[name] = self.counts.get(name, 0) + 1
        return func(*args, **(kwargs or {}))


def steady(tmp_path: Path, loss: str) -> tuple[Setup, State]:
    """A run whose first step, which foretells its loss, is over."""
    plain = tiny(tmp_path, loss={"name": loss, "weight": 1.0})
    setup, state = build(from_plain(plain), plain, World(0, 1, torch.device("cpu")))
    state.step = 1
    return setup, state


def counted(
    setup: Setup, state: State, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, int], dict[str, int]]:
    """Operators of a step, and reads by Python, each with how often."""
    micro = micro_batches(setup, state.step)
    parameters = [p for p in state.model.parameters() if p.requires_grad]
    reads: dict[str, int] = {}
    with monkeypatch.context() as patch:
        for name in READS:
            original = getattr(torch.Tensor, name)

            def read(self: torch.Tensor, *args: Any, _name: str = name, _of: Any = original) -> Any:
                reads[_name] = reads.get(_name, 0) + 1
                return _of(self, *args)

            patch.setattr(torch.Tensor, name, read)
        with Counter() as counter:
            sums = backward(setup, state, state.model, micro, Stopwatch(setup.world.device, False))
            update(setup, state, parameters, sums, stop_requested=False)
    return counter.counts, reads


@pytest.mark.parametrize("loss", sorted({*LOSSES.names} - BY_NMS - RANKED))
def test_a_step_is_read_once_and_has_no_shape_that_depends_on_values(
    loss: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts, reads = counted(*steady(tmp_path, loss), monkeypatch)
    assert sum(counts.values()) > 500
    assert {name: n for name, n in counts.items() if name in WAITING} == {}
    assert reads == {"tolist": 1}


@pytest.mark.parametrize("loss", sorted(RANKED))
def test_a_loss_that_ranks_asks_for_its_positives_and_for_nothing_else(
    loss: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts, reads = counted(*steady(tmp_path, loss), monkeypatch)
    assert {name: n for name, n in counts.items() if name in WAITING} == {"aten::nonzero": 1}
    assert reads == {"tolist": 1}


def test_a_second_read_and_a_mask_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The counter itself: what it is to find is put into the loss."""
    setup, state = steady(tmp_path, "focal")
    forward = type(state.criterion.loss).forward

    def slow(self: Any, predictions: Any, matches: Any) -> Any:
        terms = forward(self, predictions, matches)
        assert float(terms["class"].sum()) >= 0
        assert terms["class"][matches.foreground].dim() == 2
        return terms

    monkeypatch.setattr(type(state.criterion.loss), "forward", slow)
    counts, reads = counted(setup, state, monkeypatch)
    assert counts["aten::_local_scalar_dense"] == 1
    assert counts["aten::nonzero"] == 1
    assert reads == {"tolist": 1, "__float__": 1}
