"""Which images make up a step, and the keys of their random draws: pure functions.

So a run that was stopped goes on in the middle of an epoch without any saved state, and the number
of processes changes nothing.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def step_samples(seed: int, step: int, batch_size: int, num_images: int) -> list[tuple[int, int]]:
    """(epoch, image index) of each of the `batch_size` images of an optimizer step.

    The epochs follow one another without a gap: a step may take the last images of one and the
    first of the next, and each epoch has every image once.
    """
    first = step * batch_size
    positions = [divmod(p, num_images) for p in range(first, first + batch_size)]
    return [(epoch, int(permutation(seed, epoch, num_images)[i])) for epoch, i in positions]


@lru_cache(maxsize=2)
def permutation(seed: int, epoch: int, num_images: int) -> NDArray[np.int64]:
    """(num_images,) the order of an epoch. Two are kept, for the step that spans two epochs."""
    order = np.random.Generator(np.random.PCG64(_sequence(seed, epoch))).permutation(num_images)
    order.setflags(write=False)
    return order


def sample_key(seed: int, epoch: int, index: int) -> int:
    """The seed in [0, 2^63) of all random draws of an image in an epoch."""
    return int(_sequence(seed, epoch, index).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _sequence(*words: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(words)
