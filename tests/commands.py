"""Calls the tools as a user does, and says what came out."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
TOOLS = sorted(path.stem for path in (ROOT / "tools").glob("*.py") if path.stem != "cli")


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


def load(name: str) -> Any:
    """A file of `tools` as a module. The tools are scripts: they find `cli` beside themselves."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
