"""Compares the runs in two folders, each run with that of its name: `equal_runs.py OLD NEW`.

What `scripts/equal_runs.sh` calls. Every file is brought into one flat form, names to values, so
that two versions that keep the same numbers under other names can be compared.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Flat = dict[str, Any]
"""Dotted names to tensors and plain values."""

OF_THE_MACHINE = ("seconds", "seconds_data", "images_per_second", "memory_gb")
"""Keys of the logs and metrics that differ between two runs of the same code."""

OF_THE_VERSION = ("format_version", "detector_version", "torch_version", "cuda_version")
"""Keys of a checkpoint that say who wrote it."""

OF_THE_PLACE = ("config.output_dir",)
"""Keys of a checkpoint that say where it was written."""

RENAMED = {
    "loss.": "criterion.loss.",
    "balance.ema_positives": "criterion.weighting.ema_positives",
    "balance.class_scale": "criterion.weighting.class_scale",
}
"""Beginnings of names in older checkpoints, and what newer ones have in their place. A refactoring
that moves something in the checkpoint adds a line."""

NUMBERS = ("criterion.weighting.ema_positives", "criterion.weighting.class_scale")
"""Names under which older checkpoints hold a plain number and newer ones a float64 tensor of it."""

MOST_NAMED = 3
"""Differences of a file that are written out."""


def flat(value: Any, name: str = "") -> Flat:
    """The leaves of nested dicts, lists and tuples by dotted names; an empty list is a leaf."""
    if isinstance(value, dict):
        pairs = list(value.items())
    elif isinstance(value, list | tuple) and value:
        pairs = list(enumerate(value))
    else:
        return {name: value}
    found: Flat = {}
    for key, inner in pairs:
        found |= flat(inner, f"{name}.{key}" if name else str(key))
    return found


def in_new_names(values: Flat) -> Flat:
    """A checkpoint in the names and types of newer ones; one that has them stays as it is."""
    found: Flat = {}
    for name, value in values.items():
        old = next((start for start in RENAMED if name.startswith(start)), "")
        new = RENAMED.get(old, "") + name.removeprefix(old)
        is_number = new in NUMBERS and isinstance(value, float)
        found[new] = torch.tensor(value, dtype=torch.float64) if is_number else value
    return found


def of_checkpoint(path: Path) -> Flat:
    """The state in a checkpoint and the config it was made with."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    left_out = OF_THE_VERSION + OF_THE_PLACE
    return in_new_names({k: v for k, v in flat(content).items() if k not in left_out})


def of_json(path: Path) -> Flat:
    """A JSON file without what depends on the machine; of lines of JSON one after another."""
    text = path.read_text()
    is_lines = path.suffix == ".jsonl"
    content = [json.loads(line) for line in text.splitlines()] if is_lines else json.loads(text)
    return {k: v for k, v in flat(content).items() if k.split(".")[-1] not in OF_THE_MACHINE}


def to_the_byte(path: Path) -> Flat:
    """A JSON file as its bytes; and its values, which say what differs where the bytes do."""
    return {"the file": path.read_bytes(), **flat(json.loads(path.read_text()))}


FILES: dict[str, Callable[[Path], Flat]] = {
    "detections.json": to_the_byte,
    "log.jsonl": of_json,
    "initial_loss.json": of_json,
    "metrics.json": of_json,
    "evaluations.jsonl": of_json,
    "checkpoints/last.pt": of_checkpoint,
}
"""What is compared of a run, and how it is read."""


def is_same(old: Any, new: Any) -> bool:
    """Whether two values are equal to the bit, and of one type."""
    if type(old) is not type(new):
        return False
    if isinstance(old, Tensor):
        return old.dtype == new.dtype and torch.equal(old, new)
    return old == new


def in_words(value: Any) -> str:
    """A value in a few characters."""
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, Tensor) and value.numel() > 1:
        return f"{value.dtype} {tuple(value.shape)}"
    return repr(value) if len(repr(value)) < 40 else f"{repr(value)[:36]} ..."


def differences(old: Flat, new: Flat) -> list[str]:
    """A few words for each name that is on one side only or has another value there."""
    found = [f"{name} is new" for name in new if name not in old]
    for name, value in old.items():
        if name not in new:
            found.append(f"{name} is gone")
        elif not is_same(value, new[name]):
            found.append(f"{name} {in_words(value)} -> {in_words(new[name])}")
    return found


def compare(old: Path, new: Path) -> str:
    """What there is to say of two files, beginning with `equal` or `differs`."""
    missing = [str(path) for path in (old, new) if not path.is_file()]
    if missing:
        return f"differs: {' and '.join(missing)} is missing"
    read = next(read for end, read in FILES.items() if str(old).endswith(end))
    before = read(old)
    found = differences(before, read(new))
    if not found:
        return "equal to the byte" if read is to_the_byte else f"equal ({len(before)} values)"
    more = f"; and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    return f"differs: {'; '.join(found[:MOST_NAMED])}{more}"


def main(old: Path, new: Path) -> int:
    """A line for each file of each run; 1 where any differs or there is no run at all, else 0."""
    runs = sorted({path.name for side in (old, new) for path in side.iterdir() if path.is_dir()})
    said = {
        f"{run}/{file}": compare(old / run / file, new / run / file)
        for run in runs
        for file in FILES
    }
    for name, words in said.items():
        print(f"{name:<34} {words}")
    num_equal = sum(words.startswith("equal") for words in said.values())
    print(f"{num_equal} of {len(said)} comparisons are equal")
    return 0 if said and num_equal == len(said) else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
