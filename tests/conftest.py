"""What several files of tests use."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from tests.commands import ROOT, Command, Outcome, load


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Calls a tool in an empty folder, in this process. run: replaces what it does."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    monkeypatch.chdir(tmp_path)

    def call(tool: str, *argv: str, run: Callable[[DictConfig], None] | None = None) -> Outcome:
        monkeypatch.setattr(sys, "argv", [f"{tool}.py", *argv])
        code = 0
        try:
            load("cli").main(tool, run or getattr(load(tool), tool))
        except SystemExit as error:
            code = int(error.code or 0)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call
