"""Puts this checkout before any installed version, so that its tools run without installation."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
