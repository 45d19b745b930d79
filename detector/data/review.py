"""Train and val beside each other: classes, counts, what they share, what is suspicious."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from detector.data.account import Account
from detector.data.readers.base import Dataset

MOST_CLASSES = 30
"""Rows of the table in the log; the file has all."""

MOST_NAMED = 3
"""Files that a warning names."""

BEGINNING = 1 << 16
"""Bytes by which two files of one size are told apart: the beginning of their pixels is in them."""


@dataclass(frozen=True)
class Review:
    """counts: class -> (objects in train, in val), crowds included. shared: names in val of images
    that train has too. warnings: what to look at before trusting a number."""

    counts: dict[str, tuple[int, int]]
    shared: tuple[str, ...]
    warnings: tuple[str, ...]
    accounts: tuple[Account, Account]
    val_files: tuple[str, ...]

    def lines(self) -> list[str]:
        """A table of the classes, the rarest last, and the warnings."""
        rows = sorted(self.counts.items(), key=lambda row: (-row[1][0], row[0]))
        width = max([len("objects"), *(len(name) for name, _ in rows[:MOST_CLASSES])])
        table = [f"{'objects':<{width}}  {'train':>8}  {'val':>8}"]
        table += [f"{name:<{width}}  {a:>8}  {b:>8}" for name, (a, b) in rows[:MOST_CLASSES]]
        if len(rows) > MOST_CLASSES:
            table.append(f"and {len(rows) - MOST_CLASSES} rarer classes: data.json has all")
        return [*table, *(f"WARNING: {words}" for words in self.warnings)]

    def to_dict(self) -> dict[str, Any]:
        train, val = self.accounts
        return {
            "objects": {name: {"train": a, "val": b} for name, (a, b) in self.counts.items()},
            "in_both_splits": list(self.shared),
            "warnings": list(self.warnings),
            "train": train.to_dict(),
            "val": {**val.to_dict(), "files": list(self.val_files)},
        }


def review(train: Dataset, val: Dataset) -> Review:
    """Compares two splits of the same classes; reads files only where two may be the same."""
    a, b = (
        np.bincount(d.annotations.labels, minlength=len(d.annotations.classes))
        for d in (train, val)
    )
    classes = train.annotations.classes
    warnings = []
    for word, verb, counts in (("train", "learn", a), ("val", "find", b)):
        if not counts.sum():
            warnings.append(f"{word} has no object: there is nothing to {verb}")
            continue
        empty = [repr(name) for name, number in zip(classes, counts, strict=True) if not number]
        if empty:
            more = f" and {len(empty) - 10} more" if len(empty) > 10 else ""
            warnings.append(f"no object in {word} of class {', '.join(empty[:10])}{more}")
    shared = images_in_both(train, val)
    if shared:
        some = ", ".join(shared[:MOST_NAMED])
        more = f" and {len(shared) - MOST_NAMED} more" if len(shared) > MOST_NAMED else ""
        warnings.append(
            f"val shares {len(shared)} of its {len(val)} images with train ({some}{more}): a score "
            "on what was learned by heart says nothing; data.val_share=0.2 draws a split"
        )
    return Review(
        {name: (int(i), int(j)) for name, i, j in zip(classes, a, b, strict=True)},
        tuple(shared),
        tuple(warnings),
        (train.annotations.account, val.annotations.account),
        tuple(val.annotations.file_name(i) for i in range(len(val))),
    )


def images_in_both(train: Dataset, val: Dataset) -> list[str]:
    """Names in val of the images whose file, or one of the same content, train has too."""
    paths = [dataset.files() for dataset in (train, val)]
    known = {os.path.realpath(path) for path in paths[0]}
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path in paths[0]:
        by_size[_size(path)].append(path)
    digests: dict[Path, bytes] = {}
    found = []
    for path in paths[1]:
        same_size = by_size.get(_size(path), [])
        if os.path.realpath(path) in known or any(
            _digest(path, digests) == _digest(other, digests) for other in same_size
        ):
            found.append(path.name)
    return found


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _digest(path: Path, known: dict[Path, bytes]) -> bytes:
    if path not in known:
        try:
            with open(path, "rb") as file:
                known[path] = hashlib.sha256(file.read(BEGINNING)).digest()
        except OSError:
            known[path] = str(path).encode()
    return known[path]
