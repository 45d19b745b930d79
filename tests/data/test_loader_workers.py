"""A worker that dies or hangs ends the loading in time, with its cause in the last lines."""

from __future__ import annotations

import os
import re
import signal
import time

import pytest

from detector.data.loader import train_batches
from detector.data.transforms import Albumentations, Sample
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
    with pytest.raises(RuntimeError) as caught:
        load(dataset, augment)
    assert time.monotonic() - began < seconds
    assert re.search(cause, "\n".join(str(caught.value).splitlines()[-5:]))
