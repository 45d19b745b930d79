"""Which images a step sees, and the seed of each image's draws: pure functions, nothing to save."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

KEY_BITS = 63


def step_samples(seed: int, step: int, batch_size: int, num_images: int) -> list[tuple[int, int]]:
    """(epoch, index) of the `batch_size` images of an optimizer step.

    Every epoch is a permutation of its own of all images; a step may span two of them.
    """
    first = step * batch_size
    places = (divmod(first + j, num_images) for j in range(batch_size))
    return [(epoch, int(_order(seed, epoch, num_images)[place])) for epoch, place in places]


def sample_key(seed: int, epoch: int, index: int) -> int:
    """The seed of the draws of image `index` in an epoch, below 2^63."""
    state = np.random.SeedSequence([seed, epoch, index]).generate_state(1, np.uint64)
    return int(state[0]) >> (64 - KEY_BITS)


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, num_images: int) -> NDArray[np.int64]:
    # The 1 keeps this stream apart from that of `sample_key`, which has three entries as well.
    return np.random.default_rng([seed, epoch, num_images, 1]).permutation(num_images)
