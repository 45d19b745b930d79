"""What status.json says is true when it is read, not only when it was written."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from detector.runs import status
from detector.runs.run_folder import RunFolder
from tests.commands import ROOT


def change(folder: RunFolder, **facts: object) -> None:
    """Edits the process of a status, as if another machine had written it."""
    said = json.loads(folder.status.read_text())
    process = {**said["process"], **facts}
    folder.status.write_text(json.dumps({**said, "process": process}))


def test_a_run_of_this_process_is_running(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_status("running", step=3, steps=9)
    said = folder.read_status()
    assert (said["state"], said["step"], said["steps"]) == ("running", 3, 9)
    assert not status.is_busy(folder.status)  # only another process is in the way


def test_a_run_that_was_killed_is_not_running(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; "
        "from detector.runs.run_folder import RunFolder; "
        f"RunFolder(Path({str(tmp_path)!r})).write_status('running', step=1); "
        "print('written', flush=True); time.sleep(60)"
    )
    folder = RunFolder(tmp_path)
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"written\n"
    assert folder.read_status()["state"] == "running"
    assert status.is_busy(folder.status)
    process.send_signal(signal.SIGKILL)
    # Until the kernel has ended it, it runs; then it is a process that has not been waited for.
    deadline = time.monotonic() + 30
    while folder.read_status()["state"] == "running" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert folder.read_status()["state"] == "killed"
    process.wait()
    assert folder.read_status()["state"] == "killed"
    assert not status.is_busy(folder.status)


def test_a_number_that_another_process_has_got_is_not_the_run(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_status("running", step=1)
    change(folder, pid=1)  # which began at another time
    assert folder.read_status()["state"] == "killed"


def test_a_run_of_another_machine_is_believed_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path)
    folder.write_status("running", step=1)
    change(folder, host="elsewhere")
    assert folder.read_status()["state"] == "running"
    assert not status.is_busy(folder.status)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + status.SILENT_AFTER + 1)
    assert folder.read_status()["state"] == "silent"


def test_an_end_is_what_was_written_and_no_file_is_none(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.read_status() == {"state": "none"}
    folder.write_status("done", step=3, exit_code=0)
    assert folder.read_status() == {"state": "done", "step": 3, "exit_code": 0}
