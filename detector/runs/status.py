"""status.json: what a run does or how it ended, and whether that can still be believed."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

STATES = ("running", "done", "failed", "diverged", "preempted")
"""What a run writes of itself."""

SILENT_AFTER = 900.0
"""Seconds without a word after which a run on another machine is taken for dead."""

BEAT = 20.0
"""Seconds between two words of a run that goes on, at least."""


def this_process() -> dict[str, Any]:
    """What tells this process from any other, also from a later one of the same number."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": started(os.getpid())}


def started(pid: int) -> str | None:
    """When a process began, in the clock ticks of this boot; None where there is no such process.

    Linux tells; elsewhere it is "unknown" for any process that lives.
    """
    try:
        # The second field, the name in brackets, may hold anything: count from behind it.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown" if not Path("/proc/self/stat").exists() and _lives(pid) else None
    return None if fields[0] == "Z" else f"{boot}/{fields[19]}"


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def read(path: Path) -> dict[str, Any]:
    """The content of a status.json, with a `state` that is true now.

    state: running, done, failed, diverged or preempted, as written; "killed" where it says running
    but the process is gone (SIGKILL, the machine went down), "silent" where that cannot be known:
    it ran on another machine, and has said nothing for SILENT_AFTER; "none" without a file, and
    where the file holds nothing that a run has written.
    """
    status = _written(path)
    if status["state"] != "running" or "process" not in status:
        return status
    process = status["process"]
    if process["host"] == socket.gethostname():
        lives = process["started"] == started(process["pid"])
        return status if lives else {**status, "state": "killed"}
    is_silent = time.time() - status["time"] > SILENT_AFTER
    return {**status, "state": "silent"} if is_silent else status


def _written(path: Path) -> dict[str, Any]:
    """What a run wrote; a state of "none" where the file is not there, or damaged."""
    try:
        said: Any = json.loads(path.read_bytes()) if path.is_file() else None
    except (OSError, ValueError, RecursionError):  # ValueError: no JSON, no UTF-8
        said = None
    return said if _is_status(said) else {"state": "none"}


def _is_status(said: Any) -> bool:
    match said:
        case {"state": "running", "process": process}:
            match process, said.get("time"), said.get("step", 0):
                case {"host": str(), "pid": int(), "started": str() | None}, float(), int():
                    return True
        case {"state": str(state)}:
            numbers = said.get("step", 0), said.get("exit_code", 0)
            is_told = isinstance(said.get("message", ""), str)
            return state in STATES and all(isinstance(n, int) for n in numbers) and is_told
    return False


def is_busy(path: Path) -> bool:
    """Whether another process of this machine is at work in the folder of a status.json.

    Of other machines this is not said: a run whose machine died has to go on elsewhere at once.
    """
    status = read(path)
    process = status.get("process", {})
    mine = (socket.gethostname(), os.getpid())
    is_near = process.get("host") == mine[0] and process.get("pid") != mine[1]
    return status["state"] == "running" and is_near
