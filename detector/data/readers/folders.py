"""What readers of files have in common: how they handle faults, and a val split out of train."""

from __future__ import annotations

import hashlib
import os
import re
from abc import abstractmethod
from collections import Counter
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from detector.config.schema import require
from detector.data.account import Account, Kind
from detector.data.annotations import Annotations
from detector.data.handling import Handling
from detector.data.images import FolderDataset
from detector.data.readers.base import Dataset, Reader, Split
from detector.errors import ConfigError, DataError

IMAGES_OF_THE_OTHER = Kind("image", "of the other split, which data.val_share draws", None)
OBJECTS_OF_THE_OTHER = Kind("object", "of the other split, which data.val_share draws", None)


COLUMN = "column:"
"""What begins a `val_group` that names a key of the images in the annotations."""


class FolderReader(Reader):
    """A reader of images that lie in folders. handling: see there."""

    def __init__(self, handling: Handling) -> None:
        self.handling = handling
        group = handling.val_group
        if group not in (None, "folder") and not group.startswith(COLUMN):
            try:
                groups = re.compile(group).groups
            except re.error as error:
                groups = 0
                require(False, f"val_group: {handling.val_group!r} is no pattern: {error}")
            require(groups > 0, f"val_group: {handling.val_group!r} has no group in brackets")

    def read(self, split: Split) -> Dataset:
        if self.handling.val_share is None or split == "test":
            return self.read_source(split)
        whole, is_val = self.whole, self.is_val
        chosen = np.flatnonzero(is_val if split == "val" else ~is_val)
        word = f"{'a' if split == 'val' else 'all but a'} share of {self.handling.val_share:g}"
        name = f"{whole.name} ({word})"
        part = whole.annotations.select(chosen)
        return FolderDataset(name, _told(whole.annotations, part), whole.folder, self.handling)

    @abstractmethod
    def read_source(self, split: Split) -> FolderDataset:
        """The data of a split as its own keys state it; of "train" alone where val is drawn."""

    @cached_property
    def whole(self) -> FolderDataset:
        """What is drawn from."""
        return self.read_source("train")

    @cached_property
    def is_val(self) -> NDArray[np.bool_]:
        """(I,) which images of the whole are drawn for val."""
        share = self.handling.val_share
        assert share is not None
        annotations = self.whole.annotations
        names = [annotations.file_name(i) for i in range(len(annotations))]
        group = self.handling.val_group
        if group is not None and group.startswith(COLUMN):
            groups = numbered(self.column(group.removeprefix(COLUMN)))
        else:
            groups = group_numbers(names, group)
        if groups.max() == 0:
            raise DataError(
                f"{self.whole.name}: all {len(names)} images are of one scene, two are needed to "
                "draw a val split; data.val_group sets what a scene is"
            )
        return drawn(annotations, groups, names, share)

    def column(self, key: str) -> list[str]:
        """(I,) what the annotations state of each image of the whole under a key.

        Raises ConfigError where the layout has no such keys, DataError where an image lacks it.
        """
        raise ConfigError(
            f"val_group: {COLUMN}{key} given, this layout has no keys of images; data=coco has; "
            "folder, or a pattern with one group, is allowed"
        )


def _told(whole: Annotations, part: Annotations) -> Annotations:
    """The part with an account of its own, in which the other part is left out."""
    account = Account(
        Counter(whole.account.given),
        list(whole.account.left_out),
        Counter(whole.account.rules),
        list(whole.account.notes),
        list(whole.account.warnings),
    )
    account.leave_out(IMAGES_OF_THE_OTHER, "", count=len(whole) - len(part))
    objects = len(whole.labels) - len(part.labels)
    if objects:
        account.leave_out(OBJECTS_OF_THE_OTHER, "", count=objects)
    return replace(part, account=account)


def group_numbers(names: list[str], val_group: str | None) -> NDArray[np.int64]:
    """(I,) the scene of each image, numbered in the order of `names`; see `Handling.val_group`."""
    keys: list[str] = []
    for name in names:
        key = name
        if val_group == "folder":
            key = os.path.dirname(name)
        elif val_group is not None:
            found = re.search(val_group, name)
            key = name if found is None or found[1] is None else found[1]
        keys.append(key)
    return numbered(keys)


def numbered(keys: list[str]) -> NDArray[np.int64]:
    """(I,) the number of each key, in the order of their first appearance."""
    numbers = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys], np.int64)


def drawn(
    annotations: Annotations, groups: NDArray[np.int64], names: list[str], share: float
) -> NDArray[np.bool_]:
    """(I,) which images are in the val split: about a share of each class, whole scenes.

    Iterative stratification, Sechidis et al. 2011, "On the Stratification of Multi-Label Data":
    the rarest class first, each scene to the split that lacks it most. Ties are settled by the
    digest of the scene's first name, so that the draw follows from the names alone.
    """
    num_groups = int(groups.max()) + 1
    num_classes = len(annotations.classes)
    # (G, K + 1) images of a scene that hold a class; the last column counts those without objects.
    holds = np.zeros((num_groups, num_classes + 1))
    for i in range(len(annotations)):
        present = np.unique(annotations.labels[annotations.objects(i)])
        holds[groups[i], present if len(present) else [num_classes]] += 1
    first = {int(group): name for group, name in reversed(list(zip(groups, names, strict=True)))}
    digests = [hashlib.sha256(first[g].encode()).digest() for g in range(num_groups)]
    order = np.array(sorted(range(num_groups), key=lambda g: digests[g]))

    totals = holds.sum(0)
    lacks = np.stack([(1 - share) * totals, share * totals])
    is_val, is_free = np.zeros(num_groups, bool), np.ones(num_groups, bool)
    while is_free.any():
        rest = holds[is_free].sum(0)
        rarest = int(np.argmin(np.where(rest > 0, rest, np.inf)))
        for g in order[is_free[order] & (holds[order, rarest] > 0)]:
            # Above 0.5 of an image the val split still lacks this class more than train does,
            # each measured against what it is to have.
            want_train, want_val = lacks[0, rarest] / (1 - share), lacks[1, rarest] / share
            is_val[g] = want_val > want_train or (want_val == want_train and share >= 0.5)
            lacks[int(is_val[g])] -= holds[g]
            is_free[g] = False
    if not is_val.any():
        is_val[order[0]] = True
    if is_val.all():
        is_val[order[-1]] = False
    return is_val[groups]
