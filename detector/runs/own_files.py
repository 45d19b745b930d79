"""What a run writes into its folder, by name: all that is ever deleted there."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import detector
from detector.config.compose import read_yaml
from detector.runs.checkpoint import fits_checksum
from detector.runs.run_folder import CHECKPOINTS, RunFolder
from detector.runs.status import STATES

UNFINISHED = r"(last|best|step_\d{9,})\.pt\.tmp"
"""Checkpoints whose writing was broken off."""

FIGURES = r"(reliability|reliability_classes(_\d+)?|precision_recall(_\d+)?)\.png"
WORST = r"[a-z_]+_\d{2,}_image_-?\d+\.png"

OWN = {
    ".": r"(config\.yaml|(log|evaluations)\.jsonl"
    r"|(data|initial_loss|metrics|detections|status)\.json)(\.tmp|\.damaged(_\d+)?)?|data_faults\.txt|\.detector-run",
    CHECKPOINTS: rf"(last|best|step_\d{{9,}})\.pt|last\.damaged|{UNFINISHED}",
    "crash": r"(batch\.json|checkpoint\.pt)(\.tmp)?",
    "figures": FIGURES,
    "worst": WORST,
    "tensorboard": r"events\.out\.tfevents\..+",
    "probe/images": r"-?\d+\.png",
    "probe": r"(steps\.jsonl|(images|final)\.json)(\.tmp)?",
}
"""Names of the files of a run, by the folder inside its own; inner folders come first."""

PARTS = {"loss", "box_loss", "matcher", "backbone", "data"}
"""Keys of a run's config whose values have a `name`."""

MOST_NAMED = 8
"""Files that a message names."""


def mark(folder: RunFolder) -> None:
    """Writes what tells the folder of a run from any other that holds a config.yaml."""
    if folder.mark.is_file():
        return
    folder.mark.write_text(
        f"A run of detector {detector.__version__} wrote here; overwrite=true replaces its files.\n"
    )


def is_of_a_run(folder: RunFolder) -> bool:
    """Whether a run of this project wrote here: by its mark, or as versions before it wrote.

    Those left a config of the known parts, and beside it a status or a checkpoint. A checkpoint
    alone is one that was copied here to be gone on with.
    """
    if folder.mark.is_file():
        return True
    is_config = _is_config(folder.config) or not folder.config.exists()
    return is_config and (_is_status(folder.status) or _is_checkpoint(folder.last))


def clear(folder: RunFolder) -> list[str]:
    """Removes what a run writes and nothing else; what stays, as paths inside the folder.

    The folder of the checkpoints may be a link to a larger disk; other links are not followed.
    """
    for inside, pattern in OWN.items():
        place = folder.path / inside
        if place.is_symlink() and inside != CHECKPOINTS:
            continue
        remove(place, pattern)
        with suppress(OSError):  # holds something else, or is a link, or is not there
            if inside != ".":
                place.rmdir()
    return _left(folder)


def remove(folder: Path, pattern: str) -> None:
    """Removes the files of a folder whose whole name fits a pattern; folders and all else stay."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if re.fullmatch(pattern, path.name) and (path.is_file() or path.is_symlink()):
            path.unlink()


def in_words(left: list[str]) -> str:
    """One line of what stays."""
    more = f" and {len(left) - MOST_NAMED} more" if len(left) > MOST_NAMED else ""
    return f"overwrite: no run wrote {', '.join(left[:MOST_NAMED])}{more}, which stays as it is"


def _left(folder: RunFolder) -> list[str]:
    paths = []
    for place, folders, files in os.walk(folder.path):
        names = files + [name for name in folders if not os.listdir(Path(place, name))]
        paths += [Path(place, name).relative_to(folder.path).as_posix() for name in names]
    return sorted(set(paths) - {folder.lock.name})


def _is_config(path: Path) -> bool:
    values = read_yaml(path) or {}
    return all(isinstance(values.get(key), dict) and "name" in values[key] for key in PARTS)


def _is_status(path: Path) -> bool:
    try:
        said: Any = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(said, dict) and said.get("state") in STATES


def _is_checkpoint(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return fits_checksum(file) is not None
    except OSError:
        return False
