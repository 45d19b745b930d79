"""Calls the tools as a user does, and says what came out."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
TOOLS = sorted(path.stem for path in (ROOT / "tools").glob("*.py") if path.stem != "checkout")
ELSEWHERE = {
    "benchmark": ("benchmarking.commands", "benchmark"),
    "benchmark_page": ("benchmarking.commands", "benchmark_page"),
    "latency": ("benchmarking.commands", "latency"),
    "calibration_study": ("calibration_study", "run"),
}
"""Commands of this project's own, which are no part of the package: module and function."""


class Outcome(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """The one line on stderr, which is all there is."""
        assert self.out == ""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("error: ")
        return lines[0].removeprefix("error: ")


def function_of(command: str) -> Any:
    """What a command does with its composed config."""
    module, name = ELSEWHERE.get(command, (f"detector.cli.{command}", "run"))
    return getattr(importlib.import_module(module), name)


def script(tool: str, *argv: str, cwd: Path) -> Outcome:
    """Calls a tool as a user does."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / f"{tool}.py"), *argv],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


Command = Callable[..., Outcome]
"""What the fixture `command` is."""
