"""compile=loss|model|step: each does something, changes no number beyond rounding, and resumes.

Graphs run as they are here: what torch breaks, compiles anew or leaves out is decided before a
backend sees them. That code of a real compiler gives the same is shown for one loss, and for the
model in `make slow`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from detector.config import from_plain
from detector.config.registry import LOSSES
from detector.errors import ConfigError, Preempted
from detector.runs.checkpoint import load
from detector.runtime import compiling
from detector.runtime.compiling import Compilations, compilations
from detector.runtime.distributed import World
from detector.training import train
from detector.training.replay import micro_batches
from detector.training.setup import Setup, build
from detector.training.state import State
from detector.training.train import Stopwatch, Sums, backward
from tests.training.test_train import StopAfter, assert_same
from tests.training.tiny import go, losses, tiny, torchrun

OTHERS = [name for name in LOSSES.names if not LOSSES.get(name).separable]


@pytest.fixture(autouse=True)
def anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No code that another test has compiled, and no compiler either."""
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def built(tmp_path: Path, **changes: Any) -> tuple[Setup, State]:
    plain = tiny(tmp_path, **changes)
    setup, state = build(from_plain(plain), plain, World(0, 1, torch.device("cpu")))
    state.step = 1  # the first step also foretells its loss
    state.model.train()
    return setup, state


def stepped(setup: Setup, state: State, step: int = 1) -> Sums:
    clock = Stopwatch(setup.world.device, False)
    return backward(setup, state, state.model, micro_batches(setup, step), clock)


def gradients(state: State) -> dict[str, torch.Tensor]:
    found = {n: p.grad for n, p in state.model.named_parameters() if p.grad is not None}
    assert len(found) > 50
    return found


def assert_close(off: State, on: State) -> None:
    """Gradients of two models, within what float32 loses by another order of sums."""
    ours, theirs = gradients(on), gradients(off)
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        error = (ours[name] - gradient).norm()
        assert error <= 1e-4 * gradient.norm() + 1e-7, name


def test_a_loss_that_is_no_sum_over_anchors_stays_as_it_is_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = OTHERS[0]
    setup, state = built(tmp_path, loss={"name": name}, compile="loss")
    assert f"compile: loss={name} is no sum over anchors and stays" in capsys.readouterr().out
    before = compilations()
    stepped(setup, state)
    assert compilations() - before == Compilations()


def test_loss_is_one_graph_for_weights_that_rise_and_for_micro_batches(tmp_path: Path) -> None:
    ramps = [{"option": "loss.weight", "start": 1.0, "end": 3.0}]
    changes = {"ramps": ramps, "micro_batch": 2}
    plain = go(tiny(tmp_path / "off", **changes))
    folder = go(tiny(tmp_path / "loss", **changes, compile="loss"))
    assert facts(folder) == {"compiled_graphs": 1, "recompiles": 0, "graph_breaks": 0}
    assert losses(folder) == pytest.approx(losses(plain), rel=1e-5)


def test_ramps_of_what_is_compiled_are_refused(tmp_path: Path) -> None:
    ramps = [{"option": "loss.gamma", "start": 0.0, "end": 2.0}]
    for mode in ("loss", "step"):
        with pytest.raises(
            ConfigError, match=r"^compile: (loss|step) given, but ramps of loss\.ga"
        ):
            from_plain(tiny(tmp_path, ramps=ramps, compile=mode))
    from_plain(tiny(tmp_path, ramps=ramps, compile="model"))


def facts(folder: Path) -> dict[str, int]:
    """Of the last line of a log, without those of a GPU."""
    line = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
    return {key: line[key] for key in ("compiled_graphs", "recompiles", "graph_breaks")}


MODEL = {"backbone": {"name": "resnet", "arch": "resnet18"}}
"""Sooner compiled than a MobileNet."""


@pytest.mark.parametrize("mode", ["model", "step"])
def test_model_and_step_are_whole_graphs_and_the_gradient_stays(mode: str, tmp_path: Path) -> None:
    off, on = (built(tmp_path, **MODEL, compile=one) for one in ("off", mode))
    before = compilations()
    for step in (1, 2):
        sums = [stepped(*parts, step) for parts in (off, on)]
    done = compilations() - before
    graphs = {"model": 1, "step": 2}[mode]
    assert (done.graphs, done.recompiles, done.breaks) == (graphs, 0, 0), done.reasons
    for term, value in sums[0].terms.items():
        torch.testing.assert_close(sums[1].terms[term], value, rtol=1e-5, atol=1e-7)
    assert_close(off[1], on[1])


def test_a_compiled_model_has_the_names_and_the_evaluation_of_a_plain_one(tmp_path: Path) -> None:
    (_, plain), (_, state) = (built(tmp_path, **MODEL, compile=m) for m in ("off", "step"))
    assert state.model.state_dict().keys() == plain.model.state_dict().keys()
    assert state.criterion.state_dict().keys() == plain.criterion.state_dict().keys()
    assert type(state.model) is type(plain.model)
    assert state.ema is not None
    assert state.ema.model.compiled is None
    (batch, _), *_ = micro_batches(built(tmp_path, **MODEL)[0], 0)
    before = compilations()
    with torch.no_grad():
        found = [s.model.eval()(batch).logits for s in (plain, state)]
    assert torch.equal(*found)
    assert compilations() - before == Compilations()


@pytest.mark.parametrize(
    "changes",
    [{"compile": "loss", "micro_batch": 2}, {"compile": "step", **MODEL}],
    ids=["loss", "step"],
)
def test_a_compiled_run_goes_on_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    whole = go(tiny(tmp_path / "whole", **changes))
    plain = tiny(tmp_path / "parts", **changes)
    torch._dynamo.reset()  # as in a process of its own
    with monkeypatch.context() as patch:
        patch.setattr(StopAfter, "step", 4)
        patch.setattr(train, "StopRequest", StopAfter)
        with pytest.raises(Preempted):
            go(plain)
    torch._dynamo.reset()
    parts = go({**plain, "resume": "auto"})
    before, after = (load(f / "checkpoints" / "last.pt") for f in (whole, parts))
    assert_same({**before, "config": None}, {**after, "config": None})
    assert losses(whole) == losses(parts)


def test_two_processes_compile_and_train_as_one_does(tmp_path: Path) -> None:
    changes = {**MODEL, "compile": "step", "precision": "float64", "micro_batch": 1, "steps": 3}
    one = go(tiny(tmp_path / "one", **{**changes, "compile": "off"}))
    before = "import detector.runtime.compiling as c; c.BACKEND = 'aot_eager'"
    two = torchrun(2, tiny(tmp_path / "two", **changes), tmp_path, before=before)
    # Only the order of sums differs, in float64.
    assert losses(two) == pytest.approx(losses(one), rel=1e-9)
    assert facts(two) == {"compiled_graphs": 2, "recompiles": 0, "graph_breaks": 0}


def test_code_of_a_compiler_gives_the_losses_of_twenty_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "BACKEND", "inductor")
    changes = {"steps": 20, "precision": "bfloat16"}
    off = go(tiny(tmp_path / "off", **changes))
    on = go(tiny(tmp_path / "loss", **changes, compile="loss"))
    assert facts(on)["compiled_graphs"] == 1
    # Rounding of the first step's terms alone, then what bfloat16 makes of it.
    assert losses(on) == pytest.approx(losses(off), rel=1e-3)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mode", ["model", "step"])
def test_code_of_a_compiler_gives_the_losses_of_twenty_steps_of_a_model(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "BACKEND", "inductor")
    off = go(tiny(tmp_path / "off", **MODEL, steps=20))
    on = go(tiny(tmp_path / mode, **MODEL, steps=20, compile=mode))
    assert losses(on) == pytest.approx(losses(off), rel=1e-3)


def test_a_shape_that_comes_after_others_is_said_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Jitter of sizes makes batches of several widths."""
    augment = {"name": "albumentations", "scale_jitter": [0.3, 1.0], "horizontal_flip": 0.0}
    changes = {"augment": augment, "batch_size": 1}
    folder = go(tiny(tmp_path, **changes, compile="loss"))
    said = capsys.readouterr().out
    assert facts(folder)["recompiles"] >= 1
    assert "compiled anew or in pieces: terms_and_gradients" in said
    assert said.count("size mismatch at index 1") == facts(folder)["recompiles"]
    assert "compile=loss: " in said
