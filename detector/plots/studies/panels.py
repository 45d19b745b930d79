"""Small panels side by side, one for each loss of a study, with shared axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from detector.plots.studies.curves import plain_log
from detector.plots.style import COLORS, FAINT, PAGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RIGHT, WRONG = COLORS[2], COLORS[1]
FOREGROUND, BACKGROUND = COLORS[0], COLORS[1]

ACROSS = 4
"""Panels in a row."""

Row = Mapping[str, Any]


def small_multiples(
    panels: Mapping[str, Any],
    draw: Callable[[Axes, Any], None],
    *,
    x: str,
    y: str,
    across: int = ACROSS,
    panel_height: float = 1.55,
    width: float = PAGE,
) -> Figure:
    """A figure with a panel for each title; x, y: what the axes are. One legend above all."""
    from matplotlib.figure import Figure

    across = min(across, max(len(panels), 2))
    rows = -(-len(panels) // across)
    figure = Figure(figsize=(width, rows * panel_height + 0.5), layout="constrained")
    axes = figure.subplots(rows, across, squeeze=False, sharex=True, sharey=True).ravel()
    for unused in axes[len(panels) :]:
        unused.set_axis_off()
    for axis, (title, content) in zip(axes, panels.items(), strict=False):
        draw(axis, content)
        axis.set_title(title)
    for i, axis in enumerate(axes[: len(panels)]):
        # The last panels of the columns: below them there may be no other.
        axis.tick_params(labelbottom=i + across >= len(panels))
    figure.supxlabel(x, fontsize=8)
    figure.supylabel(y, fontsize=8)
    handles, labels = axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper center", frameon=False, ncols=len(labels))
    return figure


def reliability(axis: Axes, content: Row) -> None:
    """The share that is right of the detections of each bin of scores, and how many there are.

    content: edges (B + 1,), right and wrong (B,) counts, score_sums (B,).
    """
    edges = np.asarray(content["edges"])
    right, wrong = np.asarray(content["right"]), np.asarray(content["wrong"])
    counts = right + wrong
    there = counts > 0
    share = right[there] / counts[there]
    score = np.asarray(content["score_sums"])[there] / counts[there]
    axis.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8)
    axis.bar(edges[:-1][there], share, np.diff(edges)[there] * 0.92, align="edge",
             color=COLORS[5], alpha=0.65, label="share that is right")  # fmt: skip
    axis.vlines(score, np.minimum(share, score), np.maximum(share, score), color=WRONG, linewidth=1)
    sizes = 3 + 22 * counts[there] / counts.max()
    axis.scatter(score, score, s=sizes, color=WRONG, linewidths=0, zorder=3, label="mean score")
    axis.set(xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))


def scores(axis: Axes, content: Row) -> None:
    """How many right and wrong detections there are of each score. content: as `reliability`."""
    for name, color in (("wrong", WRONG), ("right", RIGHT)):
        axis.stairs(content[name], content["edges"], color=color, fill=True, alpha=0.25)
        axis.stairs(content[name], content["edges"], color=color, linewidth=1, label=name)
    axis.set(xlim=(0, 1), xticks=(0, 0.5, 1), yscale="symlog")
    _raise_top(axis, 2 * max(max(content["right"]), max(content["wrong"])))


def p_t(axis: Axes, content: Row) -> None:
    """Shares by p_t, of foreground and of background, at the first and the last record.

    content: edges (B + 1,) in log(p_t / (1 - p_t)), first and last {"foreground" | "background":
    sums (B,)}, whose shares are of the sum of that side, or of both where content has `of_both`.
    """
    highest = 0.0
    for name, color in (("foreground", FOREGROUND), ("background", BACKGROUND)):
        for moment, style in (("first", ":"), ("last", "-")):
            sums = np.asarray(content[moment][name], dtype=float)
            sides = content[moment].values() if content.get("of_both") else [sums]
            shares = sums / max(sum(np.sum(side) for side in sides), 1e-300)
            axis.stairs(shares, content["edges"], color=color, linestyle=style, linewidth=1.2,
                        label=f"{name}, {moment}")  # fmt: skip
            highest = max(highest, float(shares.max()))
    marks = (0.001, 0.1, 0.9, 0.999)
    axis.set_xticks([np.log(p / (1 - p)) for p in marks], [f"{p:g}" for p in marks])
    axis.set(xlim=(content["edges"][0], content["edges"][-1]))
    _raise_top(axis, 1.05 * highest)


def _raise_top(axis: Axes, top: float) -> None:
    """An axis from 0, which all panels share, to at least this."""
    has_top = not axis.get_autoscaley_on()
    axis.set_ylim(0, max(axis.get_ylim()[1], top) if has_top else top)


def cumulative(axis: Axes, content: Row) -> None:
    """Cumulative share of the loss against the share of the anchors, the easiest first.

    content: by gamma, (x, y) of the curve.
    """
    for (gamma, (x, y)), color in zip(content.items(), COLORS, strict=False):
        axis.plot(x, y, color=color, linewidth=1.1, label=rf"$\gamma$ = {gamma}")
    axis.set(xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))


def draw_initial(rows: Sequence[tuple[str, float, float]], *, width: float = PAGE) -> Figure:
    """The loss of the first step, foretold and measured. rows: (loss, foretold, measured)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 0.8 + 0.24 * len(rows)), layout="constrained")
    axis = figure.subplots()
    for place, (_, foretold, measured) in enumerate(reversed(rows)):
        first = place == 0
        axis.plot([foretold, measured], [place, place], color=FAINT, linewidth=0.8, zorder=1)
        axis.scatter([foretold], [place], s=34, marker="D", facecolors="none", zorder=2,
                     edgecolors=COLORS[0], label="foretold" if first else None)  # fmt: skip
        axis.scatter([measured], [place], s=12, color=COLORS[1], zorder=3,
                     label="measured" if first else None)  # fmt: skip
    axis.set_yticks(range(len(rows)), [row[0] for row in reversed(rows)])
    axis.set(xscale="log", xlabel="class loss of the first step", ylim=(-0.6, len(rows) - 0.4))
    plain_log(axis.xaxis)
    axis.grid(axis="x", color="#e8e8e8", linewidth=0.5)
    axis.set_axisbelow(True)
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False, ncols=2)
    return figure
