"""What a score means: the best score under each loss against the true posterior probability."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from detector.errors import ConfigError
from detector.plots.losses.curves import MARKS, Subject
from detector.plots.style import COLORS, FAINT, PAPER, grid, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEARLY_ONE = 1 - 1e-6
"""Scores and posteriors from here on are cut: 0 and 1 themselves are limits."""


NEAR_END = 0.97
"""Posterior at which a curve's height says where its name goes; at 1 all are 1."""


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
    for (_, eta), color in zip(known, cycle(COLORS), strict=False):
        axis.plot(eta, scores, color=color)
    label(axis, [one for one, _ in known])
    axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="true posterior probability", ylabel="best score")
    axis.text(0.04, 0.94, "overconfident", fontsize=6.5, va="center")
    axis.text(0.88, 0.04, "underconfident", fontsize=6.5, va="center", ha="right")
    return figure


def label(axis: Axes, subjects: Sequence[Subject]) -> None:
    """Names beside the curves' ends; at `MARKS` a dot, and the score where it is not the posterior.

    Numbers of scores above the posterior lie left of the mark, of those below it right.
    """
    colors = list(islice(cycle(COLORS), len(subjects)))
    names = [textwrap.fill(one.label, 12) for one in subjects]
    ends = [best_score(one, NEAR_END) for one in subjects]
    places = spread(ends, [0.06 * (1 + name.count("\n")) for name in names])
    write: dict[str, Any] = {"textcoords": "offset points", "va": "center"}
    for name, place, color in zip(names, places, colors, strict=True):
        axis.annotate(name, (1, place), xytext=(4, 0), color=color, annotation_clip=False, **write)
    for mark in MARKS:
        scores = [best_score(one, mark) for one in subjects]
        axis.scatter([mark] * len(scores), scores, s=10, c=colors, zorder=4)
        for side in (-1, 1):
            chosen = [i for i, s in enumerate(scores) if side * (mark - s) > 0.02]
            wanted = [scores[i] - 0.03 * side for i in chosen]
            for i, place in zip(chosen, spread(wanted, [0.05] * len(chosen)), strict=True):
                axis.annotate(
                    f"{scores[i]:.2f}",
                    (mark, place),
                    xytext=(4 * side, 0),
                    ha="left" if side > 0 else "right",
                    fontsize=6.5,
                    color=colors[i],
                    bbox=PAPER,
                    **write,
                )
