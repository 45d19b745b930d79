"""How much memory a run takes, and what to say when there is not enough."""

from __future__ import annotations

import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from detector.data.loader import EvaluationItems, collate
from detector.data.readers.base import Dataset
from detector.data.transforms import Augmentation
from detector.data.workers import PREFETCH, SHARED_MEMORY, shared_memory
from detector.errors import ConfigError, OutOfMemory
from detector.structures import BACKGROUND, MicroBatches

REFUSALS = ("can't allocate memory", "out of memory", "bad_alloc", "could not create a memory")
"""What torch says on a CPU, and CUDA's libraries on their own account, in a plain RuntimeError."""

ONE_VALUE = "Expected more than 1 value per channel"
"""How torch refuses to train a batch norm on one value, whose deviation is 0."""


def peak_gigabytes(device: torch.device) -> float:
    """The most memory this process has held: of the GPU, or of the machine on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no more memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    said = str(error)
    return isinstance(error, RuntimeError) and any(words in said for words in REFUSALS)


@contextmanager
def explained(step: int, micro: MicroBatches) -> Iterator[None]:
    """Turns an allocation that fails inside the block into OutOfMemory, which says what to do; and
    the refusal of a batch norm that has one value per channel into ConfigError."""
    try:
        with out_of_memory(lambda: in_words(step, micro)):
            yield
    except ValueError as error:
        if not str(error).startswith(ONE_VALUE):
            raise
        raise ConfigError(one_value_in_words(step, micro)) from error


def one_value_in_words(step: int, micro: MicroBatches) -> str:
    """What a live batch norm lacks, and the keys that give it."""
    num_images, _, height, width = micro[0][0].images.shape
    return (
        f"step {step}: a live batch norm has one value per channel, the only cell of the coarsest "
        f"map of {num_images} image of {height} x {width}; a micro_batch of 2 or more, larger "
        "images, or norm=group (backbone.norm, neck.norm, model.head.norm) is needed"
    )


@contextmanager
def out_of_memory(words: Callable[[], str]) -> Iterator[None]:
    """Turns an allocation that fails inside the block into OutOfMemory of these words."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(words()) from error


def in_words(step: int, micro: MicroBatches) -> str:
    """The largest micro-batch, its fullest image, and the key to lower."""
    batch, targets = max(micro, key=lambda pair: pair[0].images.numel())
    num_images, _, height, width = batch.images.shape
    counts = (targets.labels != BACKGROUND).sum(1).tolist()
    most = max(range(num_images), key=counts.__getitem__)
    if num_images > 1:
        key = f"micro_batch={num_images // 2} takes half the images at a time, to the same result"
    else:
        key = "a smaller augment.max_size, or a smaller backbone or model"
    return (
        f"step {step}: out of memory with {num_images} images of {height} x {width} at a time and "
        f"{sum(counts)} objects, {counts[most]} of them in image {batch.image_ids[most]}; {key}"
    )


def lacks_shared_memory(
    dataset: Dataset, augment: Augmentation, num_images: int, num_workers: int
) -> str | None:
    """A warning where the batches of the loader's workers may not find room; None where they do.

    num_images: of a batch in training and one in evaluation together, since while an evaluation
    runs, the workers of the training hold what they have ready. num_workers: of this process.
    Judged by the first image, at its size for the model.
    """
    workers = num_workers * int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if workers == 0 or not SHARED_MEMORY.is_dir():
        return None
    image = collate([EvaluationItems(dataset, augment)[0, 0]])[0].images
    needed = workers * PREFETCH * num_images * image.numel() * image.element_size()
    if needed <= shutil.disk_usage(SHARED_MEMORY).free:
        return None
    return (
        f"{workers} loader processes with {PREFETCH} batches each, in training and in evaluation, "
        f"need about {needed / 1e6:.0f} MB of shared memory, and {shared_memory()}; take a smaller "
        "loader.num_workers, or in Docker --ipc=host"
    )
