"""A run of seconds: small generated images, a thin pyramid."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from detector.config import from_plain
from detector.training.run import run
from tests.commands import ROOT, Outcome

TINY: dict[str, Any] = {
    "loss": {"name": "focal", "weight": 1.0, "alpha": 0.25, "gamma": 2.0},
    "box_loss": {"name": "smooth_l1", "weight": 1.0},
    "matcher": {"name": "retinanet"},
    "backbone": {"name": "mobilenet", "arch": "mobilenet_v3_small"},
    "data": {"name": "generated", "num_train": 10, "num_val": 3, "image_size": 64, "max_size": 32},
    "augment": {"name": "albumentations", "horizontal_flip": 0.5},
    "optim": {"name": "adamw", "lr": 1e-3},
    "schedule": {"name": "cosine"},
    "model": {
        "fpn": {"channels": 16},
        "head": {"channels": 16, "num_convs": 1},
    },
    "loader": {"num_workers": 0},
    "precision": "float32",
    "device": "cpu",
    "steps": 6,
    "batch_size": 4,
    "log_every": 1,
    "save_every": None,
    "tensorboard": False,
}


def tiny(output_dir: Path, **changes: Any) -> dict[str, Any]:
    """The plain config with top-level keys replaced."""
    return copy.deepcopy(TINY) | {"output_dir": str(output_dir)} | changes


def go(plain: dict[str, Any]) -> Path:
    run(from_plain(plain), plain)
    return Path(plain["output_dir"])


def losses(folder: Path) -> list[float]:
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def torchrun(
    num_processes: int, plain: dict[str, Any], tmp_path: Path, *, before: str = ""
) -> Path:
    """`run` under torchrun. before: Python code that runs first."""
    code = (
        f"{before}\nimport json, sys; from detector.config import from_plain; "
        "from detector.training.run import run; "
        "p = json.loads(sys.argv[1]); run(from_plain(p), p)"
    )
    folder = Path(plain["output_dir"])
    launch(num_processes, code, json.dumps(plain), tmp_path, wanted=folder / "metrics.json")
    return folder


def launch(
    num_processes: int,
    code: str,
    argument: str,
    tmp_path: Path,
    *,
    wanted: Path | None = None,
    max_restarts: int = 0,
) -> subprocess.CompletedProcess[str]:
    """Python code under torchrun, with one argument. The exit code is not judged: a short gloo
    program may abort at exit after correct work, so what it wrote (`wanted`) is."""
    script = tmp_path / "main.py"
    script.write_text(code)
    command = [str(ROOT / "scripts" / "launch.sh"), "--standalone"]
    command += ["--nproc-per-node", str(num_processes), "--max-restarts", str(max_restarts)]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PATH": path}
    done = subprocess.run(
        [*command, str(script), argument],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert wanted is None or wanted.exists(), done.stderr[-3000:]
    return done


SMALL = (
    *("experiment=smoke", "device=cpu", "precision=float32", "tensorboard=false", "log_every=1"),
    *("data.image_size=64", "data.max_size=32", "data.num_train=6", "data.num_val=2"),
    *("model.fpn.channels=16", "model.head.channels=16", "loader.num_workers=0", "steps=2"),
)
"""A run of seconds as overrides of the command."""


def small(*overrides: str) -> list[str]:
    """The words of a run of seconds, with others in place of those of the same key."""
    given = {word.partition("=")[0] for word in overrides}
    return [*(word for word in SMALL if word.partition("=")[0] not in given), *overrides]


def started(
    folder: Path, *overrides: str, before: str = "", **options: Any
) -> subprocess.Popen[str]:
    """The command `train`, begun in a process of its own. before: Python code that runs first."""
    code = (
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{before}\n"
        "from detector.cli.train import main\nmain()"
    )
    command = [sys.executable, "-c", code, f"output_dir={folder}", *small(*overrides)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=folder.parent, env=environment, **(pipes | options))


def trained(folder: Path, *overrides: str, before: str = "", **options: Any) -> Outcome:
    """What came out of the command `train` in a process of its own."""
    process = started(folder, *overrides, before=before, **options)
    out, err = process.communicate(timeout=120)
    return Outcome(process.returncode, out, err)
