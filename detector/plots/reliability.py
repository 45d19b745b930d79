"""Reliability diagrams: how often detections of about one score are right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from detector.plots.style import COLORS, FAINT, PAGE, grid, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 0.06
"""Share of a bin's width that stays free between two bars."""


def draw_reliability(diagrams: Mapping[str, Mapping[str, Any]], *, width: float = PAGE) -> Figure:
    """A panel for each diagram: bars of the share that is right in each bin, with their counts.

    diagrams: by title; `edges` (B + 1), `counts` (B), `scores` and `targets` (B), their means or
    None in an empty bin. A bar below the dot of its mean score is overconfident.
    """
    figure, axes = grid(len(diagrams), width, 2.6)
    for axis, (title, diagram) in zip(axes, diagrams.items(), strict=True):
        _panel(axis, title, diagram)
    return figure


def _panel(axis: Axes, title: str, diagram: Mapping[str, Any]) -> None:
    edges, counts = diagram["edges"], diagram["counts"]
    axis.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, zorder=1)
    for i, count in enumerate(counts):
        if not count:
            continue
        left, size = edges[i], edges[i + 1] - edges[i]
        target, mean = diagram["targets"][i], diagram["scores"][i]
        space = SHOWN * size
        axis.bar(
            left + space,
            target,
            size - 2 * space,
            align="edge",
            color=COLORS[5],
            alpha=0.6,
            zorder=2,
        )
        axis.scatter([mean], [mean], s=9, color=COLORS[1], zorder=3)
        axis.plot([mean, mean], [target, mean], color=COLORS[1], linewidth=1, zorder=3)
        axis.annotate(
            f"{count:,}",
            (left + size / 2, 1.0),
            ha="center",
            va="bottom",
            fontsize=5,
            rotation=45,
            annotation_clip=False,
        )
    axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="score", ylabel="right")
    axis.set_title(f"{plain(title)} ({sum(counts):,} detections)", pad=18)
