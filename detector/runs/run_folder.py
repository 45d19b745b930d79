"""The folder of a run: its name, its files, and whether a run may use it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detector.config import Config
from detector.config.schema import Plug, require
from detector.runs import status
from detector.runs.checkpoint import write_atomically

FREE_TO_CHANGE = {
    "output_dir",
    "resume",
    "overwrite",
    "device",
    "loader",
    "micro_batch",
    "log_every",
    "save_every",
    "keep_checkpoints",
    "max_bad_steps",
    "process_timeout",
    "tensorboard",
    "profile",
    "evaluation",
    "probe",
}
"""Keys that do not change what is learned: a run may go on with others."""

CHECKPOINTS = "checkpoints"
"""The folder of a run folder in which they lie."""


@dataclass(frozen=True)
class RunFolder:
    """Paths of what a run writes."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def data(self) -> Path:
        """What the run was given to learn and to be scored on, and what became of it."""
        return self.path / "data.json"

    @property
    def data_faults(self) -> Path:
        """A line for every fault of data that cannot be used."""
        return self.path / "data_faults.txt"

    @property
    def log(self) -> Path:
        return self.path / "log.jsonl"

    @property
    def probe(self) -> Path:
        return self.path / "probe"

    @property
    def initial(self) -> Path:
        return self.path / "initial_loss.json"

    @property
    def evaluations(self) -> Path:
        return self.path / "evaluations.jsonl"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.json"

    @property
    def detections(self) -> Path:
        return self.path / "detections.json"

    @property
    def status(self) -> Path:
        return self.path / "status.json"

    @property
    def lock(self) -> Path:
        """What a run locks while it works here."""
        return self.path / ".lock"

    @property
    def mark(self) -> Path:
        """What tells the folder of a run from others; see own_files.py."""
        return self.path / ".detector-run"

    @property
    def last(self) -> Path:
        return self.path / CHECKPOINTS / "last.pt"

    @property
    def best(self) -> Path:
        return self.path / CHECKPOINTS / "best.pt"

    @property
    def crash(self) -> Path:
        """What a step that was not finite leaves behind."""
        return self.path / "crash"

    @property
    def figures(self) -> Path:
        """Curves of an analysis."""
        return self.path / "figures"

    @property
    def worst(self) -> Path:
        """The images that an analysis found to be worst."""
        return self.path / "worst"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    def older(self) -> list[Path]:
        """The kept checkpoints before last.pt, newest first."""
        return sorted(self.last.parent.glob("step_*.pt"), reverse=True)

    def kept_as(self, step: int) -> Path:
        """The name of last.pt once a newer one takes its place."""
        return self.last.parent / f"step_{step:09d}.pt"

    def holds_a_run(self) -> bool:
        return self.config.exists() or self.last.exists()

    def require_writable(self) -> None:
        """Raises ConfigError where no folder can be there: before the data are read, not after."""
        path = self.path.absolute()
        nearest = next(p for p in (path, *path.parents) if p.exists())
        what = "cannot be written" if nearest.is_dir() else "is not a folder"
        is_free = nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
        require(is_free, f"output_dir: {self.path}, but {nearest} {what}")

    def owns(self, checkpoint: Path) -> bool:
        """Whether a checkpoint lies where a run in this folder writes its own."""
        return checkpoint.resolve().parent == self.last.parent.resolve()

    def write_status(self, state: str, **facts: Any) -> None:
        """status.json: `state` is running, done, failed, diverged or preempted; see status.py."""
        if state == "running":
            facts |= {"time": time.time(), "process": status.this_process()}
        text = json.dumps({"state": state, **facts}, indent=1)
        write_atomically(self.status, text.encode())

    def read_status(self) -> dict[str, Any]:
        """What status.json says, as far as it is still true."""
        return status.read(self.status)


def default_path(config: Config, plain: dict[str, Any]) -> Path:
    """runs/LOSS-DATA-HASH: the same config has the same folder. DATA is the reader, and the folder
    of the data where they have one; a run that lies under the reader's name alone stays there."""
    parts = [config.loss.name, *data_names(config.data), config_hash(plain)]
    older = Path("runs") / f"{config.loss.name}-{config.data.name}-{config_hash(plain)}"
    return older if older.exists() else Path("runs") / "-".join(parts)


def data_names(data: Plug) -> list[str]:
    """Such as ["coco", "bccd"]: the reader, and the last part of the data's root."""
    of = data.options.get("of")
    inner = of if isinstance(of, dict) else data.options
    root = inner.get("root")
    words = re.findall(r"\w+", Path(root).expanduser().resolve().name) if root else []
    return [data.name, *(["_".join(words)] if words else [])]


def config_hash(plain: dict[str, Any]) -> str:
    """8 hex digits of the keys that change what is learned."""
    text = json.dumps(learned(plain), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def learned(plain: dict[str, Any]) -> dict[str, Any]:
    """The keys that change what is learned."""
    learned = {key: value for key, value in plain.items() if key not in FREE_TO_CHANGE}
    if "model" in learned:  # what is made of the outputs afterwards changes nothing either
        model = learned["model"]
        learned["model"] = {key: value for key, value in model.items() if key != "postprocess"}
    if "data" in learned:  # no training reads a test split
        data = learned["data"]
        learned["data"] = {k: v for k, v in data.items() if "test" not in k.split("_")}
    return learned
