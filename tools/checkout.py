"""Puts this checkout before any installed version, so that its tools run without installation."""

import sys
from pathlib import Path
from types import TracebackType

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def answer(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Says one line of Ctrl-C while modules are imported; later, the command itself does."""
    if issubclass(kind, KeyboardInterrupt):
        print("stopped by Ctrl-C", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = answer
