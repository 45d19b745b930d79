"""Differences between losses with their uncertainty.

Losses are compared in pairs of runs with one seed and the same val images, so what both have in
common cancels. What another seed and other images would change is found by drawing both anew, seeds
and images crossed: Owen 2007, "The pigeonhole bootstrap", arXiv 0712.1111, where it is shown to
err on the side of too wide. Few seeds spread too little: the variance of n drawn values is
(n - 1) / n of what it should be, so the standard error is widened by that, and the interval takes
the quantile of Student's t with n - 1 degrees (Hesterberg 2015, arXiv 1411.5279, section 4.4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from scipy.special import stdtrit

from detector.analysis import bootstrap
from detector.laboratory.compare.resampling import Resampled

FEWEST = 5
"""Seeds from which on an interval is given; below, the range of the seeds and nothing more."""

LEVEL = 0.95

MEANS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "seconds", "images_per_second", "memory_gb")

Row = dict[str, Any]


def comparisons(
    runs: Sequence[Row],
    resampled: Mapping[tuple[str, int], Resampled],
    losses: Sequence[str],
    *,
    draws: int,
    seed: int = 0,
    metric: str = "AP",
) -> list[Row]:
    """The difference in a metric of every two losses, over the seeds that both have finished."""
    aps = {(run["loss"], run["seed"]): run[metric] for run in runs if run["state"] == "done"}
    drawn = drawn_aps(resampled, draws=draws, seed=seed) if _needs_draws(aps, losses) else {}
    result = []
    for one, other in combinations(losses, 2):
        seeds = [s for loss, s in aps if loss == one and (other, s) in aps]
        seeds = [s for s in seeds if aps[one, s] is not None and aps[other, s] is not None]
        differences = [aps[one, s] - aps[other, s] for s in seeds]
        pairs = np.array([drawn[one, s] - drawn[other, s] for s in seeds]) if drawn else None
        result.append(
            {
                "loss": one,
                "against": other,
                "metric": metric,
                "seeds": seeds,
                "differences": differences,
                **spread(differences, pairs, seed=seed),
            }
        )
    return result


def _needs_draws(aps: Mapping[tuple[str, int], Any], losses: Sequence[str]) -> bool:
    seeds = {s for _, s in aps}
    return len(losses) > 1 and len(seeds) >= FEWEST


def drawn_aps(
    resampled: Mapping[tuple[str, int], Resampled], *, draws: int, seed: int
) -> dict[tuple[str, int], np.ndarray]:
    """(R,) AP of each run on images drawn anew, the same ones for all runs."""
    if not resampled:
        return {}
    num_images = next(iter(resampled.values())).num_images
    portions = list(bootstrap.weights(num_images, draws, seed))
    return {
        run: np.concatenate([part.ap(weights) for weights in portions] or [np.zeros(0)])
        for run, part in resampled.items()
    }


def spread(
    differences: Sequence[float], drawn: np.ndarray | None, *, seed: int = 0
) -> dict[str, Any]:
    """Mean difference with what is known of its uncertainty.

    differences (n,): by seed. drawn (n, R): the same on images drawn anew. kind: "interval" from
    `FEWEST` seeds on, "range" of the seeds below, "none" without a seed that both have. low, high:
    ends of it. verdict: "above", "below" or "no difference shown": of an interval whether it has 0
    inside, of a range whether all seeds agree.
    """
    if not differences:
        return {"kind": "none", "mean": None, "low": None, "high": None, "verdict": None}
    mean = float(np.mean(differences))
    low, high, kind = float(min(differences)), float(max(differences)), "range"
    if len(differences) >= FEWEST and drawn is not None and drawn.shape[1] > 1:
        half = half_width(drawn, seed=seed)
        low, high, kind = mean - half, mean + half, "interval"
    verdict = "above" if low > 0 else "below" if high < 0 else "no difference shown"
    return {"kind": kind, "mean": mean, "low": low, "high": high, "verdict": verdict}


def half_width(drawn: np.ndarray, *, seed: int = 0, level: float = LEVEL) -> float:
    """Half the width of the interval of a mean over n seeds; drawn (n, R), images drawn anew.

    Draws in which no object came up are left out.
    """
    number = len(drawn)
    drawn = drawn[:, ~np.isnan(drawn).any(axis=0)]
    generator = np.random.default_rng([seed, 1])  # a stream apart from that of the images
    counts = generator.multinomial(number, np.full(number, 1 / number), size=drawn.shape[1])
    means = (counts.T * drawn).sum(axis=0) / number
    error = np.std(means, ddof=1) * np.sqrt(number / (number - 1))
    return float(stdtrit(number - 1, (1 + level) / 2) * error)


def summary(runs: Sequence[Row], losses: Sequence[str], metric: str = "AP") -> list[Row]:
    """Means over the finished seeds of each loss, with the least and the greatest AP, and those of
    the metric where it is another."""
    rows = []
    for loss in losses:
        done = [run for run in runs if run["loss"] == loss and run["state"] == "done"]
        names = dict.fromkeys((*MEANS, metric))
        rows.append(
            {
                "loss": loss,
                "seeds_done": len(done),
                **{name: mean_of([run[name] for run in done]) for name in names},
                **_range(done, "AP"),
                **_range(done, metric),
                "optimal_lrp": mean_of([run["optimal_lrp"]["value"] for run in done]),
                "calibration": _calibration(done),
                "per_class": _per_class(done),
            }
        )
    return rows


def _range(done: Sequence[Row], name: str) -> dict[str, float | None]:
    known = [run[name] for run in done if run[name] is not None]
    return {f"{name}_low": min(known, default=None), f"{name}_high": max(known, default=None)}


def mean_of(values: Sequence[float | None]) -> float | None:
    """Of the numbers there are; None without any."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _calibration(done: Sequence[Row]) -> dict[str, dict[str, float | None]]:
    kinds = done[0]["calibration"] if done else {}
    result = {}
    for kind in kinds:
        tables = [run["calibration"][kind] for run in done if run["calibration"][kind]]
        names = tables[0] if tables else {}
        result[kind] = {name: mean_of([table[name] for table in tables]) for name in names}
    return result


def _per_class(done: Sequence[Row]) -> dict[str, float | None]:
    names = done[0]["per_class"] if done else {}
    return {name: mean_of([run["per_class"][name] for run in done]) for name in names}
