"""From a data set to batches. How many processes load changes nothing but the time it takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch.utils.data import Dataset as TorchDataset

from detector.data.readers.base import Dataset
from detector.data.resizing import padded_size
from detector.data.sampler import Draw, Order, sample_key
from detector.data.samplers import Sampler
from detector.data.transforms import Augmentation, Sample
from detector.data.workers import Batches
from detector.errors import DataError, UserError
from detector.structures import Batch, Targets

Item = tuple[Sample, int, int]
"""A sample, its image id, its key."""


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
    num_steps: int | None = None,
    sampler: Sampler | None = None,
    num_workers: int = 0,
    timeout: float = 300.0,
    pin_memory: bool = False,
) -> Batches:
    """The micro-batches of a rank for the steps from `start_step` until `stop_step`, in order.

    The images of a step follow from (seed, step). A rank takes a contiguous share of them, its
    micro-batches are contiguous shares of that. num_steps: of the whole run, of which augmentations
    know what share is done; None: it ends at `stop_step`. sampler: None takes every image once an
    epoch. Raises DataError from whichever process met it.
    """
    share = batch_size // world_size
    repeats = None if sampler is None else sampler.repeats(dataset.annotations)
    order = Order(seed, len(dataset), repeats)
    end = num_steps or stop_step

    def groups() -> Iterator[list[Draw]]:
        for step in range(start_step, stop_step):
            images = order.step(step, batch_size, step / end)
            mine = images[rank * share : (rank + 1) * share]
            for first in range(0, share, micro_batch):
                yield mine[first : first + micro_batch]

    guarded = Guarded(TrainItems(dataset, augment, seed))
    ids = dataset.annotations.image_ids
    return Batches(guarded, groups(), ids, num_workers, timeout=timeout, pin_memory=pin_memory)


def evaluation_batches(
    dataset: Dataset,
    augment: Augmentation,
    *,
    images_per_group: int,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    timeout: float = 300.0,
    limit: int | None = None,
) -> Batches:
    """The batches of a rank: each image once over all ranks, or the first `limit` images.

    Groups of neighbours are fixed (index // images_per_group), so that padding, and with it each
    number of the model, does not depend on the ranks; a rank takes a contiguous range of groups.
    """
    num_images = len(dataset) if limit is None else min(limit, len(dataset))
    num_groups = -(-num_images // images_per_group)
    mine = range(rank * num_groups // world_size, (rank + 1) * num_groups // world_size)
    groups = (
        [
            Draw(0, i)
            for i in range(g * images_per_group, min((g + 1) * images_per_group, num_images))
        ]
        for g in mine
    )
    guarded = Guarded(EvaluationItems(dataset, augment))
    return Batches(guarded, groups, dataset.annotations.image_ids, num_workers, timeout=timeout)


MOST_DAMAGED = 10
"""Damaged files in a row that are replaced; with as many, all of a set is likely to be damaged."""


INSTEAD = "data.on_corrupt=drop takes another image in its place"


class TrainItems(TorchDataset[Item]):
    """The augmented image of a draw.

    Where the set's handling lets a damaged file go, another image of the set stands in its place.
    Which one follows from the random key of the first: the same on every rank, and when resumed.
    """

    def __init__(self, dataset: Dataset, augment: Augmentation, seed: int) -> None:
        self.dataset, self.augment, self.seed = dataset, augment, seed

    def __getitem__(self, draw: Draw) -> Item:
        wanted = sample_key(self.seed, draw.epoch, draw.image, draw.repeat)
        samples = Samples(self.dataset, wanted)
        position, sample = samples.readable(draw.image)
        key = sample_key(self.seed, draw.epoch, position, draw.repeat)
        sample = self.augment.train_among(sample, key, samples, draw.share)
        sample = replace(sample, damaged=tuple(samples.damaged))
        return sample, int(self.dataset.annotations.image_ids[position]), key


class Samples:
    """The images of a data set as their files have them, by index; damaged ones are replaced where
    the set's handling lets them go.

    key: of the draws of what stands in. damaged: a line for each file that was damaged.
    """

    def __init__(self, dataset: Dataset, key: int) -> None:
        self.dataset, self.key = dataset, key
        self.damaged: list[str] = []

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        return self.readable(index)[1]

    def readable(self, index: int) -> tuple[int, Sample]:
        """The index of an image, or of what stands in its place, and the image.

        Raises DataError for a damaged file that may not be replaced, or with too many in a row.
        """
        for attempt in range(1, MOST_DAMAGED + 1):
            try:
                return index, read_sample(self.dataset, index)
            except DataError as error:
                if not self.dataset.replaces_damaged:
                    raise DataError(f"{error}; {INSTEAD}") from None
                if attempt == MOST_DAMAGED:
                    raise
                self.damaged.append(str(error))
                index = stand_in(self.key, index, attempt, len(self.dataset))
        raise AssertionError("the last attempt returns or raises")


def stand_in(key: int, index: int, attempt: int, num_images: int) -> int:
    """The index of the image that stands in the place of a damaged one."""
    draws = np.random.Generator(np.random.PCG64(np.random.SeedSequence([key, 4, index, attempt])))
    return int(draws.integers(num_images))


class EvaluationItems(TorchDataset[Item]):
    """The image of a draw at the model's size; only its index has an influence."""

    def __init__(self, dataset: Dataset, augment: Augmentation) -> None:
        self.dataset, self.augment = dataset, augment

    def __getitem__(self, index: tuple[int, ...]) -> Item:
        sample = self.augment.evaluate(read_sample(self.dataset, index[1]))
        image_id = int(self.dataset.annotations.image_ids[index[1]])
        return sample, image_id, sample_key(0, 0, index[1])


class Guarded(TorchDataset[tuple[Batch, Targets] | UserError]):
    """The batch of a group of indices, or the user's error as a value: raised in a worker, it would
    come out of torch with the worker's traceback for a message.
    """

    def __init__(self, items: TorchDataset[Item]) -> None:
        self.items = items

    def __getitem__(self, indices: Sequence[Draw]) -> tuple[Batch, Targets] | UserError:
        try:
            return collate([self.items[i] for i in indices])
        except UserError as error:
            return error


def read_sample(dataset: Dataset, index: int) -> Sample:
    """An image as the file has it, with its objects."""
    annotations, objects = dataset.annotations, dataset.annotations.objects(index)
    return Sample(
        image=dataset.image(index),
        boxes=annotations.boxes(index),
        labels=annotations.labels[objects],
        crowd=annotations.crowd[objects],
        scale=np.ones(2, np.float32),
    )


def collate(items: Sequence[Item]) -> tuple[Batch, Targets]:
    """A batch of samples, images padded right and bottom with 0, see `padded_size`."""
    samples = [sample for sample, _, _ in items]
    image_ids = tuple(image_id for _, image_id, _ in items)
    sizes = torch.tensor([sample.image.shape[:2] for sample in samples])
    height, width = padded_size(sizes.tolist())
    is_whole = all(sample.image.dtype == np.uint8 for sample in samples)
    dtype = torch.uint8 if is_whole else torch.float32
    images = torch.zeros(len(items), 3, height, width, dtype=dtype)
    for canvas, sample in zip(images, samples, strict=True):
        h, w = sample.image.shape[:2]
        canvas[:, :h, :w] = torch.from_numpy(sample.image).permute(2, 0, 1)
    scales = torch.from_numpy(np.stack([sample.scale for sample in samples]))
    targets = Targets.pack(
        [torch.from_numpy(sample.boxes) for sample in samples],
        [torch.from_numpy(sample.labels) for sample in samples],
        crowd=[torch.from_numpy(sample.crowd) for sample in samples],
        image_sizes=sizes.tolist(),
        image_ids=image_ids,
        keys=[key for _, _, key in items],
    )
    damaged = tuple(line for sample, _, _ in items for line in sample.damaged)
    return Batch(images, sizes, scales, image_ids, damaged), targets
