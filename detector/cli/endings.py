"""How commands end that somebody stops."""

from __future__ import annotations

import sys

from detector.errors import INTERRUPTED


def interrupted() -> int:
    """Says that Ctrl-C ended the command, which had nothing to save; the exit code."""
    print("stopped by Ctrl-C", file=sys.stderr)
    return INTERRUPTED
