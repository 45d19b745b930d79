"""Batches, made by loader processes whose number changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from detector.data.readers.base import Dataset
from detector.data.sampler import sample_key, step_samples
from detector.data.transforms import Augmentation, Sample
from detector.errors import DataError
from detector.structures import BACKGROUND, Batch, Targets, pin

MULTIPLE = 32
"""Padded sides are multiples of it: the stride of C5."""

Item = tuple[Sample, int, int]
"""A sample, the id of its image, the key of its draws."""


def load(dataset: Dataset, index: int) -> Sample:
    """Image and objects as they are in the data set. Raises DataError for an unusable image."""
    annotations = dataset.annotations
    objects = annotations.objects(index)
    return Sample(
        image=dataset.image(index),
        boxes=annotations.boxes(index),
        labels=annotations.labels[objects],
        crowd=annotations.crowd[objects],
        scale=np.ones(2, np.float32),
    )


def collate(items: Sequence[Item]) -> tuple[Batch, Targets]:
    """One batch of N items, padded right and bottom with zeros to a common multiple of 32."""
    samples = [sample for sample, _, _ in items]
    sizes = torch.tensor([sample.image.shape[:2] for sample in samples])
    height, width = (int(-(-side // MULTIPLE) * MULTIPLE) for side in sizes.amax(0).tolist())
    most = max(len(sample.boxes) for sample in samples)
    images = torch.zeros(len(items), 3, height, width, dtype=torch.uint8)
    boxes = torch.zeros(len(items), most, 4)
    labels = torch.full((len(items), most), BACKGROUND)
    crowd = torch.zeros(len(items), most, dtype=torch.bool)
    for i, sample in enumerate(samples):
        h, w = sample.image.shape[:2]
        count = len(sample.boxes)
        pixels = np.ascontiguousarray(sample.image.transpose(2, 0, 1))
        images[i, :, :h, :w] = torch.from_numpy(pixels)
        boxes[i, :count] = torch.from_numpy(sample.boxes)
        labels[i, :count] = torch.from_numpy(sample.labels)
        crowd[i, :count] = torch.from_numpy(sample.crowd)
    ids = tuple(image_id for _, image_id, _ in items)
    keys = torch.tensor([key for _, _, key in items])
    scales = torch.from_numpy(np.stack([sample.scale for sample in samples]))
    return Batch(images, sizes, scales, ids), Targets(boxes, labels, crowd, sizes, ids, keys)


def train_batches(
    dataset: Dataset,
    augment: Augmentation,
    *,
    seed: int,
    batch_size: int,
    micro_batch: int,
    rank: int = 0,
    world_size: int = 1,
    start_step: int = 0,
    stop_step: int,
    num_workers: int = 0,
    timeout: float = 0,
    pin_memory: bool = False,
) -> Iterator[tuple[Batch, Targets]]:
    """This rank's micro-batches of the steps from `start_step` to before `stop_step`, in order.

    The images of a step do not depend on ranks or micro-batches, which take contiguous slices.
    """
    share = batch_size // world_size
    plan = (
        step_samples(seed, step, batch_size, len(dataset))[first : first + micro_batch]
        for step in range(start_step, stop_step)
        for first in range(rank * share, (rank + 1) * share, micro_batch)
    )
    return _batches(_Source(dataset, augment, seed), plan, num_workers, timeout, pin_memory)


def evaluation_batches(
    dataset: Dataset,
    augment: Augmentation,
    *,
    images_per_group: int,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    timeout: float = 0,
    limit: int | None = None,
) -> Iterator[tuple[Batch, Targets]]:
    """This rank's groups of the first `limit` images, in order.

    Image i is in group i // images_per_group whatever the number of ranks, so that it is padded in
    the same way; a rank takes whole groups, one run of them.
    """
    count = len(dataset) if limit is None else min(limit, len(dataset))
    starts = range(0, count, images_per_group)
    low, high = (len(starts) * r // world_size for r in (rank, rank + 1))
    plan = ([(0, i) for i in range(s, min(s + images_per_group, count))] for s in starts[low:high])
    return _batches(_Source(dataset, augment, None), plan, num_workers, timeout, False)


class _Source(TorchDataset[Item | DataError]):
    """Samples by (epoch, index); a seed means training, None evaluation.

    An unusable image comes back as its error: a loader process would add its traceback to a raised
    one, and the user's line would drown.
    """

    def __init__(self, dataset: Dataset, augment: Augmentation, seed: int | None) -> None:
        self._dataset, self._augment, self._seed = dataset, augment, seed

    def __getitem__(self, place: tuple[int, int]) -> Item | DataError:
        epoch, index = place
        image_id = int(self._dataset.annotations.image_ids[index])
        try:
            sample = load(self._dataset, index)
        except DataError as error:
            return error
        if self._seed is None:
            return self._augment.evaluate(sample), image_id, 0
        key = sample_key(self._seed, epoch, index)
        return self._augment.train(sample, key), image_id, key


def _collate_or_error(items: list[Item | DataError]) -> tuple[Batch, Targets] | DataError:
    for item in items:
        if isinstance(item, DataError):
            return item
    return collate(items)  # type: ignore[arg-type]


def _batches(
    source: _Source, plan: Any, num_workers: int, timeout: float, pin_memory: bool
) -> Iterator[tuple[Batch, Targets]]:
    loader = DataLoader(
        source,
        batch_sampler=plan,
        num_workers=num_workers,
        collate_fn=_collate_or_error,
        timeout=timeout if num_workers else 0,
        worker_init_fn=_start_worker if num_workers else None,
    )
    for batch in loader:
        if isinstance(batch, DataError):
            raise batch
        yield (pin(batch[0]), pin(batch[1])) if pin_memory else batch


def _start_worker(worker: int) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
