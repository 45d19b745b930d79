"""Whether a score is what it promises: measures of calibration with their conventions.

Every measure compares scores with targets of the same detections: whether one is a true positive,
or its IoU. Binned ones add up the gaps |sum of scores - sum of targets| over bins; see `MEASURES`
for which. Two papers' numbers of one name differ by more than most methods do, since bins, edges,
IoU and matching differ: each number goes with its convention in words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from detector.analysis import bootstrap
from detector.analysis.bootstrap import Statistic
from detector.analysis.matching import Outcomes

EPSILON = 1e-12
"""Scores are kept this far from 0 and 1 where their logarithm is taken."""

MATCHED = "COCO greedy matching per class at IoU {tau:g}, crowds left out"
TOUCHED = "COCO greedy matching per class at IoU > 0 (strict), crowds left out"


@dataclass(frozen=True)
class Definition:
    """A measure: which IoU it matches at, and how it becomes a `Statistic`."""

    name: str
    tau: float
    convention: str
    statistic: Callable[[Outcomes], Statistic]


@dataclass(frozen=True)
class Measure:
    """A number with its interval and convention; None where there is nothing to measure.

    floor: what 95 % of perfectly calibrated sets with this noise stay below, None for measures
    that noise does not raise.
    """

    value: float | None
    low: float | None
    high: float | None
    floor: float | None
    detections: int
    convention: str


def equal_width(number: int) -> np.ndarray:
    """(number + 1,) edges over [0, 1], each the double nearest to k / number.

    `linspace` gives 0.30000000000000004 for 3 / 10, and a score of 0.3 would not lie on its edge.
    """
    return np.arange(number + 1) / number


def equal_mass(scores: np.ndarray, number: int) -> np.ndarray:
    """(number + 1,) edges that give each bin the same share of scores (S,).

    Equal scores stay together, so bins may differ in size and some be empty. From 0 to 1.
    """
    if not len(scores):
        return equal_width(number)
    ordered = np.sort(scores)
    last = np.ceil(np.arange(1, number) * len(scores) / number).astype(int) - 1
    return np.concatenate([[0.0], ordered[np.maximum(last, 0)], [1.0]])


def bins(scores: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """(S,) index of the bin (low, high] of each score in [0, 1]; 0 is in the first one."""
    return np.searchsorted(edges[1:-1], scores, side="left")


def binned(
    found: Outcomes, targets: np.ndarray, edges: np.ndarray, *, per_class: bool
) -> Statistic:
    """Mean over groups (the classes, or one) of sum over bins |sum of score - target| / detections.

    A group without detections has no value and is left out of the mean; one whose gaps are all 0
    counts as 0.
    """
    groups = found.labels if per_class else np.zeros(len(found), dtype=int)
    num_groups = len(found.classes) if per_class else 1
    num_bins = len(edges) - 1
    cells = groups * num_bins + bins(found.scores, edges)
    gaps = _sums(found, cells, found.scores - targets, num_groups * num_bins)
    counts = _sums(found, groups, np.ones(len(found)), num_groups)

    def split(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return sums[:, :-num_groups].reshape(-1, num_groups, num_bins), sums[:, -num_groups:]

    def value(sums: np.ndarray) -> np.ndarray:
        gap, count = split(sums)
        return _mean_of_ratios(np.abs(gap).sum(axis=2), count)

    def noise(sums: np.ndarray, total: np.ndarray) -> np.ndarray:
        gap, count = split(sums)
        # How far the draws scatter about the set is how far the set scatters about the truth.
        shift = gap - split(total[None])[0]
        return _mean_of_ratios(np.abs(shift).sum(axis=2), count)

    return Statistic(_joined(gaps, counts), value, noise)


def averaged(found: Outcomes, losses: np.ndarray, *, per_class: bool) -> Statistic:
    """Mean over groups (the classes, or one) of the mean of losses (S,)."""
    groups = found.labels if per_class else np.zeros(len(found), dtype=int)
    number = len(found.classes) if per_class else 1
    totals = _sums(found, groups, losses, number)
    counts = _sums(found, groups, np.ones(len(found)), number)

    def value(sums: np.ndarray) -> np.ndarray:
        return _mean_of_ratios(sums[:, :number], sums[:, number:])

    return Statistic(_joined(totals, counts), value)


def _sums(
    found: Outcomes, columns: np.ndarray, values: np.ndarray, number: int
) -> sparse.csr_array:
    return bootstrap.per_image(found.images, columns, values, (found.num_images, number))


def _joined(*tables: sparse.csr_array) -> sparse.csr_array:
    return sparse.csr_array(sparse.hstack(tables))


def _mean_of_ratios(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(R,) mean over the groups with a count of sums (R, G) / counts (R, G); nan without any."""
    there = counts > 0
    ratios = np.divide(sums, counts, out=np.zeros_like(sums), where=there)
    number = there.sum(axis=1)
    return np.divide(ratios.sum(axis=1), number, out=np.full(len(sums), np.nan), where=number > 0)


def log_loss(scores: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """(S,) negative log-likelihood of being a true positive, scores kept off 0 and 1."""
    p = np.clip(scores, EPSILON, 1 - EPSILON)
    return -np.where(hits, np.log(p), np.log1p(-p))


MEASURES = (
    Definition(
        "D-ECE",
        0.5,
        "Kueppers et al. 2020: all classes pooled, 10 equal bins (low, high] over [0, 1], "
        f"|precision - mean score|; {MATCHED.format(tau=0.5)}",
        lambda found: binned(found, found.hits, equal_width(10), per_class=False),
    ),
    Definition(
        "D-ECE equal mass",
        0.5,
        f"as D-ECE with 10 bins of equal mass, equal scores together; {MATCHED.format(tau=0.5)}",
        lambda found: binned(found, found.hits, equal_mass(found.scores, 10), per_class=False),
    ),
    Definition(
        "LaECE",
        0.1,
        "Oksuz et al. 2023: mean over classes with detections, 25 equal bins (low, high] over "
        "[0, 1], |mean score - precision x mean IoU of true positives|; "
        f"{MATCHED.format(tau=0.1)}",
        lambda found: binned(found, found.ious, equal_width(25), per_class=True),
    ),
    Definition(
        "LaECE_0",
        0.0,
        "Kuzucu et al. 2024: mean over classes with detections, 25 equal bins (low, high] over "
        f"[0, 1], |mean score - mean IoU|, unmatched 0; {TOUCHED}",
        lambda found: binned(found, found.ious, equal_width(25), per_class=True),
    ),
    Definition(
        "LaACE_0",
        0.0,
        "Kuzucu et al. 2024: mean over classes with detections of mean |score - IoU|, unmatched "
        f"0; {TOUCHED}",
        lambda found: averaged(found, np.abs(found.scores - found.ious), per_class=True),
    ),
    Definition(
        "Brier",
        0.5,
        f"mean (score - true positive)^2, all classes pooled; {MATCHED.format(tau=0.5)}",
        lambda found: averaged(found, (found.scores - found.hits) ** 2, per_class=False),
    ),
    Definition(
        "NLL",
        0.5,
        "mean negative log-likelihood (nats) of true positive, scores kept within "
        f"[{EPSILON:g}, 1 - {EPSILON:g}], all classes pooled; {MATCHED.format(tau=0.5)}",
        lambda found: averaged(found, log_loss(found.scores, found.hits), per_class=False),
    ),
    Definition(
        "MSE to IoU",
        0.0,
        f"mean (score - IoU)^2, unmatched 0, all classes pooled; {TOUCHED}",
        lambda found: averaged(found, (found.scores - found.ious) ** 2, per_class=False),
    ),
)

TAUS = tuple(sorted({definition.tau for definition in MEASURES}))


def measure(found: dict[float, Outcomes], *, draws: int = 0, seed: int = 0) -> dict[str, Measure]:
    """Every measure of `MEASURES`; found: outcomes at each IoU of `TAUS`."""
    return measure_mean([found], draws=draws, seed=seed)


def measure_mean(
    sets: Sequence[dict[float, Outcomes]], *, draws: int = 0, seed: int = 0
) -> dict[str, Measure]:
    """The mean of every measure over sets of detections on the same images; detections: of all."""
    statistics = _means(sets)
    num_images = next(iter(sets[0].values())).num_images
    spans = bootstrap.intervals(statistics, num_images, draws=draws, seed=seed)
    return {
        m.name: Measure(
            value=statistics[m.name].of_all(),
            low=spans[m.name].low,
            high=spans[m.name].high,
            floor=spans[m.name].floor,
            detections=sum(len(found[m.tau]) for found in sets),
            convention=m.convention,
        )
        for m in MEASURES
    }


@dataclass(frozen=True)
class Change:
    """What a measure changes by, after minus before, with its interval; None where not defined."""

    value: float | None
    low: float | None
    high: float | None


def changes(
    before: Sequence[dict[float, Outcomes]],
    after: Sequence[dict[float, Outcomes]],
    *,
    draws: int,
    seed: int,
) -> dict[str, Change]:
    """By how much the mean of every measure differs between sets of the same images.

    Both take the same images in a draw, so that what makes an image hard for both cancels out.
    """
    first, second = _means(before), _means(after)
    statistics = {name: bootstrap.difference(second[name], first[name]) for name in first}
    num_images = next(iter(before[0].values())).num_images
    spans = bootstrap.intervals(statistics, num_images, draws=draws, seed=seed)
    return {
        name: Change(statistic.of_all(), spans[name].low, spans[name].high)
        for name, statistic in statistics.items()
    }


def _means(sets: Sequence[dict[float, Outcomes]]) -> dict[str, Statistic]:
    return {
        m.name: bootstrap.mean_of([m.statistic(found[m.tau]) for found in sets]) for m in MEASURES
    }
