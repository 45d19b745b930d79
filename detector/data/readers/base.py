"""What a reader and a data set are. A new format is one file here, one yaml in `configs/data`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from detector.data.annotations import Annotations
from detector.data.handling import Handling

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val")
"""Those of a training. A test split is read by an evaluation alone, and chooses nothing."""


class Dataset(ABC):
    """Annotations and the images they speak of. name: how messages call it."""

    def __init__(self, name: str, annotations: Annotations) -> None:
        self.name = name
        self.annotations = annotations

    def __len__(self) -> int:
        return len(self.annotations)

    @property
    def handling(self) -> Handling:
        """What becomes of images that cannot be used."""
        return Handling()

    @property
    def replaces_damaged(self) -> bool:
        """Whether training goes on with another image where a file is damaged."""
        return self.handling.drops("on_corrupt")

    @abstractmethod
    def image(self, index: int) -> NDArray[np.uint8]:
        """(H, W, 3) RGB pixels. Raises DataError for a file that cannot be used, naming it."""

    def files(self) -> list[Path]:
        """The files of the images, in their order; empty where images are not files."""
        return []


class Reader(ABC):
    """Finds the data of a split. Its options are the keyword-only arguments of its constructor."""

    known_classes: tuple[str, ...] | None = None
    """Those of the model for which a split is read, where there is one."""

    @abstractmethod
    def read(self, split: Split) -> Dataset:
        """The data of a split. Raises DataError naming file, key or ids; no image is decoded."""

    def expect(self, classes: Sequence[str]) -> None:
        """Told before a split is read for a trained model, which has these classes: a reader that
        would look for its classes in other splits has no need to."""
        self.known_classes = tuple(classes)
