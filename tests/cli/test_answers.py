"""Whatever the system says of a file, a disk or memory is one line; a bug stays a bug."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from detector.cli.hydra_app import answered, say_loading
from tests.commands import Command, script


def raised(error: Exception) -> Callable[[], None]:
    def call() -> None:
        raise error

    return call


ANSWERS = [
    (IsADirectoryError(errno.EISDIR, "Is a directory", "a"), "a: Is a directory"),
    (PermissionError(errno.EACCES, "Permission denied", "a"), "a: Permission denied"),
    (OSError(errno.EXDEV, "Invalid cross-device link", "a", None, "b"), "a and b: Invalid cross"),
    (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
    (yaml.MarkedYAMLError(problem="found a tab"), "a yaml file cannot be read: found a tab"),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no start byte"), "a text cannot be read"),
    (MemoryError(), "out of memory"),
    (torch.OutOfMemoryError("CUDA out of memory"), "out of memory"),
]


@pytest.mark.parametrize(("error", "said"), ANSWERS, ids=[type(e).__name__ for e, _ in ANSWERS])
def test_the_system_is_answered_with_the_command_that_met_it(
    capsys: pytest.CaptureFixture[str], error: Exception, said: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        answered(raised(error), "audit")
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: audit: {said}")


@pytest.mark.parametrize("error", [KeyError("a"), RuntimeError("shapes"), OSError("no number")])
def test_a_bug_keeps_its_traceback(error: Exception) -> None:
    with pytest.raises(type(error)):
        answered(raised(error), "audit")


def test_letters_that_a_terminal_lacks_end_no_command(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer, encoding="ascii"))
    answered(lambda: print("猫 \x1b[2J"), "audit")
    assert buffer.getvalue() == b"\\u732b \\x1b[2J\n"


def test_what_a_full_disk_did_not_take_is_told_by_the_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, code in (("table", 2), ("train", None)):  # a run has its files too
        with open("/dev/full", "w") as full, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", full)
            try:
                answered(lambda: print("a table", flush=True), name)
                found = None
            except SystemExit as error:
                found = error.code
        assert found == code
    assert "cannot be written (No space left on device)" in capsys.readouterr().err


def test_a_command_that_was_started_without_standard_error_begins_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    monkeypatch.setattr(sys, "argv", ["train"])
    say_loading()


MALFORMED = {
    "a key twice": "name: focal\nalpha: 0.1\nalpha: 0.2\n",
    "a tab": "name:\tfocal\n\talpha: 1\n",
    "an open bracket": "name: [focal\n",
    "no UTF-8": b"name: \xff\n",
    "no keys": "- focal\n",
    "a control character": "name: fo\x07cal\n",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_yaml_names_the_file(command: Command, tmp_path: Path, name: str) -> None:
    path = tmp_path / "mine" / "loss" / "bad.yaml"
    path.parent.mkdir(parents=True)
    content = MALFORMED[name]
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    outcome = command("train", "--config-dir", "mine", "loss=bad", run=lambda node: None)
    assert outcome.code == 2
    assert str(path) in outcome.message


def test_a_folder_and_a_fifo_in_place_of_a_yaml_are_one_line(
    command: Command, tmp_path: Path
) -> None:
    folder = tmp_path / "mine" / "loss"
    (folder / "one.yaml").mkdir(parents=True)
    os.mkfifo(folder / "two.yaml")
    for name in ("one", "two"):
        outcome = command("train", "--config-dir", "mine", f"loss={name}", run=lambda node: None)
        assert outcome.code == 2
        assert f"loss={name}" in outcome.message


@pytest.mark.parametrize("tool", ["compare", "convert"])
def test_a_multirun_of_other_commands_is_one_line_or_runs(tmp_path: Path, tool: str) -> None:
    outcome = script(tool, "-m", "output_dir=/proc/nothing,/proc/other", cwd=tmp_path)
    assert outcome.code == 2
    assert "Traceback" not in outcome.err
