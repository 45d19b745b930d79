"""What a reader and a data set are. A new format is one file here, one yaml in `configs/data`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from detector.data.annotations import Annotations
from detector.data.handling import Handling

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")


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

    @abstractmethod
    def read(self, split: Split) -> Dataset:
        """The data of a split. Raises DataError naming file, key or ids; no image is decoded."""
