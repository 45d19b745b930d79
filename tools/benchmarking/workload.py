"""What is timed: a step on random images, the same on every machine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from detector.config import Config
from detector.data.annotations import Rows, pack
from detector.data.readers.base import Dataset
from detector.structures import Batch, Targets


@dataclass(frozen=True)
class Workload:
    """What both do.

    train: the config of our training. height, width: of the images, in pixels. classes: for which
    both have outputs. objects: boxes in an image. tf32: whether a GPU may round the factors of
    float32 products to 10 bits.
    """

    train: Config
    height: int
    width: int
    classes: int
    objects: int
    tf32: bool = False


def synthetic_batch(workload: Workload, device: torch.device) -> tuple[Batch, Targets]:
    """Random pixels, `objects` boxes of 16 to 256 px in each image; the same on every machine."""
    n, m = workload.train.batch_size, workload.objects
    height, width = workload.height, workload.width
    generator = torch.Generator().manual_seed(0)
    size = torch.tensor([width, height])
    images = torch.randint(256, (n, 3, height, width), generator=generator, dtype=torch.uint8)
    side = 16 * 16 ** torch.rand(n, m, 2, generator=generator)
    side = torch.minimum(side, 0.9 * size)
    corner = torch.rand(n, m, 2, generator=generator) * (size - side)
    ids = tuple(range(1, n + 1))
    sizes = torch.tensor([[height, width]] * n)
    labels = torch.randint(workload.classes, (n, m), generator=generator)
    batch = Batch(images.to(device), sizes.to(device), torch.ones(n, 2, device=device), ids)
    targets = Targets(
        boxes=torch.cat([corner, corner + side], -1).to(device),
        labels=labels.to(device),
        crowd=torch.zeros(n, m, dtype=torch.bool, device=device),
        image_sizes=sizes.to(device),
        image_ids=ids,
        keys=torch.arange(n, device=device),
    )
    return batch, targets


class SyntheticSet(Dataset):
    """One image without objects: what a run needs to know of data it never reads."""

    def __init__(self, workload: Workload) -> None:
        rows = Rows([1], ["synthetic"], [(workload.height, workload.width)])
        names = {k: f"class {k}" for k in range(workload.classes)}
        annotations = pack(rows, source="synthetic", categories=names)
        super().__init__("synthetic", annotations)
        self._size = (workload.height, workload.width, 3)

    def image(self, index: int) -> NDArray[np.uint8]:
        return np.zeros(self._size, np.uint8)
