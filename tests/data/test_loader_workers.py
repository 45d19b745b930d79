"""A worker that dies or hangs ends the loading in time, with its cause in the last lines."""

from __future__ import annotations

import gc
import multiprocessing
import multiprocessing.process
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from detector.data.loader import train_batches
from detector.data.sampler import step_samples
from detector.data.transforms import Albumentations, Sample
from detector.data.workers import Batches, explained, in_words
from detector.errors import LoaderError
from tests.commands import ROOT
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
    with pytest.raises(LoaderError, match="killed by signal: Killed"), explained():
        kill_and_wait(worker)


def kill_and_wait(worker: multiprocessing.process.BaseProcess) -> None:
    worker.kill()
    for _ in range(6000):
        time.sleep(0.01)


def test_workers_end_with_the_batches_they_were_started_for() -> None:
    dataset = make_dataset(SIZES, COUNTS)
    options = {"seed": 1, "batch_size": 2, "micro_batch": 2, "stop_step": 9, "num_workers": 1}
    before = multiprocessing.active_children()
    batches = train_batches(dataset, Albumentations(), **options)  # type: ignore[arg-type]
    next(batches)
    (worker,) = set(multiprocessing.active_children()) - set(before)
    gc.disable()  # nothing refers to them in a circle, which would keep the worker for long
    try:
        del batches
    finally:
        gc.enable()
    worker.join(10)
    assert not worker.is_alive()


def test_of_several_loaders_the_images_are_those_of_the_lost_worker() -> None:
    other = make_dataset([(16, 16)] * 4, COUNTS, first_id=500)
    batches = [
        train_batches(dataset, Albumentations(), seed=1, batch_size=2, micro_batch=2, stop_step=2,
                      num_workers=1)
        for dataset in (make_dataset(SIZES, COUNTS), other)
    ]  # fmt: skip
    before = multiprocessing.active_children()
    next(batches[1])
    (worker,) = set(multiprocessing.active_children()) - set(before)
    next(batches[0])
    with pytest.raises(LoaderError, match=r"loading image ids 50\d, 50\d; "), explained(batches[0]):
        kill_and_wait(worker)


def test_the_first_error_of_torch_is_told_where_another_hides_it() -> None:
    killed = "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that"
    first = RuntimeError(f"{killed} dataloader's workers are out of shared memory.")
    with pytest.raises(LoaderError) as caught, explained():
        raise RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly") from first
    line = str(caught.value)
    assert line.startswith(killed)
    assert "MB free of" in line
    assert "--ipc=host" in line
    assert "loading image" not in line


def test_other_errors_are_left_as_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes"), explained():
        raise RuntimeError("shapes do not fit")


def test_many_images_are_counted() -> None:
    line = in_words("DataLoader worker (pid 7) is killed by ...", range(1000, 1024), is_late=False)
    assert "loading image ids 1000, 1001," in line
    assert "1015 and 8 more; processes are often killed for memory" in line


def workers_of(batches: Batches) -> list[multiprocessing.process.BaseProcess]:
    return [one for one in multiprocessing.active_children() if batches.owns({one.pid or 0})]


def test_a_worker_that_is_stopped_is_found_in_time_and_killed() -> None:
    # Its message is there, the memory that it names is not: torch waits for that without an end.
    dataset = make_dataset(SIZES, COUNTS)
    options = {"seed": 1, "batch_size": 2, "micro_batch": 2, "stop_step": 99, "num_workers": 1}
    batches = train_batches(dataset, Albumentations(), timeout=TIMEOUT, **options)  # type: ignore[arg-type]
    next(batches)
    time.sleep(0.5)  # its next batches are ready
    (worker,) = workers_of(batches)
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(LoaderError, match=r"timed out.*; loading image ids \d+, \d+; a slow disk"):
        for _ in batches:
            pass
    assert time.monotonic() - began < TIMEOUT + 2
    worker.join(5)
    assert worker.exitcode == -signal.SIGKILL


LIMITED = """
import resource, sys
from detector.data.loader import train_batches
from detector.data.transforms import Albumentations
from tests.data.files import make_dataset
dataset = make_dataset([(16, 16)] * 4, [1] * 4)
options = {"seed": 1, "batch_size": 2, "micro_batch": 2, "stop_step": 99, "num_workers": 1}
batches = train_batches(dataset, Albumentations(), timeout=100.0, **options)
kind, value = getattr(resource, sys.argv[1]), int(sys.argv[2])
resource.setrlimit(kind, (value, value))
for _ in batches:
    pass
"""
"""A process that loads under a limit of the system."""


@pytest.mark.parametrize(
    ("limit", "value", "said"),
    [
        ("RLIMIT_NOFILE", 30, "LoaderError: .*; too many open files"),
        ("RLIMIT_NOFILE", 8, "LoaderError: loader processes cannot be started: too many open"),
        # A file of one byte at most: what a full /dev/shm is, where none may be mounted.
        ("RLIMIT_FSIZE", 1, "LoaderError: .*; /dev/shm has"),
    ],
)
def test_a_batch_that_cannot_be_handed_over_is_not_waited_for(
    limit: str, value: int, said: str
) -> None:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, limit, str(value)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert time.monotonic() - began < 60  # 100 s is the timeout that it does not wait for
    assert re.search(said, done.stderr.splitlines()[-1]), done.stderr
