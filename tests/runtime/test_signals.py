"""A run that is told to stop stops in order, and can be gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from detector.runs.checkpoint import load
from detector.runtime.signals import SIGNALS, StopRequest
from tests.commands import ROOT, Command

RUN = [
    *("experiment=smoke", "output_dir=run", "steps=30", "log_every=1", "save_every=null"),
    *("tensorboard=false", "device=cpu", "precision=float32", "data.image_size=64"),
    *("data.max_size=32", "data.num_val=2", "model.fpn.channels=16", "model.head.channels=16"),
]
"""30 steps take some seconds: the signal, sent after the first, comes in time."""


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Puts back what the process does on signals."""
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_and_nothing_else_happens(number: signal.Signals) -> None:
    stop = StopRequest()
    assert not stop.requested
    os.kill(os.getpid(), number)
    assert stop.requested


@pytest.mark.parametrize("second", SIGNALS)
def test_a_second_signal_of_either_kind_ends_the_process_at_once(second: signal.Signals) -> None:
    code = f"""if True:
        import os
        from detector.runtime.signals import StopRequest
        stop = StopRequest()
        os.kill(os.getpid(), {int(signal.SIGTERM)})
        print(stop.requested, flush=True)
        os.kill(os.getpid(), {int(second)})
        print("still there", flush=True)
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (-second, "True\n", "")


def test_outside_the_main_thread_it_hears_nothing_and_breaks_nothing() -> None:
    before = signal.getsignal(signal.SIGTERM)
    made: list[StopRequest] = []
    thread = threading.Thread(target=lambda: made.append(StopRequest()))
    thread.start()
    thread.join()
    assert not made[0].requested
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_to_all_processes_of_a_run_saves_it_and_it_can_be_finished(
    command: Command, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tools" / "train.py"), *RUN, "loader.num_workers=1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a group of its own, with its loader process
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step 1/"):
            os.killpg(process.pid, signal.SIGTERM)
            break
    _, err = process.communicate(timeout=120)

    folder = Path("run")
    status = json.loads((folder / "status.json").read_text())
    assert process.returncode == status["exit_code"] == 75, err
    assert status["state"] == "preempted"
    step = status["step"]
    assert 1 <= step < 30
    assert err == f"stopped by a signal after step {step}; run/checkpoints/last.pt is saved\n"
    assert load(folder / "checkpoints" / "last.pt")["step"] == step
    assert not (folder / "metrics.json").exists()

    outcome = command("train", *RUN, "loader.num_workers=0", "resume=auto")
    assert outcome.code == 0, outcome.err
    assert json.loads((folder / "status.json").read_text())["state"] == "done"
    lines = (folder / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 31))
    assert (folder / "metrics.json").exists()
