"""The folder of a run: its name, its files, and whether a run may use it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detector.config import Config
from detector.distributed import World
from detector.engine.checkpoint import load, write_atomically
from detector.errors import ConfigError
from detector.schema import require

FREE_TO_CHANGE = {
    "output_dir",
    "resume",
    "overwrite",
    "device",
    "loader",
    "micro_batch",
    "log_every",
    "save_every",
    "tensorboard",
    "profile",
    "evaluation",
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
    def log(self) -> Path:
        return self.path / "log.jsonl"

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
    def last(self) -> Path:
        return self.path / CHECKPOINTS / "last.pt"

    @property
    def best(self) -> Path:
        return self.path / CHECKPOINTS / "best.pt"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

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

    def clear(self) -> None:
        """Removes what a run writes and nothing else."""
        files = [self.config, self.log, self.initial, self.evaluations, self.metrics]
        files.append(self.detections)
        for file in [*files, self.status]:
            file.unlink(missing_ok=True)
        for folder in (self.last.parent, self.tensorboard):
            shutil.rmtree(folder, ignore_errors=True)

    def write_status(self, state: str, **facts: Any) -> None:
        """status.json: `state` is running, done, failed, diverged or preempted."""
        text = json.dumps({"state": state, **facts}, indent=1)
        write_atomically(self.status, text.encode())


def default_path(config: Config, plain: dict[str, Any]) -> Path:
    """runs/LOSS-DATA-HASH: the same config has the same folder."""
    return Path("runs") / f"{config.loss.name}-{config.data.name}-{config_hash(plain)}"


def config_hash(plain: dict[str, Any]) -> str:
    """8 hex digits of the keys that change what is learned."""
    text = json.dumps(_learned(plain), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def open_folder(
    config: Config, plain: dict[str, Any], world: World
) -> tuple[RunFolder, dict[str, Any] | None]:
    """The run's folder and the checkpoint to go on from, if any.

    Raises ConfigError where the folder holds a run that is not gone on with, unless
    `overwrite=true` is given, where it cannot be written, or where the checkpoint was made with
    another config; names the keys that differ.
    """
    folder = RunFolder(_path(config, plain))
    folder.require_writable()
    if config.resume == "auto":
        path = folder.last if folder.last.exists() else None
    else:
        path = None if config.resume is None else Path(config.resume)
    checkpoint = None if path is None else load(path)
    if checkpoint is not None:
        _refuse_other_config(checkpoint, plain, str(path))
    goes_on = config.resume == "auto" or (path is not None and folder.owns(path))
    if folder.holds_a_run() and not goes_on:
        if not config.overwrite:
            raise ConfigError(
                f"output_dir: {folder.path} already holds a run; resume=auto goes on with it, "
                "overwrite=true replaces it"
            )
        if world.is_main:
            folder.clear()
    return folder, checkpoint


def _path(config: Config, plain: dict[str, Any]) -> Path:
    """As given, else the run folder in which the resumed checkpoint lies, else the default."""
    if config.output_dir is not None:
        return Path(config.output_dir)
    if config.resume not in (None, "auto"):
        parent = Path(config.resume).absolute().parent
        if parent.name == CHECKPOINTS:
            return parent.parent
    return default_path(config, plain)


def differences(saved: dict[str, Any], given: dict[str, Any]) -> list[str]:
    """'key: saved -> given' for each key that changes what is learned."""
    old, new = _flat(_learned(saved)), _flat(_learned(given))
    return [
        f"{key}: {old.get(key)!r} -> {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


def _refuse_other_config(checkpoint: dict[str, Any], plain: dict[str, Any], path: str) -> None:
    saved = checkpoint["config"]
    given = dict(plain)
    if given.get("prior") == "from_data":
        given["prior"] = saved.get("prior")  # the number that was found when the run began
    changed = differences(saved, given)
    if changed:
        raise ConfigError(f"resume: {path} was made with another config: {'; '.join(changed)}")


def _learned(plain: dict[str, Any]) -> dict[str, Any]:
    learned = {key: value for key, value in plain.items() if key not in FREE_TO_CHANGE}
    if "model" in learned:  # what is made of the outputs afterwards changes nothing either
        model = learned["model"]
        learned["model"] = {key: value for key, value in model.items() if key != "postprocess"}
    return learned


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {path: list(value) if isinstance(value, tuple) else value}
    pairs: dict[str, Any] = {}
    for key, inner in value.items():
        pairs |= _flat(inner, f"{path}.{key}" if path else str(key))
    return pairs
