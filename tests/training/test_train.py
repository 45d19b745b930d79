"""The training page, through `run`, on generated images."""

from __future__ import annotations

import itertools
import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from detector.config import from_plain
from detector.config.registry import LOSSES
from detector.errors import ConfigError, DivergedError, Preempted
from detector.runs.checkpoint import load
from detector.training import train
from tests.training.tiny import go, losses, tiny, torchrun


def assert_same(a: Any, b: Any, path: str = "") -> None:
    """Equal to the bit, whatever the nesting."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            assert_same(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{path}/{i}")
    else:
        assert a == b, path


class StopAfter:
    """Stands in for a signal that arrives during step `step` (1, 2, ...): the training page looks
    once a step."""

    step = 1
    reason = "a signal"

    def __init__(self) -> None:
        self._steps = 0

    @property
    def requested(self) -> bool:
        self._steps += sys._getframe(1).f_code is train.train.__code__  # else: an evaluation looks
        return self._steps >= self.step

    def breaks(self) -> nullcontext[None]:
        return nullcontext()


def test_a_run_writes_everything_a_run_folder_holds(tmp_path: Path) -> None:
    folder = go(tiny(tmp_path / "run", tensorboard=True))
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    for key in ("loss", "loss_class", "loss_box", "lr", "grad_norm", "images_per_second"):
        assert all(isinstance(line[key], float) for line in lines), key
    assert lines[0]["loss"] == pytest.approx(lines[0]["loss_class"] + lines[0]["loss_box"])
    metrics = json.loads((folder / "metrics.json").read_text())
    wanted = "AP AP50 AP75 APs APm APl AR1 AR10 AR100 per_class evaluator images seconds"
    assert set(wanted.split()) <= metrics.keys()
    assert metrics["images"] == 3
    assert isinstance(json.loads((folder / "detections.json").read_text()), list)
    assert yaml.safe_load((folder / "config.yaml").read_text())["loss"]["name"] == "focal"
    assert json.loads((folder / "status.json").read_text())["state"] == "done"
    assert (folder / "checkpoints" / "last.pt").exists()
    assert (folder / "checkpoints" / "best.pt").exists()
    assert list((folder / "tensorboard").iterdir())


BUFFERED = {"evaluation": {"every": 2}, "micro_batch": 2}
"""For a loss with buffers; the stop comes where an evaluation is due."""


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"clip": None},
        {"loss": {"name": "ghm"}, **BUFFERED},
        {"loss": {"name": "equalized_focal"}, **BUFFERED},
    ],
    ids=["plain", "unclipped", "ghm", "equalized_focal"],
)
def test_a_stopped_and_resumed_run_is_the_unbroken_run_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    whole = go(tiny(tmp_path / "whole", **changes))
    plain = tiny(tmp_path / "parts", **changes)
    monkeypatch.setattr(StopAfter, "step", 4)  # 4 steps of 4 images: inside the second epoch of 10
    monkeypatch.setattr(train, "StopRequest", StopAfter)
    with pytest.raises(Preempted):
        go(plain)
    assert load(tmp_path / "parts" / "checkpoints" / "last.pt")["step"] == 4
    monkeypatch.undo()
    parts = go({**plain, "resume": "auto"})
    before, after = (load(f / "checkpoints" / "last.pt") for f in (whole, parts))
    assert_same({**before, "config": None}, {**after, "config": None})
    assert losses(whole) == losses(parts)
    assert (whole / "detections.json").read_text() == (parts / "detections.json").read_text()


def test_accumulation_gives_the_gradient_of_the_whole_batch(tmp_path: Path) -> None:
    one_step = {
        "steps": 1,
        "precision": "float64",
        "optim": {"name": "sgd", "weight_decay": 0.0},
        "clip": None,
    }
    whole = go(tiny(tmp_path / "whole", **one_step))
    split = go(tiny(tmp_path / "split", **one_step, micro_batch=1))
    for a, b in zip(first_gradient(whole), first_gradient(split), strict=True):
        # Sums over images in another order, in float64.
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def first_gradient(folder: Path) -> list[torch.Tensor]:
    """After one step of SGD without decay the momentum buffers are the gradient itself."""
    state = load(folder / "checkpoints" / "last.pt")["optimizer"]["state"]
    return [state[i]["momentum_buffer"] for i in sorted(state)]


def spoil(monkeypatch: pytest.MonkeyPatch, from_step: int) -> None:
    """The class loss is not a number from that step on (1, 2, ...)."""
    loss_class = LOSSES.get("focal")
    forward = loss_class.forward
    calls = itertools.count(0)  # before the first step, its loss is foretold

    def spoiled(self: Any, *args: Any) -> dict[str, torch.Tensor]:
        factor = torch.nan if next(calls) >= from_step else 1.0
        return {name: term * factor for name, term in forward(self, *args).items()}

    monkeypatch.setattr(loss_class, "forward", spoiled)


def test_a_bad_step_leaves_weights_and_optimizer_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(StopAfter, "step", 5)
        patch.setattr(train, "StopRequest", StopAfter)
        with pytest.raises(Preempted):
            go(tiny(tmp_path / "good"))
    with monkeypatch.context() as patch:
        spoil(patch, from_step=6)
        go(tiny(tmp_path / "bad"))
    good, bad = (load(tmp_path / f / "checkpoints" / "last.pt") for f in ("good", "bad"))
    assert (good["step"], bad["step"]) == (5, 6)
    for part in ("model", "ema"):
        assert_same(good[part], bad[part], part)
    assert_same(good["optimizer"]["state"], bad["optimizer"]["state"], "optimizer")


def test_bad_steps_in_a_row_stop_the_run_and_name_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, from_step=1)
    with pytest.raises(DivergedError, match=r"3 times in a row; the last images were \[") as caught:
        go(tiny(tmp_path / "run", max_bad_steps=3))
    assert caught.value.exit_code == 4
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "diverged"


@pytest.mark.parametrize("name", LOSSES.names)
def test_every_loss_trains_and_is_evaluated(tmp_path: Path, name: str) -> None:
    folder = go(tiny(tmp_path / name, loss={"name": name}, steps=2))
    assert all(torch.isfinite(torch.tensor(losses(folder))))


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path: Path) -> None:
    plain = tiny(tmp_path / "run", steps=1)
    go(plain)
    with pytest.raises(ConfigError, match=r"already holds a run; resume=auto .* overwrite=true"):
        go(plain)
    go({**plain, "overwrite": True})


def test_resume_auto_refuses_another_config_and_names_the_key(tmp_path: Path) -> None:
    plain = tiny(tmp_path / "run", steps=1)
    go(plain)
    changed = {**plain, "resume": "auto", "loss": {**plain["loss"], "gamma": 1.0}}
    with pytest.raises(ConfigError, match=r"loss\.gamma: 2\.0 -> 1\.0"):
        go(changed)


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    long = {"steps": 20, "precision": "float64"}
    one = go(tiny(tmp_path / "one", **long))
    two = torchrun(2, tiny(tmp_path / "two", **long), tmp_path)
    # Group norm and float64: only the order of sums differs, and drifts for 20 steps.
    assert losses(one) == pytest.approx(losses(two), rel=1e-9)
    assert len(losses(two)) == 20


def test_two_processes_have_the_gradient_of_one(tmp_path: Path) -> None:
    one_step = {"steps": 1, "optim": {"name": "sgd", "weight_decay": 0.0}, "clip": None}
    one = first_gradient(go(tiny(tmp_path / "one", **one_step)))
    two = first_gradient(torchrun(2, tiny(tmp_path / "two", **one_step), tmp_path))
    for a, b in zip(one, two, strict=True):
        # float32 sums in another order.
        assert float((a - b).norm() / a.norm()) < 1e-5


def test_resuming_a_finished_run_trains_nothing_and_scores_it_again(tmp_path: Path) -> None:
    plain = tiny(tmp_path / "run", steps=2)
    folder = go(plain)
    before = (folder / "log.jsonl").read_text()
    metrics = json.loads((folder / "metrics.json").read_text())
    go({**plain, "resume": "auto"})
    assert (folder / "log.jsonl").read_text() == before
    again = json.loads((folder / "metrics.json").read_text())
    assert {**again, "seconds": 0} == {**metrics, "seconds": 0}


def test_a_group_has_the_rate_of_the_step_times_its_factor(tmp_path: Path) -> None:
    optim = {"name": "adamw", "lr": 1e-3, "backbone_factor": 0.25, "layer_decay": 0.5}
    folder = go(tiny(tmp_path, optim=optim))
    groups = load(folder / "checkpoints" / "last.pt")["optimizer"]["param_groups"]
    rate = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])["lr"]
    # MobileNet has five stages: 0.25 * 0.5^(5 - i), then the rest.
    factors = [0.25 * 0.5 ** (5 - i) for i in range(5)] + [1.0]
    assert [group["lr"] for group in groups[::2]] == pytest.approx([f * rate for f in factors])


@pytest.mark.parametrize(
    "optim",
    [{"name": "adamw", "backbone_factor": 0.1}, {"name": "sgd", "lr": 1e-2, "layer_decay": 0.7}],
)
def test_a_run_with_factors_is_resumed_to_the_bit(tmp_path: Path, optim: dict[str, Any]) -> None:
    changes = {"optim": optim, "save_every": 3}
    whole = go(tiny(tmp_path / "whole", **changes))
    third = whole / "checkpoints" / "step_000000003.pt"
    parts = go(tiny(tmp_path / "parts", **changes, resume=str(third)))
    before, after = (load(f / "checkpoints" / "last.pt") for f in (whole, parts))
    assert_same({**before, "config": None}, {**after, "config": None})


STILL: dict[str, Any] = {
    "optim": {"name": "adamw", "lr": 1e-12},  # below what a float32 weight can take in
    "ema": {"enabled": False},
    "evaluation": {"every": 1},
    "patience": 2,
}


def test_a_run_ends_when_patience_is_lost_and_is_complete(tmp_path: Path) -> None:
    folder = go(tiny(tmp_path / "run", **STILL))
    lines = (folder / "evaluations.jsonl").read_text().splitlines()
    # The first evaluation is the best one so far, the second and third are no better.
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]
    status = json.loads((folder / "status.json").read_text())
    assert (status["state"], status["step"], status["exit_code"]) == ("done", 3, 0)
    assert (folder / "detections.json").is_file()
    assert json.loads((folder / "metrics.json").read_text())["images"] == 3
    last = load(folder / "checkpoints" / "last.pt")
    assert (last["step"], last["stale"]) == (3, 2)


def test_a_run_that_is_over_does_not_go_on(tmp_path: Path) -> None:
    plain = tiny(tmp_path / "run", **STILL)
    folder = go(plain)
    go({**plain, "resume": "auto"})
    assert load(folder / "checkpoints" / "last.pt")["step"] == 3
    longer = tiny(tmp_path / "more", **{**STILL, "patience": 3})
    go({**longer, "resume": str(folder / "checkpoints" / "last.pt")})
    assert load(tmp_path / "more" / "checkpoints" / "last.pt")["step"] == 4


def test_patience_needs_evaluations_on_the_way() -> None:
    with pytest.raises(ConfigError, match=r"^patience: 2 with evaluation\.every=null"):
        from_plain(tiny(Path("unused"), patience=2, evaluation={"every": None}))
    probe = {"enabled": True}
    with pytest.raises(ConfigError, match=r"^patience: 2 with probe\.enabled=true"):
        from_plain(tiny(Path("unused"), patience=2, evaluation={"every": 1}, probe=probe))
