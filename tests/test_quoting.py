"""Every documented command reaches the program as it is written: in bash, and in zsh, which takes
an unquoted bracket for a pattern and ends with "no matches found"."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.commands import ROOT

PROGRAMS = ("python", "detector", "make", "scripts/", "docker", "pip")

SOURCES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("configs/**/*.yaml"),
        *ROOT.glob("detector/cli/*.py"),
        *ROOT.glob("tools/*.py"),
    ]
)

FENCED = re.compile(r"^```\w*\n(.*?)^```", re.S | re.M)
SPAN = re.compile(r"`([^`]+)`")


def commands() -> Iterator[tuple[str, str]]:
    """(file, command) of each line of a block and each span of code that calls a program."""
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        if path.suffix != ".md":
            text = re.sub(r"\n# ?", "\n", text)  # a head of comments, whose spans go over lines
        blocks = [line for block in FENCED.findall(text) for line in joined(block)]
        spans = [span.replace("\n", " ") for span in SPAN.findall(FENCED.sub("", text))]
        for line in [*blocks, *spans]:
            line = re.split(r"\s{2,}#", line.strip().removeprefix("$ "))[0]
            if line.startswith(PROGRAMS) and "=" in line:
                yield str(path.relative_to(ROOT)), line


def joined(block: str) -> list[str]:
    """The lines of a block, those that a backslash continues as one."""
    return re.sub(r"\\\n\s*", " ", block).splitlines()


COMMANDS = sorted(set(commands()))


def bare(command: str) -> str:
    """What stands in no quotes."""
    return re.sub(r"'[^']*'|\"[^\"]*\"", "", command)


def test_there_are_commands_to_look_at() -> None:
    assert len(COMMANDS) > 50
    assert {file for file, _ in COMMANDS} >= {"README.md", "CONTRIBUTING.md", "docs/compare.md"}


@pytest.mark.parametrize(("file", "command"), COMMANDS)
def test_brackets_stand_in_quotes(file: str, command: str) -> None:
    assert not re.search(r"[\[\]*?()]", bare(command)), f"{file}: {command}"


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_passes_on_the_words_that_are_written() -> None:
    for file, command in COMMANDS:
        if "$" in command or ";" in command or "|" in command:
            continue  # a variable, or several programs
        done = subprocess.run(
            ["zsh", "-fc", f"print -rl -- {command}"], capture_output=True, text=True, timeout=10
        )
        assert done.stdout.splitlines() == shlex.split(command), f"{file}: {command}: {done.stderr}"


@pytest.mark.parametrize("command", ["python x.py losses=[a,b]", "detector predict source=*.jpg"])
def test_a_bare_bracket_is_seen(command: str) -> None:
    assert re.search(r"[\[\]*?()]", bare(command))
