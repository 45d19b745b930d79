"""What several files of tests use."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from detector.cli import hydra_app
from tests.commands import ROOT, Command, Outcome, function_of

LONG = (
    "benchmarking", "inference/test_calibrate", "inference/test_evaluate", "inference/test_pred",
    "inference/test_export", "inference/test_onnx", "inference/test_serve",
    "laboratory/audit", "laboratory/compare/test_compare", "laboratory/compare/test_study",
    "runs/test_launch", "runtime/test_signals", "studies", "test_configs", "test_docs",
    "test_equal_runs", "test_face", "test_plugins", "test_promise", "test_scripts", "test_tools",
    "test_wheel", "training", "criterion/test_initial_loss", "data/test_loader_workers", "test_cli",
    "convert", "plots", "analysis/test_known_posterior", "outsider",
)  # fmt: skip
"""Beginnings of the files whose tests train, start processes or draw: marked `long`."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks by folder what `make quick` leaves out, so that a new test needs no thought of it."""
    for item in items:
        name = item.path.relative_to(ROOT / "tests").as_posix()
        if name.startswith(LONG):
            item.add_marker(pytest.mark.long)


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Calls a tool in an empty folder, in this process. run: replaces what it does."""
    monkeypatch.chdir(tmp_path)

    def call(tool: str, *argv: str, run: Callable[[DictConfig], None] | None = None) -> Outcome:
        monkeypatch.setattr(sys, "argv", [f"{tool}.py", *argv])
        root = logging.getLogger()
        handlers, level = root.handlers[:], root.level
        code = 0
        try:
            hydra_app.main(tool, run or function_of(tool))
        except SystemExit as error:
            code = int(error.code or 0)
        finally:  # --info logs to a stdout that is gone afterwards
            root.handlers, root.level = handlers, level
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture(params=["pycocotools", "faster_coco_eval"])
def evaluator(request: pytest.FixtureRequest) -> str:
    """Each evaluator that is installed."""
    if request.param == "faster_coco_eval":
        pytest.importorskip("faster_coco_eval")
    return request.param
