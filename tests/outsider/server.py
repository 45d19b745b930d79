"""Commands of the project, each in a process of its own that need not import torch again.

`python -m tests.outsider.server` imports once, then forks for each line of JSON that it reads. The
child is a process like any other: its own session, folder, limits and streams; it calls the
command's `main`, leaves by the interpreter's own end, and can be killed. Nothing of the project is
changed in it. The server has one thread, so that a fork is safe.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import sys
from typing import Any

COMMANDS = (
    *("audit", "calibrate", "check_data", "convert_data", "evaluate", "export", "generate"),
    *("predict", "table", "train"),
)

CLOSED = "closed"
"""A stream that the process is started without."""


def become(job: dict[str, Any]) -> None:
    """Makes this process what the job says: session, folder, streams, limits, words."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
    os.chdir(str(job["cwd"]))
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        path = job.get(name) or os.devnull
        if path == CLOSED:
            os.close(number)
            setattr(sys, name, None)  # as Python does where it starts without it
            continue
        opened = os.open(str(path), os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(opened, number)
        os.close(opened)
    for name, value in job.get("limits", {}).items():
        resource.setrlimit(getattr(resource, name), (value, value))
    encoding = job.get("encoding", "utf-8")
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(encoding=encoding)  # type: ignore[union-attr]
    sys.argv = [f"detector {job['command']}", *job["words"]]


for name in COMMANDS:
    importlib.import_module(f"detector.cli.{name}")
for name in ("torchvision", "albumentations", "cv2", "detector.training.run", "yaml"):
    importlib.import_module(name)

asked = os.fdopen(os.dup(0), "r")
answers = os.fdopen(os.dup(1), "w")
print(json.dumps({"ready": os.getpid()}), file=answers, flush=True)
while True:
    line = asked.readline()
    if not line:
        sys.exit(0)
    job = json.loads(line)
    pid = os.fork()
    if pid == 0:
        break
    print(json.dumps({"pid": pid}), file=answers, flush=True)
    _, status = os.waitpid(pid, 0)
    print(json.dumps({"code": os.waitstatus_to_exitcode(status)}), file=answers, flush=True)

# A child: from here on it is the command, with nothing of the server above it.
os.close(asked.fileno())
os.close(answers.fileno())
become(job)
importlib.import_module(f"detector.cli.{job['command']}").main()
