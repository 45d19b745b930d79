"""A stream that takes everything it is told, whoever listens."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from detector.runtime.output import Steady, steady_output
from tests.commands import ROOT

SAYS = """
from detector.runtime.output import steady_output
with steady_output():
    for i in range(20_000):
        print("line", i, flush=True)
    open("whole", "w").close()
"""
LOST = "WARNING: standard output cannot be written ({}); what is said from here on is lost"


def said(folder: Path, stdout: IO[str] | int, *, shell: str = "") -> subprocess.Popen[str]:
    """A process that prints more than a pipe holds, started by a shell where that says how."""
    command = [sys.executable, "-c", SAYS]
    if shell:
        command = ["sh", "-c", f'exec "$0" "$@" {shell}', *command]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=folder, stdout=stdout, stderr=subprocess.PIPE, text=True, env=environment
    )


def test_a_full_disk_is_said_once_and_the_process_goes_on(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        process = said(tmp_path, full)
        _, err = process.communicate(timeout=60)
    assert err.startswith(LOST.format("No space left on device"))
    assert len(err.splitlines()) == 1
    assert (tmp_path / "whole").exists()
    assert process.returncode == 0


def test_a_reader_that_has_read_enough_is_said_once_and_the_process_goes_on(
    tmp_path: Path,
) -> None:
    process = said(tmp_path, subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "line 0\n"
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    assert err.startswith(LOST.format("Broken pipe"))
    assert len(err.splitlines()) == 1
    assert (tmp_path / "whole").exists()
    assert process.wait(60) == 0


def test_a_process_without_any_output_goes_on(tmp_path: Path) -> None:
    process = said(tmp_path, subprocess.DEVNULL, shell=">&- 2>&-")
    _, err = process.communicate(timeout=60)
    assert err == ""
    assert (tmp_path / "whole").exists()
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2Jb\n", "a\\x1b[2Jb\n"),
        ("over\rwritten\n", "over\\rwritten\n"),
        ("\x9b31mred\x07", "\\x9b31mred\\x07"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("\r 3/9 [bar]", "\r 3/9 [bar]"),
        ("a\tb\n", "a\tb\n"),
        ("café \u732b", "caf\xe9 \u732b"),
    ],
)
def test_signs_that_a_terminal_obeys_are_shown_instead(text: str, shown: str) -> None:
    buffer = io.StringIO()
    assert Steady(buffer, "standard output").write(text) == len(text)
    assert buffer.getvalue() == shown


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("ascii", b"caf\\xe9 \\u732b \\ud800"), ("latin-1", b"caf\xe9 \\u732b \\ud800"),
     ("utf-8", "café 猫 \\ud800".encode())],
)  # fmt: skip
def test_letters_that_an_encoding_lacks_are_written_as_escapes(encoding: str, shown: bytes) -> None:
    buffer = io.BytesIO()
    stream = io.TextIOWrapper(buffer, encoding=encoding)
    Steady(stream, "standard output").write("café 猫 \ud800")
    stream.flush()
    assert buffer.getvalue() == shown


def test_what_was_there_before_is_there_again_and_a_second_block_changes_nothing() -> None:
    before = sys.stdout, sys.stderr
    with steady_output() as outer:
        with steady_output() as inner:
            assert inner == outer
        assert sys.stdout is outer[0]
    assert (sys.stdout, sys.stderr) == before
