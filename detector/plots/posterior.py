"""What a score means: the best score under each loss against the true posterior probability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from detector.errors import ConfigError
from detector.plots.curves import MARKS, Subject
from detector.plots.style import COLORS, FAINT, INK, grid, spread

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NEARLY_ONE = 1 - 1e-6
"""Scores and posteriors from here on are cut: 0 and 1 themselves are limits."""


def posterior(one: Subject, scores: Tensor) -> Tensor | None:
    """The posterior of scores (P,) under a loss; None where there is no closed form."""
    return one.loss.link_inverse(scores.double())


def best_score(one: Subject, wanted: float) -> float:
    """The score whose posterior is the one wanted, by bisection: a posterior rises with its score.

    Raises ConfigError where the loss has no closed form.
    """
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        found = posterior(one, torch.tensor([middle]))
        if found is None:
            raise ConfigError(f"loss={one.name}: a score has no closed form as a posterior")
        low, high = (middle, high) if found.item() < wanted else (low, middle)
    return (low + high) / 2


def draw_posterior(subjects: Sequence[Subject], *, width: float, points: int) -> Figure:
    """Best score against posterior for the losses that know it, with the scores at `MARKS`.

    Raises ConfigError where none of them does.
    """
    scores = torch.linspace(1 - NEARLY_ONE, NEARLY_ONE, points, dtype=torch.float64)
    known = [(one, eta) for one in subjects if (eta := posterior(one, scores)) is not None]
    if not known:
        names = ", ".join(one.name for one in subjects) or "none"
        raise ConfigError(f"losses: {names} given, one with a posterior in closed form is needed")
    figure, (axis,) = grid(1, width, 0.8 * width)
    axis.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, zorder=1)
    for mark in MARKS:
        axis.axvline(mark, color=FAINT, linewidth=0.5, linestyle=(0, (1, 2)), zorder=1)
    ends = [best_score(one, 0.97) for one, _ in known]
    places = spread(ends, [0.055 * (1 + one.label.count("\n")) for one, _ in known])
    for i, ((one, eta), place) in enumerate(zip(known, places, strict=True)):
        color = COLORS[i % len(COLORS)]
        axis.plot(eta, scores, color=color)
        axis.annotate(
            one.label,
            (1, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=color,
            annotation_clip=False,
        )
        for mark in MARKS:
            score = best_score(one, mark)
            axis.plot([mark], [score], "o", color=color, markersize=3.2, zorder=4)
            if abs(score - mark) > 0.02:
                below = score < mark
                axis.annotate(
                    f"{score:.2f}",
                    (mark, score),
                    xytext=(4, -4) if below else (-4, 4),
                    textcoords="offset points",
                    ha="left" if below else "right",
                    va="top" if below else "bottom",
                    fontsize=6.5,
                    color=color,
                )
    axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="true posterior probability", ylabel="best score")
    axis.text(0.05, 0.93, "overconfident", color=INK, fontsize=6.5)
    axis.text(0.6, 0.05, "underconfident", color=INK, fontsize=6.5)
    return figure
