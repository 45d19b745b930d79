"""Histograms of losses over logits, which add up over batches and processes.

The focal paper's figure 4 sorts all samples by their loss. Sorting takes every sample at once;
counts and sums of losses per bin do not, and at the edges of the bins they give the same curve:
(1 - p_t)^gamma * -log p_t falls as u = logit(p_t) grows, so the bins from the last to the first
are the samples in order of their loss (Lin et al. 2017, figure 4).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

GAMMAS = (0, 0.5, 1, 2)

LARGEST = 40.0
"""Beyond it p_t is 0 or 1 in float64; logits further out are counted in the outermost bins."""

Floats = NDArray[np.float64]


def edges(bins: int = 1600) -> Floats:
    """(bins + 1,) of logits, evenly from -LARGEST to LARGEST."""
    return np.linspace(-LARGEST, LARGEST, bins + 1)


def focal_losses(logits: Floats, gamma: float) -> Floats:
    """(1 - p_t)^gamma * -log p_t for logits of p_t, any shape, with no overflow."""
    log_p = -np.logaddexp(0.0, -logits)
    log_rest = -np.logaddexp(0.0, logits)
    return np.exp(gamma * log_rest) * -log_p


def histogram(logits: Floats, at: Floats, gammas: Sequence[float] = GAMMAS) -> dict[str, Any]:
    """Counts and sums of losses of logits (S,) between the edges `at` (B + 1,), as plain values."""
    place = np.clip(np.searchsorted(at, logits, side="right") - 1, 0, len(at) - 2)
    size = len(at) - 1
    sums = {
        f"{gamma:g}": np.bincount(place, focal_losses(logits, gamma), minlength=size).tolist()
        for gamma in gammas
    }
    counts = np.bincount(place, minlength=size).tolist()
    return {"edges": at.tolist(), "counts": counts, "losses": sums}


def added(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """The histogram of the samples of both, between the same edges."""
    losses = {
        gamma: np.add(values, b["losses"][gamma]).tolist() for gamma, values in a["losses"].items()
    }
    counts = np.add(a["counts"], b["counts"]).tolist()
    return {"edges": a["edges"], "counts": counts, "losses": losses}


def summed(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The histogram of the samples of all, at least one."""
    return functools.reduce(added, parts)


def curve(part: dict[str, Any], gamma: str) -> tuple[Floats, Floats]:
    """Shares (B + 1,) of the samples, least loss first, and of the sum of their losses.

    Where nothing was counted, or no loss is left, the shares are 0.
    """
    counts = np.asarray(part["counts"], np.float64)[::-1]
    losses = np.asarray(part["losses"][gamma], np.float64)[::-1]
    return _shares(counts), _shares(losses)


def _shares(values: Floats) -> Floats:
    sums = np.concatenate([[0.0], values.cumsum()])
    return sums / sums[-1] if sums[-1] > 0 else sums
