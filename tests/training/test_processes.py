"""Several processes: what one of them meets, all of them survive alike."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from detector.losses.focal import FocalLoss
from detector.runs.checkpoint import load
from detector.training import replay
from tests.training.faults import not_a_number
from tests.training.test_train import assert_same
from tests.training.tiny import launch, losses, tiny

CODE = """
import json, sys
from tests.training.faults import main
plain, fault = json.loads(sys.argv[1])
main(json.dumps(plain), json.dumps(fault))
"""

PLAIN = {"steps": 5, "save_every": 1, "resume": "auto", "process_timeout": 60.0}


def two(
    folder: Path, fault: dict[str, Any] | None = None, max_restarts: int = 0, **changes: Any
) -> subprocess.CompletedProcess[str]:
    """A run of two processes, with a fault."""
    plain = tiny(folder / "run", **(PLAIN | changes))
    folder.mkdir(exist_ok=True)
    argument = json.dumps([plain, fault])
    return launch(2, CODE, argument, folder, max_restarts=max_restarts)


def last(folder: Path) -> dict[str, Any]:
    return load(folder / "run" / "checkpoints" / "last.pt")


def status(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run" / "status.json").read_text())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes make without any fault."""
    folder = tmp_path_factory.mktemp("undisturbed")
    two(folder)
    assert status(folder)["state"] == "done"
    return folder


def assert_same_run(folder: Path, undisturbed: Path) -> None:
    """Weights, averages and optimizer equal to the bit, and every logged loss."""
    now, then = last(folder), last(undisturbed)
    assert_same({**now, "config": None}, {**then, "config": None})
    assert losses(folder / "run") == losses(undisturbed / "run")


def test_a_signal_to_one_of_two_saves_the_same_step_on_both_and_loses_none(
    tmp_path: Path, undisturbed: Path
) -> None:
    done = two(tmp_path, {"kind": "sigterm", "step": 3, "rank": 1})
    assert (status(tmp_path)["state"], status(tmp_path)["exit_code"]) == ("preempted", 75)
    assert done.stderr.count("Preempted: stopped by a signal after step 3; ") >= 1
    assert last(tmp_path)["step"] == status(tmp_path)["step"] == 3
    two(tmp_path)
    assert_same_run(tmp_path, undisturbed)


def test_a_killed_process_is_started_again_to_the_same_end(
    tmp_path: Path, undisturbed: Path
) -> None:
    fault = {"kind": "sigkill", "step": 3, "rank": 1, "once": str(tmp_path / "killed")}
    done = two(tmp_path, fault, max_restarts=1)
    assert (tmp_path / "killed").exists()
    assert status(tmp_path)["state"] == "done", done.stderr[-2000:]
    assert_same_run(tmp_path, undisturbed)


def test_the_error_of_one_process_is_the_end_of_what_torchrun_says(tmp_path: Path) -> None:
    done = two(tmp_path, {"kind": "raise", "step": 2, "rank": 1})
    assert done.returncode != 0
    assert "ValueError: a fault put in on purpose" in "\n".join(done.stderr.splitlines()[-8:])
    assert last(tmp_path)["step"] == 1


def test_out_of_memory_on_one_process_ends_all_in_time(tmp_path: Path) -> None:
    began = time.monotonic()
    done = two(tmp_path, {"kind": "oom", "step": 2, "rank": 1})
    # 30 s from the fault on is the promise; this counts the start of two processes as well.
    assert time.monotonic() - began < 60
    assert "step 2: out of memory with 2 images of 64 x 64" in done.stderr
    assert last(tmp_path)["step"] == 1


def test_a_process_that_hangs_is_given_up_after_the_timeout(tmp_path: Path) -> None:
    began = time.monotonic()
    done = two(tmp_path, {"kind": "hang", "step": 2, "rank": 1}, process_timeout=8.0)
    assert 8 < time.monotonic() - began < 60
    assert done.returncode != 0
    assert status(tmp_path)["state"] == "failed"
    late = "the others have not answered for 8 s (process_timeout)"
    assert status(tmp_path)["message"] == f"rank 0, step 2, the number of positives: {late}"
    assert (
        "rank 0, step 2, the number of positives: waits for the others since 7.2 s" in done.stderr
    )


def test_a_value_that_is_not_finite_on_one_process_changes_no_weight_and_can_be_repeated(
    tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = two(tmp_path, {"kind": "nan", "step": 3, "rank": 1}, max_bad_steps=1)
    said = status(tmp_path)
    assert (said["state"], said["exit_code"], said["step"]) == ("diverged", 4, 2), done.stderr
    crash = tmp_path / "run" / "crash"
    record = json.loads((crash / "batch.json").read_text())
    mine = [batch["image_ids"] for batch in record["batches"]]
    assert [len(ids) for ids in mine] == [2, 2]  # a micro-batch of each process
    assert f"image {mine[1][-1]}: term class, " in said["message"]
    kept = load(crash / "checkpoint.pt")
    before = last(tmp_path)  # of step 2
    for content in (kept, before):  # a step begins with setting its rate, which follows from it
        content["optimizer"]["param_groups"] = content["config"] = None
    assert_same(kept, before)
    spoil(monkeypatch, record["batches"][1]["image_ids"])
    found = replay.replay(str(tmp_path / "run"), "cpu")
    assert found.is_repeated
    assert [fault.partition(",")[0] for fault in found.faults] == [
        f"image {mine[1][-1]}: term class"
    ]


def spoil(monkeypatch: pytest.MonkeyPatch, image_ids: list[int]) -> None:
    """The same fault as on the process that had these images, and on no others."""
    healthy = FocalLoss.forward
    spoiled: Callable[..., Any] = not_a_number(healthy)

    def forward(self: Any, predictions: Any, matches: Any) -> Any:
        is_here = list(matches.targets.image_ids) == image_ids
        return (spoiled if is_here else healthy)(self, predictions, matches)

    monkeypatch.setattr(FocalLoss, "forward", forward)
