"""What has to hold of the installed libraries before anything else is worth trying."""

from __future__ import annotations

import ctypes
import importlib
import re
from typing import Any

from detector.errors import ConfigError

OLDEST_TORCH = (2, 10)
"""`torch.load(weights_only=True)` can be made to run code before it (CVE-2026-24747)."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Numbers of glibc's `malloc.h`: what is free at the end of the heap before it is given back, and
the size from which a block is a mapping of its own."""

CURE = "reinstall both: pip install --upgrade torch torchvision"


def check_versions() -> None:
    """Raises ConfigError unless torch is new enough and torchvision was built for it."""
    torch = _import("torch")
    if _release(torch.__version__) < OLDEST_TORCH:
        oldest = ".".join(map(str, OLDEST_TORCH))
        raise ConfigError(f"torch {torch.__version__}: {oldest} or newer is needed; {CURE}")
    _check_fit(torch, _import("torchvision"))


def keep_freed_memory() -> bool:
    """Lets this process keep memory that it frees, for its next use; whether the system can do so.

    A step on a CPU frees and asks for the same gigabyte again and again. glibc gives blocks of that
    size back to the system, which hands them out again page by page, each set to zero: a fifth of
    the time of a step. The process does not grow by it, since the next step asks for as much.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # not glibc: musl, macOS, Windows
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, 2**30) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))


def _check_fit(torch: Any, torchvision: Any) -> None:
    """One call of a compiled operator: a torchvision of another torch often imports all the same.

    Of two boxes with an IoU of 1 the one of the lower score goes.
    """
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]])
    try:
        kept = torchvision.ops.nms(boxes, torch.tensor([0.2, 0.8]), 0.5).tolist()
    except (AttributeError, RuntimeError) as error:
        raise ConfigError(_unfit(torch, torchvision, _first_line(error))) from None
    if kept != [1]:
        raise ConfigError(_unfit(torch, torchvision, f"nms kept {kept}, [1] is right"))


def _unfit(torch: Any, torchvision: Any, reason: str) -> str:
    versions = f"torch {torch.__version__} and torchvision {torchvision.__version__}"
    return f"{versions} do not fit together ({reason}); {CURE}"


def _import(name: str) -> Any:
    """The module. A build for another torch fails in one of these ways: a missing symbol is an
    OSError or ImportError, a missing operator a RuntimeError, a half-made module an AttributeError.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise ConfigError(f"{name} cannot be imported ({_first_line(error)}); {CURE}") from None


def _release(version: str) -> tuple[int, ...]:
    """(2, 15) of "2.15.0+cu130"."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0].strip() if lines else type(error).__name__
