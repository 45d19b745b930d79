"""Which images make up a step, and the keys of their random draws: pure functions.

So a run that was stopped goes on in the middle of an epoch without any saved state, and the number
of processes changes nothing.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Draw(NamedTuple):
    """An image of a step.

    image: its index. repeat: how often the epoch has had it before. share: of the run that is done,
    0 to 1.
    """

    epoch: int
    image: int
    repeat: int = 0
    share: float = 0.0


class Order:
    """The images of a run, step by step.

    repeats: (I,) how often each image comes in an epoch on average, see `Sampler`; None: once.
    An epoch has round(sum of repeats) places, so that where a step begins is plain arithmetic.
    """

    def __init__(
        self, seed: int, num_images: int, repeats: NDArray[np.float64] | None = None
    ) -> None:
        self.seed, self.num_images, self.repeats = seed, num_images, repeats
        self.length = num_images if repeats is None else max(1, round(float(repeats.sum())))
        self._epochs: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}

    def step(self, step: int, batch_size: int, share: float = 0.0) -> list[Draw]:
        """The `batch_size` images of an optimizer step. share: of the run that is done."""
        if self.repeats is None:
            images = step_samples(self.seed, step, batch_size, self.num_images)
            return [Draw(epoch, index, share=share) for epoch, index in images]
        first = step * batch_size
        draws = []
        for epoch, i in (divmod(p, self.length) for p in range(first, first + batch_size)):
            images, repeat = self._epoch(epoch)
            draws.append(Draw(epoch, int(images[i]), int(repeat[i]), share))
        return draws

    def _epoch(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The (L,) images of an epoch and how often each came before; two epochs are kept."""
        if epoch not in self._epochs:
            assert self.repeats is not None
            if len(self._epochs) > 1:
                del self._epochs[min(self._epochs)]
            self._epochs[epoch] = repeated(self.seed, epoch, self.repeats, self.length)
        return self._epochs[epoch]


def repeated(
    seed: int, epoch: int, repeats: NDArray[np.float64], length: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(L,) images of an epoch in their order, and (L,) how often each came in it before.

    An image comes floor or ceil of `repeats` times, scaled to the length, and that number of times
    on average over the epochs: a grid of step 1 with a random begin is laid over the images, which
    are set side by side in a random order (systematic sampling).
    """
    draws = np.random.Generator(np.random.PCG64(_sequence(seed, epoch, 0, length)))
    order = draws.permutation(len(repeats))
    ends = np.cumsum(repeats[order])
    ends *= length / ends[-1]
    ends[-1] = length  # which rounding may have missed
    counts = np.diff(np.floor(ends + draws.random()).astype(np.int64), prepend=0)
    images = draws.permutation(np.repeat(order, counts))
    by_image = np.argsort(images, kind="stable")
    firsts = np.searchsorted(images[by_image], images[by_image])
    repeat = np.empty(length, np.int64)
    repeat[by_image] = np.arange(length) - firsts
    return images, repeat


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


def sample_key(seed: int, epoch: int, index: int, repeat: int = 0) -> int:
    """The seed in [0, 2^63) of all random draws of an image in an epoch.

    repeat: how often the epoch has had it before; each time it is drawn anew.
    """
    words = (seed, epoch, index, repeat) if repeat else (seed, epoch, index)
    return int(_sequence(*words).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _sequence(*words: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(words)
