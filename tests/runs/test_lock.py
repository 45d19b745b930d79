"""One run at a time works in a folder, and a run that died is in nobody's way."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from detector.errors import ConfigError
from detector.runs.lock import Claim
from detector.runs.run_folder import RunFolder
from tests.commands import ROOT
from tests.training.tiny import started

HOLD = """
import os, sys, time
from pathlib import Path
from detector.runs.lock import Claim
from detector.runs.run_folder import RunFolder
Claim(RunFolder(Path(sys.argv[1]))).take()
child = os.fork() if "fork" in sys.argv else None
if child != 0:
    print(child or os.getpid(), flush=True)
time.sleep(60)
"""


def holder(folder: Path, *words: str) -> tuple[subprocess.Popen[str], int]:
    """A process that holds the lock of a folder, and the number that it prints."""
    command = [sys.executable, "-c", HOLD, str(folder), *words]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def test_of_two_runs_that_start_together_in_a_folder_one_trains_and_one_is_refused(
    tmp_path: Path,
) -> None:
    runs = [started(tmp_path / "run") for _ in range(2)]
    outcomes = [(*run.communicate(timeout=120), run.returncode, run.pid) for run in runs]
    (trained,), (refused,) = (
        [outcome for outcome in outcomes if outcome[2] == code] for code in (0, 2)
    )
    assert refused[1] == (
        f"error: output_dir: {tmp_path / 'run'} is in use by process {trained[3]} of this machine\n"
    )
    steps = [json.loads(x)["step"] for x in (tmp_path / "run" / "log.jsonl").open()]
    assert steps == [1, 2]
    assert not RunFolder(tmp_path / "run").lock.exists()


def test_a_second_claim_names_the_process_that_holds_the_folder(tmp_path: Path) -> None:
    process, pid = holder(tmp_path)
    with pytest.raises(ConfigError, match=f"is in use by process {pid} of this machine"):
        Claim(RunFolder(tmp_path)).take()
    process.kill()
    process.wait()


def test_a_killed_process_frees_its_folder_at_once_though_a_loader_process_outlives_it(
    tmp_path: Path,
) -> None:
    process, child = holder(tmp_path, "fork")
    process.kill()
    process.wait()
    os.kill(child, 0)  # lives
    claim = Claim(RunFolder(tmp_path))
    claim.take()
    claim.release()
    os.kill(child, signal.SIGKILL)


def test_nothing_is_left_of_a_claim(tmp_path: Path) -> None:
    claim = Claim(RunFolder(tmp_path / "runs" / "mine"))
    claim.take()
    assert [p.name for p in (tmp_path / "runs" / "mine").iterdir()] == [".lock"]
    claim.release()
    assert list(tmp_path.iterdir()) == []
    claim.release()


def test_a_folder_with_files_stays(tmp_path: Path) -> None:
    claim = Claim(RunFolder(tmp_path / "run"))
    claim.take()
    (tmp_path / "run" / "config.yaml").touch()
    claim.release()
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["config.yaml"]


def test_many_claims_at_once_are_never_held_by_two(tmp_path: Path) -> None:
    """The file is removed at the end, which must not let in one who waits for the old file."""
    code = (
        "import os, sys, time; from pathlib import Path; from detector.errors import ConfigError; "
        "from detector.runs.lock import Claim; from detector.runs.run_folder import RunFolder\n"
        "folder, proof = RunFolder(Path(sys.argv[1])), Path(sys.argv[2])\n"
        "end = time.monotonic() + 1\n"
        "while time.monotonic() < end:\n"
        "    claim = Claim(folder)\n"
        "    try: claim.take()\n"
        "    except ConfigError: continue\n"
        "    os.close(os.open(proof, os.O_CREAT | os.O_EXCL)); proof.unlink(); claim.release()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run"), str(tmp_path / "proof")]
    many = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) for _ in range(3)]
    assert [one.communicate(timeout=60)[1] for one in many] == [b""] * 3


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_filesystem_without_locks_is_told_and_used(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    claim = Claim(RunFolder(tmp_path))
    claim.take()
    claim.release()
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(f"WARNING: {tmp_path} cannot be locked ({os.strerror(number)})")


def test_a_system_without_flock_is_told_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("detector.runs.lock.fcntl", None)
    claim = Claim(RunFolder(tmp_path))
    claim.take()
    claim.release()
    assert "cannot be locked (this system has no flock)" in capsys.readouterr().err


def test_a_lock_file_without_a_name_in_it_is_of_another_process(tmp_path: Path) -> None:
    first = Claim(RunFolder(tmp_path))
    first.take()
    RunFolder(tmp_path).lock.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="is in use by another process"):
        Claim(RunFolder(tmp_path)).take()
    first.release()
