"""Which checkpoints a run keeps: last.pt, the ones before it, and best.pt."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

import detector
from detector.data.annotations import Annotations
from detector.errors import ConfigError, DataError, StorageError
from detector.runs import checkpoint
from detector.runs.run_folder import RunFolder
from detector.training.log import Log, Silent
from detector.training.setup import Setup
from detector.training.state import State


class Saver:
    """Writes on the main process and nowhere else.

    A save that fails leaves the older checkpoints as they were and does not stop the run, which may
    have days behind it: it says so at once, and `require_saved` at the end.
    """

    def __init__(self, setup: Setup, state: State, folder: RunFolder, log: Log | Silent) -> None:
        self._setup, self._folder, self._log = setup, folder, log
        self._failure: str | None = None
        if setup.world.is_main:
            folder.last.parent.mkdir(parents=True, exist_ok=True)
            self._last_step = _step_of(folder.last)
            for path in folder.older():  # of a run that was gone back behind
                if path > folder.kept_as(state.step):
                    path.unlink()

    def last(self, state: State) -> None:
        """Writes last.pt; what was last.pt until now is kept under its step."""
        if self._setup.world.is_main and self._write(self._folder.last, state):
            self._last_step = state.step
            for path in self._folder.older()[self._setup.config.keep_checkpoints - 1 :]:
                self._give_up(path)

    def best(self, state: State) -> None:
        """Writes best.pt."""
        if self._setup.world.is_main:
            self._write(self._folder.best, state)

    def require_saved(self) -> None:
        """Raises StorageError on the main process where the latest save has failed."""
        if self._failure is not None:
            raise StorageError(self._failure)

    def _write(self, path: Path, state: State) -> bool:
        packed = checkpoint.pack(contents(self._setup, state))
        try:
            self._make_room(len(packed))
            checkpoint.require_space(path.parent, len(packed))
            temporary = checkpoint.write_beside(path, packed)
            before = self._last_step if path == self._folder.last and path.exists() else None
            if before is not None and before != state.step:
                _keep(path, self._folder.kept_as(before))
            checkpoint.put_in_place(temporary, path)
        except (StorageError, OSError) as error:  # the second: a folder that is gone, or read-only
            self._failure = f"step {state.step} is not saved: {error}"
            self._log.say(f"WARNING: {self._failure}; the run goes on")
            return False
        self._failure = None
        return True

    def _give_up(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            self._log.say(f"WARNING: {path} cannot be removed: {error.strerror}")

    def _make_room(self, num_bytes: int) -> None:
        """Gives up kept checkpoints, the oldest first, where the disk is too full for a new one."""
        folder = self._folder.last.parent
        for path in reversed(self._folder.older()):
            if checkpoint.lacks_space(folder, num_bytes):
                path.unlink()
                self._log.say(f"WARNING: the disk is full, {path} is given up for a newer one")


def contents(setup: Setup, state: State) -> dict[str, Any]:
    """All that a checkpoint holds: plain values and tensors."""
    return {
        "detector_version": detector.__version__,
        "torch_version": str(torch.__version__),  # a class of torch, which `load` refuses
        "cuda_version": torch.version.cuda,
        "config": setup.plain,
        "evaluator": setup.config.evaluation.evaluator,
        **contents_of_data(setup),
        "files": setup.files,
        **state.state_dict(),
    }


def contents_of_data(setup: Setup) -> dict[str, Any]:
    """What tells the data of a run from others, without their image files."""
    annotations = setup.train_set.annotations
    return {
        "classes": list(annotations.classes),
        "category_ids": [int(i) for i in annotations.category_ids],
        **_numbers(annotations),
        "val": _numbers(setup.val_set.annotations),
    }


def _numbers(annotations: Annotations) -> dict[str, Any]:
    return {
        "num_images": len(annotations),
        "num_objects": len(annotations.labels),
        "fingerprint": annotations.fingerprint,
    }


def require_same_data(setup: Setup, resumed: dict[str, Any]) -> None:
    """Raises DataError where a checkpoint was trained on other annotations."""
    now = contents_of_data(setup)
    del now["val"]
    changed = [
        f"{key} {resumed[key]} -> {value}" for key, value in now.items() if resumed[key] != value
    ]
    if changed:
        raise DataError(
            f"resume: {setup.train_set.name} is not the data the checkpoint was made with: "
            f"{', '.join(changed)}"
        )


def is_same_val_set(setup: Setup, resumed: dict[str, Any]) -> bool:
    """Whether the metrics of a checkpoint are of the val split as it is now: the annotations are
    equal, and no image file has another size. What an older version did not note counts as equal.
    """
    now = contents_of_data(setup)["val"]
    was = resumed.get("files", {}).get("val", {}).get("sizes")
    return resumed.get("val", now) == now and was in (None, setup.files["val"].get("sizes"))


def changes_of_data(setup: Setup, resumed: dict[str, Any]) -> list[str]:
    """A line for each thing about the data, other than the train annotations, that has changed."""
    lines = []
    now = contents_of_data(setup)["val"]
    was = resumed.get("val", now)
    changed = [f"{key} {was[key]} -> {now[key]}" for key in now if was[key] != now[key]]
    if changed:
        lines.append(f"val annotations have changed since the checkpoint: {', '.join(changed)}")
    for split, stamps in resumed.get("files", {}).items():
        differ = [key for key, stamp in setup.files[split].items() if stamps.get(key) != stamp]
        if stamps and differ:
            what = "sizes" if "sizes" in differ else "times of change, but equal sizes,"
            lines.append(f"{split} image files have other {what} than when the checkpoint was made")
    if not is_same_val_set(setup, resumed):
        lines.append("best.pt is chosen anew: the scores of two val splits are not compared")
    return lines


def _step_of(path: Path) -> int | None:
    """The step of a checkpoint; None where there is none that can be read."""
    try:
        return checkpoint.load(path)["step"]
    except ConfigError:
        return None


def _keep(path: Path, kept: Path) -> None:
    """A second name for a file, which it keeps when another file takes its first."""
    try:
        kept.unlink(missing_ok=True)
        os.link(path, kept)
    except OSError:  # a file system without links: for a moment there is no last.pt
        os.replace(path, kept)
