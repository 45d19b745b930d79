"""Intervals of measures by drawing whole images anew.

Detections of an image depend on one another, so images are drawn and not detections (Efron and
Tibshirani 1993, chapter 8: the unit that is independent). A measure is a function of sums over
images; a draw weights each image by how often it was drawn, so that a thousand draws are one sparse
product and nothing is matched again. What was chosen on all images (edges of bins of equal mass,
thresholds) stays as it is over the draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

PORTION = 50
"""Draws at a time: bounds the memory at PORTION x (images + columns) numbers."""


@dataclass(frozen=True)
class Statistic:
    """A measure as a function of sums.

    sums (I, C) sparse: what each image adds to each of C columns. value: (R, C) sums over the
    images of R draws to R numbers, nan where it is not defined. noise: (R, C) sums and the (C,)
    sums of all images to the value that R draws would show if the measure were 0; None for a
    measure that noise does not raise. is_signed: may be below 0.
    """

    sums: sparse.csr_array
    value: Callable[[np.ndarray], np.ndarray]
    noise: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    is_signed: bool = False

    def total(self) -> np.ndarray:
        """(C,) sums over all images."""
        return np.asarray(self.sums.sum(axis=0), dtype=np.float64)

    def of_all(self) -> float | None:
        """The measure of the set as it is, None where it is not defined."""
        return known(self.value(self.total()[None])[0])


def mean_of(statistics: Sequence[Statistic]) -> Statistic:
    """The mean of a measure over several sets of detections on the same images.

    A draw takes the same images in all of them: its interval is that of other images, not of other
    sets.
    """
    widths = [len(statistic.total()) for statistic in statistics]
    cuts = np.cumsum(widths)[:-1]
    noises = [statistic.noise for statistic in statistics]

    def value(sums: np.ndarray) -> np.ndarray:
        parts = zip(statistics, np.split(sums, cuts, axis=1), strict=True)
        return np.mean([statistic.value(part) for statistic, part in parts], axis=0)

    def noise(sums: np.ndarray, total: np.ndarray) -> np.ndarray:
        parts = zip(noises, np.split(sums, cuts, axis=1), np.split(total, cuts), strict=True)
        return np.mean([own(part, whole) for own, part, whole in parts if own], axis=0)

    joined = sparse.csr_array(sparse.hstack([statistic.sums for statistic in statistics]))
    return Statistic(joined, value, noise if all(noises) else None)


def difference(after: Statistic, before: Statistic) -> Statistic:
    """What a measure changes by from one set of detections to another on the same images."""
    cut = [len(before.total())]

    def value(sums: np.ndarray) -> np.ndarray:
        first, second = np.split(sums, cut, axis=1)
        return after.value(second) - before.value(first)

    joined = sparse.csr_array(sparse.hstack([before.sums, after.sums]))
    return Statistic(joined, value, is_signed=True)


@dataclass(frozen=True)
class Interval:
    """low and high enclose the measure; floor: what noise alone reaches, None where it adds none.

    All None where the measure is not defined or no draws were made.
    """

    low: float | None = None
    high: float | None = None
    floor: float | None = None


def known(value: float) -> float | None:
    """A float for JSON, None for nan."""
    return None if np.isnan(value) else float(value)


def per_image(
    images: np.ndarray, columns: np.ndarray, values: np.ndarray, shape: tuple[int, int]
) -> sparse.csr_array:
    """(I, C) sums of values (S,) that fall on images (S,) and columns (S,)."""
    table = sparse.coo_array((values.astype(np.float64), (images, columns)), shape=shape)
    return sparse.csr_array(table)  # adds up what falls on one cell


def weights(num_images: int, draws: int, seed: int) -> Iterator[np.ndarray]:
    """(R, I) how often each image was drawn, in portions of R draws, the same for a seed."""
    generator = np.random.default_rng(seed)
    chances = np.full(num_images, 1 / num_images)
    for start in range(0, draws, PORTION):
        size = min(PORTION, draws - start)
        yield generator.multinomial(num_images, chances, size=size).astype(np.float64)


def intervals(
    statistics: Mapping[str, Statistic],
    num_images: int,
    *,
    draws: int,
    seed: int,
    level: float = 0.95,
) -> dict[str, Interval]:
    """The interval of each measure, all from the same draws; empty ones without draws or images.

    The interval is the reflected one, 2 value - upper quantile .. 2 value - lower quantile (Davison
    and Hinkley 1997, section 5.2): a sum of absolute gaps grows with noise, in the draws once
    more than in the set itself, so their plain quantiles lie too high. For the same reason it
    begins at 0 where noise alone, at `level`, reaches the value (`floor`).
    """
    if not draws or not num_images:
        return {name: Interval() for name in statistics}
    totals = {name: statistic.total() for name, statistic in statistics.items()}
    values: dict[str, list[np.ndarray]] = {name: [] for name in statistics}
    noises: dict[str, list[np.ndarray]] = {name: [] for name in statistics}
    for drawn in weights(num_images, draws, seed):
        for name, statistic in statistics.items():
            sums = np.asarray(drawn @ statistic.sums)
            values[name].append(statistic.value(sums))
            if statistic.noise is not None:
                noises[name].append(statistic.noise(sums, totals[name]))
    return {
        name: _interval(
            statistic.of_all(),
            np.concatenate(values[name]),
            np.concatenate(noises[name]) if noises[name] else None,
            level,
            -np.inf if statistic.is_signed else 0.0,
        )
        for name, statistic in statistics.items()
    }


def _interval(
    value: float | None,
    drawn: np.ndarray,
    noise: np.ndarray | None,
    level: float,
    least: float,
) -> Interval:
    drawn = drawn[~np.isnan(drawn)]
    if value is None or not drawn.size:
        return Interval()
    tail = (1 - level) / 2
    upper, lower = np.quantile(drawn, [1 - tail, tail])
    low, high = max(least, 2 * value - upper), max(least, 2 * value - lower)
    if noise is None:
        return Interval(low, high)
    noise = noise[~np.isnan(noise)]
    floor = float(np.quantile(noise, level)) if noise.size else None
    if floor is not None and value <= floor:
        # Noise explains the value: 0 cannot be ruled out, nor the value itself.
        return Interval(0.0, max(high, value), floor)
    return Interval(low, high, floor)
