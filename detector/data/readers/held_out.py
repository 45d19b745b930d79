"""A part of another set's train split in the place of its val split, which stays untouched."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from detector.config.ranges import AtLeast, Between
from detector.config.registry import DATASETS
from detector.config.schema import Plug, require
from detector.data.handling import Handling
from detector.data.readers.base import Dataset, Reader, Split

GENERATED = Plug("generated", {})


@DATASETS.register("held_out")
class HeldOutReader(Reader):
    """Splits the train split of a set in two: to train on, and to choose by.

    of: the set, as its own yaml has it, with its `name`. share: of its train images that are held
    out, at least one. seed: of the draw. The same images for the same seed and number of images.
    """

    def __init__(
        self,
        *,
        of: Plug = GENERATED,
        share: Annotated[float, Between(0, 1, is_above=True, is_below=True)] = 0.2,
        seed: Annotated[int, AtLeast(0)] = 0,
    ) -> None:
        self._reader = DATASETS.build(of)
        self._share, self._seed = share, seed

    def read(self, split: Split) -> Dataset:
        """The images that are kept, or those held out, each in the order of their ids; the test
        split is that of the set itself."""
        if split == "test":
            return self._reader.read("test")
        whole = self._reader.read("train")
        number = len(whole)
        require(number > 1, f"of: {whole.name} has {number} image, 2 are needed to hold one out")
        order = np.random.default_rng(self._seed).permutation(number)
        num_held = min(number - 1, max(1, round(self._share * number)))
        chosen = order[:num_held] if split == "val" else order[num_held:]
        word = "held out" if split == "val" else "kept"
        return Part(f"{whole.name} ({word})", whole, np.sort(chosen))


class Part(Dataset):
    """Some images of a set. indices (I,): theirs in the whole."""

    def __init__(self, name: str, whole: Dataset, indices: NDArray[np.int64]) -> None:
        super().__init__(name, whole.annotations.select(indices))
        self._whole, self._indices = whole, indices

    def image(self, index: int) -> NDArray[np.uint8]:
        return self._whole.image(int(self._indices[index]))

    @property
    def handling(self) -> Handling:
        return self._whole.handling

    def files(self) -> list[Path]:
        files = self._whole.files()
        return [files[i] for i in self._indices] if files else []
