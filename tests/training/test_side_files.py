"""What lies beside a checkpoint decides nothing: where it is damaged, or cannot be written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from detector.errors import StorageError
from detector.runs.checkpoint import load
from tests.training.tiny import go, tiny

SIDE_FILES = ("status.json", "log.jsonl", "evaluations.jsonl")

Damage = Callable[[Path], object]


def content(text: bytes) -> Damage:
    return lambda path: path.write_bytes(text)


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def replaced(make: Damage) -> Damage:
    def damage(path: Path) -> None:
        path.unlink()
        make(path)

    return damage


DAMAGES: dict[str, Damage] = {
    "empty": content(b""),
    "zeros": content(b"\0" * 4096),
    "no UTF-8": content(b"\xff\xfe{\x80}"),
    "half": half,
    "null": content(b"null\n"),
    "a list": content(b"[1, 2]\n"),
    "no keys": content(b"{}\n"),
    "other types": content(b'{"state": ["done"], "step": "3", "process": 7}\n'),
    "half a status": content(b'{"state": "running", "process": {"host": 1}, "step": null}\n'),
    "a word of JSON": content(b"NaN\nInfinity\n"),
    "deep": content(b"[" * 100_000),
    "digits": content(b"9" * 5000),
    "a folder": replaced(os.mkdir),
    "a FIFO": replaced(os.mkfifo),
    "a link to itself": replaced(lambda path: path.symlink_to(path.name)),
    "a full device": replaced(lambda path: path.symlink_to("/dev/full")),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps, of which the last is scored."""
    return go(tiny(tmp_path_factory.mktemp("finished") / "run", steps=2))


@pytest.mark.parametrize("name", DAMAGES)
def test_a_run_goes_on_whatever_its_side_files_are(
    finished: Path, tmp_path: Path, name: str
) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    for file in SIDE_FILES:
        DAMAGES[name](folder / file)
    go(tiny(folder, steps=2, resume="auto", evaluation={"every": 1}))
    assert load(folder / "checkpoints" / "last.pt")["step"] == 2
    assert json.loads((folder / "metrics.json").read_text())["images"] == 3


def test_what_cannot_be_written_is_said_once_a_file_and_the_run_is_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = go(tiny(tmp_path / "whole"))
    capsys.readouterr()
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "status.json").mkdir()
    for file in SIDE_FILES[1:]:
        (folder / file).symlink_to("/dev/full")
    go(tiny(folder))
    warnings = [
        line for line in capsys.readouterr().out.splitlines() if "cannot be written" in line
    ]
    ends = ("Is a directory", "No space left on device", "No space left on device")
    assert warnings == [
        f"WARNING: {folder / file} cannot be written: {reason}; training goes on"
        for file, reason in zip(SIDE_FILES, ends, strict=True)
    ]
    one, other = (load(f / "checkpoints" / "last.pt")["images"] for f in (whole, folder))
    assert one == other


def test_a_folder_that_can_be_written_no_more_ends_the_run_with_the_true_cause(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "checkpoints").symlink_to("/proc/self")  # which nobody writes into, root neither
    with pytest.raises(StorageError, match="step 2 is not saved: "):
        go(tiny(folder, steps=2))
    assert "WARNING: step 2 is not saved" in capsys.readouterr().out
