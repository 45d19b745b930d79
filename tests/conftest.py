"""What several files of tests use."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from detector.cli import hydra_app
from tests.commands import Command, Outcome, function_of


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Calls a tool in an empty folder, in this process. run: replaces what it does."""
    monkeypatch.chdir(tmp_path)

    def call(tool: str, *argv: str, run: Callable[[DictConfig], None] | None = None) -> Outcome:
        monkeypatch.setattr(sys, "argv", [f"{tool}.py", *argv])
        code = 0
        try:
            hydra_app.main(tool, run or function_of(tool))
        except SystemExit as error:
            code = int(error.code or 0)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture(params=["pycocotools", "faster_coco_eval"])
def evaluator(request: pytest.FixtureRequest) -> str:
    """Each evaluator that is installed."""
    if request.param == "faster_coco_eval":
        pytest.importorskip("faster_coco_eval")
    return request.param
