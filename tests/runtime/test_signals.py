"""A run that is told to stop stops in order, and can be gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from detector.runs.checkpoint import load
from detector.runtime.signals import SIGNALS, Interrupted, StopRequest, handlers_kept
from tests.commands import ROOT, Command
from tests.training.tiny import started

RUN = [
    *("experiment=smoke", "output_dir=run", "steps=30", "log_every=1", "save_every=null"),
    *("tensorboard=false", "device=cpu", "precision=float32", "data.image_size=64"),
    *("data.max_size=32", "data.num_val=2", "model.fpn.channels=16", "model.head.channels=16"),
]
"""30 steps take some seconds: the signal, sent after the first, comes in time."""


def said(err: str) -> str:
    """What was said, without the word on keys that this test gives anew."""
    return "".join(line for line in err.splitlines(keepends=True) if ": given 2 times" not in line)


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
    saved = "run/checkpoints/last.pt is saved, resume=auto goes on"
    assert err == f"stopped by SIGTERM after step {step}; {saved}\n"
    assert load(folder / "checkpoints" / "last.pt")["step"] == step
    assert not (folder / "metrics.json").exists()

    outcome = command("train", *RUN, "loader.num_workers=0", "resume=auto")
    assert outcome.code == 0, outcome.err
    assert json.loads((folder / "status.json").read_text())["state"] == "done"
    lines = (folder / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 31))
    assert (folder / "metrics.json").exists()


def first_step(process: subprocess.Popen[str]) -> None:
    """Waits until a run says that its first step is done."""
    assert process.stdout is not None
    assert any(line.startswith("step 1/") for line in process.stdout)


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (signal.SIGINT, "Ctrl-C"),
        pytest.param(signal.SIGHUP, "SIGHUP", marks=pytest.mark.slow),
    ],
)
def test_a_terminal_that_interrupts_or_is_closed_leaves_a_saved_run(
    tmp_path: Path, number: signal.Signals, name: str
) -> None:
    words = ("steps=10000", "save_every=null", "loader.num_workers=1")
    process = started(tmp_path / "run", *words, start_new_session=True)
    first_step(process)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    step = json.loads((tmp_path / "run" / "status.json").read_text())["step"]
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    assert (
        said(err) == f"stopped by {name} after step {step}; {last} is saved, resume=auto goes on\n"
    )
    assert load(last)["step"] == step


def test_ctrl_c_before_the_first_step_is_one_line(tmp_path: Path) -> None:
    slow = "from detector.training import run; run.build = lambda *a: print('builds', flush=True) "
    slow += "or __import__('time').sleep(60)"
    process = started(tmp_path / "run", before=slow)
    assert process.stdout is not None
    assert process.stdout.readline() == "builds\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "stopped by Ctrl-C\n")


SLOW = {
    "detects": "from detector.inference import predictor; f = predictor.Predictor.detect\n"
    "def slow(*a): print('detects', flush=True); import time; time.sleep(1); return f(*a)\n"
    "predictor.Predictor.detect = slow",
    "counts": "from detector.evaluation import coco; import time\n"
    "coco.evaluate = lambda *a, **k: print('counts', flush=True) or time.sleep(60)",
}
"""A model that takes a second for an image, and an evaluator that takes a minute."""


@pytest.mark.parametrize("part", ["detects", pytest.param("counts", marks=pytest.mark.slow)])
def test_a_signal_in_an_evaluation_ends_it_soon_with_the_state_saved(
    tmp_path: Path, part: str
) -> None:
    words = ["data.num_val=40", "evaluation.images_per_group=1"]
    process = started(tmp_path / "run", *words, before=SLOW[part])
    assert process.stdout is not None
    assert any(line == f"{part}\n" for line in process.stdout)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    # A second for the image at hand, the rest for the end of a process.
    assert time.monotonic() - began < 6
    assert process.returncode == 75, err
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    saved = f"{last} is saved, resume=auto goes on"
    assert said(err) == f"stopped by SIGTERM in the evaluation after step 2; {saved}\n"
    assert (load(last)["step"], load(last)["evaluated"]) == (2, 0)


def test_a_signal_that_was_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    stop = StopRequest()
    os.kill(os.getpid(), signal.SIGHUP)
    assert not stop.requested


def test_what_torchrun_repeats_is_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a")
    stop = StopRequest()
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    assert (stop.requested, stop.reason) == (True, "Ctrl-C")


def test_after_the_block_signals_do_what_they_did_before() -> None:
    before = signal.getsignal(signal.SIGINT)
    with handlers_kept():
        StopRequest()
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_a_block_is_broken_off_also_by_an_earlier_request() -> None:
    stop = StopRequest()
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Interrupted, match="stopped by SIGTERM"), stop.breaks():
        raise AssertionError("not reached")
