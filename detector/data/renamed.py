"""A data set in the classes of another: mapped by name, whatever their order and their ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.data.annotations import Annotations
from detector.data.handling import Handling
from detector.data.readers.base import Dataset
from detector.errors import DataError, did_you_mean

OTHER_IDS = "categories have other ids than in train, or are not listed: mapped by name"
NO_OBJECT = "categories are none of train's and have no object: left out"


def with_classes(
    dataset: Dataset, classes: Sequence[str], category_ids: Sequence[int], whose: str
) -> Dataset:
    """The data set with the classes of another, mapped by name.

    whose: the other, as messages name it. Converters list only the categories that occur, so that
    one split lacks some, or numbers them otherwise. The data set itself where nothing differs.
    Raises DataError for classes with objects that the other has not.
    """
    own = dataset.annotations
    if (own.classes, own.category_ids) == (tuple(classes), tuple(category_ids)):
        return dataset
    counts = np.bincount(own.labels, minlength=len(own.classes))
    strange = [name for name in own.classes if name not in classes]
    used = [name for name in strange if counts[own.classes.index(name)]]
    if used:
        missing = [name for name in classes if name not in own.classes]
        words = f", which has {', '.join(map(repr, missing))} beside" if missing else ""
        hint = did_you_mean(used[0], missing)
        raise DataError(
            f"{dataset.name}: has objects of {', '.join(map(repr, used))}, no class of "
            f"{whose}{words}{hint}; classes of the same names are needed"
        )
    position = {name: k for k, name in enumerate(classes)}
    new = np.array([position.get(name, 0) for name in own.classes], np.int64)
    account = own.account
    if strange:
        account.rules[NO_OBJECT] += len(strange)
    if set(zip(own.classes, own.category_ids, strict=True)) - set(
        zip(classes, category_ids, strict=True)
    ) or len(own.classes) - len(strange) < len(classes):
        account.rules[OTHER_IDS] += len(own.classes) - len(strange)
    return Renamed(
        dataset,
        replace(
            own,
            labels=new[own.labels],
            classes=tuple(classes),
            category_ids=tuple(category_ids),
        ),
    )


class Renamed(Dataset):
    """A data set under the classes of another, or of a model: a class without objects here has no
    AP and counts in no mean. annotations: of the same images and objects, in those classes."""

    def __init__(self, of: Dataset, annotations: Annotations) -> None:
        super().__init__(of.name, annotations)
        own = dict(zip(of.annotations.classes, of.annotations.category_ids, strict=True))
        new = zip(annotations.classes, annotations.category_ids, strict=True)
        self._own_ids = {number: own.get(name) for name, number in new}
        self.of = of

    def in_own_ids(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Rows of COCO's results with the category ids of these data, so that they fit their file;
        those of classes that it does not have are left out."""
        return [
            {**row, "category_id": self._own_ids[row["category_id"]]}
            for row in rows
            if self._own_ids[row["category_id"]] is not None
        ]

    def image(self, index: int) -> NDArray[np.uint8]:
        return self.of.image(index)

    @property
    def handling(self) -> Handling:
        return self.of.handling

    def files(self) -> list[Path]:
        return self.of.files()
