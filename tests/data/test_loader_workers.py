"""A worker that dies or hangs ends the loading in time, with its cause in the last lines."""

from __future__ import annotations

import multiprocessing
import multiprocessing.process
import os
import re
import signal
import time

import numpy as np
import pytest

from detector.data.loader import train_batches
from detector.data.sampler import step_samples
from detector.data.transforms import Albumentations, Sample
from detector.data.workers import in_words
from detector.errors import LoaderError
from tests.data.files import ArrayDataset, make_dataset

SIZES, COUNTS = [(16, 16)] * 4, [1] * 4
TIMEOUT = 3.0


class Killed(Albumentations):
    """As if the system had run out of memory."""

    def train(self, sample: Sample, key: int) -> Sample:
        os.kill(os.getpid(), signal.SIGKILL)
        return sample


class Hung(Albumentations):
    """As if a disk had gone away."""

    def train(self, sample: Sample, key: int) -> Sample:
        time.sleep(3600)
        return sample


def load(dataset: ArrayDataset, augment: Albumentations) -> None:
    options = {"seed": 1, "batch_size": 2, "micro_batch": 2, "stop_step": 2}
    options |= {"num_workers": 1, "timeout": TIMEOUT}
    for _ in train_batches(dataset, augment, **options):  # type: ignore[arg-type]
        pass


@pytest.mark.parametrize(
    ("augment", "cause", "seconds"),
    # What is allowed above the time of the fault is the start and the end of a process. torch names
    # the signal only where it hears of it before it misses the worker.
    [
        (Killed(), "killed by signal: Killed|exited unexpectedly", TIMEOUT),
        (Hung(), "timed out after 3", TIMEOUT + 2),
    ],
    ids=["killed", "hung"],
)
def test_a_worker_that_is_no_more_is_found_in_time(
    augment: Albumentations, cause: str, seconds: float
) -> None:
    dataset = make_dataset(SIZES, COUNTS)
    began = time.monotonic()
    with pytest.raises(LoaderError) as caught:
        load(dataset, augment)
    assert time.monotonic() - began < seconds
    (line,) = str(caught.value).splitlines()
    assert re.search(cause, line)
    # Two batches of two images are on their way to a worker; the one that is late is the first.
    order = [i for step in range(2) for i in step_samples(1, step, 2, len(SIZES))]
    ids = [int(dataset.annotations.image_ids[index]) for _, index in order]
    wanted = ids[:2] if isinstance(augment, Hung) else ids
    assert f"loading image ids {', '.join(map(str, wanted))}; " in line


def test_a_worker_may_die_while_the_main_process_does_other_things() -> None:
    # torch raises its error at whatever line the main process is at.
    dataset = make_dataset(SIZES, COUNTS)
    options = {"seed": 1, "batch_size": 2, "micro_batch": 2, "stop_step": 2, "num_workers": 1}
    batches = train_batches(dataset, Albumentations(), **options)  # type: ignore[arg-type]
    before = multiprocessing.active_children()  # the one of the test above that hangs
    next(batches)
    (worker,) = set(multiprocessing.active_children()) - set(before)
    with pytest.raises(LoaderError, match="killed by signal: Killed"), batches.explained():
        kill_and_wait(worker)


def kill_and_wait(worker: multiprocessing.process.BaseProcess) -> None:
    worker.kill()
    for _ in range(6000):
        time.sleep(0.01)


def test_many_images_are_counted_and_shared_memory_is_named() -> None:
    ids = np.arange(100) + 1000
    groups = [[(0, i) for i in range(8 * g, 8 * g + 8)] for g in range(3)]
    killed = "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that"
    line = in_words(f"{killed} dataloader's workers are out of shared memory.", ids, groups)
    assert "loading image ids 1000, 1001," in line
    assert "1015 and 8 more; " in line
    assert "--ipc=host" in line
    assert "MB free of" in line
