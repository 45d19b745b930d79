"""Curves over training for several losses: a line of means with a band from least to greatest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from detector.plots.style import COLORS, INK, PAGE, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

Series = Mapping[str, Sequence[Sequence[tuple[float, float]]]]
"""For each loss, for each seed, (step, value) in order of steps."""

DASHES = ("-", "--", ":")
"""A loss beyond the last colour has the colour of an earlier one and other dashes."""

LABEL = 7.0
"""Points of the type of the names at the ends of lines."""


def look(index: int) -> dict[str, str]:
    """Colour and dashes of the loss of this place in a study, the same in all its figures."""
    dashes = DASHES[index // len(COLORS) % len(DASHES)]
    return {"color": COLORS[index % len(COLORS)], "linestyle": dashes}


def draw_over_training(
    panels: Mapping[str, Series],
    losses: Sequence[str],
    *,
    percent: bool = False,
    log: bool = False,
    height: float = 3.2,
    width: float = PAGE,
) -> Figure:
    """A panel for each label of its y axis. losses: all of the study, which decide on colours.

    percent: values are shares. log: on a logarithmic axis.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (label, series) in zip(axes, panels.items(), strict=True):
        if log:
            axis.set_yscale("log")
        ends = {}
        for loss, runs in series.items():
            end = _band(axis, runs, **look(losses.index(loss)))
            if end is not None:
                ends[loss] = end
        axis.set(xlabel="training step", ylabel=label)
        if log:
            _whole_decades(axis, percent=percent)
        elif percent:
            axis.set_ylim(-0.02, 1.02)
            axis.yaxis.set_major_formatter(_percent)
        else:
            axis.set_ylim(bottom=0)
        # The layout makes room for the names at the ends, which lie outside of the axes.
        _name_ends(axis, ends, losses, height / 1.25)
    return figure


def mean_and_range(
    runs: Sequence[Sequence[tuple[float, float]]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(P,) steps at which a seed has a value, from where all have begun to where the first ends;
    and the mean, least and greatest value there.

    A seed without a value at a step is taken to lie on the line between its neighbouring ones.
    """
    lines = [np.asarray(run, float) for run in runs if len(run)]
    if not lines:
        nothing = np.zeros(0)
        return nothing, nothing, nothing, nothing
    begin, end = max(line[0, 0] for line in lines), min(line[-1, 0] for line in lines)
    steps = np.unique(np.concatenate([line[:, 0] for line in lines]))
    steps = steps[(steps >= begin) & (steps <= end)]
    values = np.stack([np.interp(steps, line[:, 0], line[:, 1]) for line in lines])
    return steps, values.mean(axis=0), values.min(axis=0), values.max(axis=0)


def _band(
    axis: Axes, runs: Sequence[Sequence[tuple[float, float]]], color: str, linestyle: str
) -> tuple[float, float] | None:
    """Draws a loss; the (step, value) its line ends at. None: a seed ends before another begins."""
    steps, mean, low, high = mean_and_range(runs)
    if not len(steps):
        return None
    axis.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
    marker = "o" if len(steps) <= 12 else None
    axis.plot(steps, mean, color=color, linestyle=linestyle, marker=marker, markersize=2.5)
    return float(steps[-1]), float(mean[-1])


def _percent(value: float, _: object = None) -> str:
    return f"{100 * value:g} %"


def _whole_decades(axis: Axes, *, percent: bool) -> None:
    """A logarithmic y axis from a power of ten to another, which alone are named."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = axis.get_ylim()
    axis.set_ylim(10.0 ** np.floor(np.log10(low)), 10.0 ** np.ceil(np.log10(high)))
    axis.yaxis.set_major_locator(LogLocator(10))
    axis.yaxis.set_major_formatter(_percent if percent else "{x:g}")
    axis.yaxis.set_minor_formatter(NullFormatter())


def plain_log(axis: Axis) -> None:
    """Numbers such as 0.5 and 2 on a logarithmic axis of few decades."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def _name_ends(
    axis: Axes, ends: Mapping[str, tuple[float, float]], losses: Sequence[str], inches: float
) -> None:
    """Writes each name beside the end of its line, moved so that no two touch."""
    if not ends:
        return
    low, high = axis.get_ylim()
    scale = np.log10 if axis.get_yscale() == "log" else np.asarray
    low, high = float(scale(low)), float(scale(high))
    wanted = [(float(scale(max(y, 1e-12))) - low) / (high - low) for _, y in ends.values()]
    row = 1.25 * LABEL / 72 / inches
    places = spread(wanted, [row] * len(wanted))
    for (loss, (x, y)), place in zip(ends.items(), places, strict=True):
        color = look(losses.index(loss))["color"]
        axis.annotate(
            loss,
            (x, y),
            xytext=(1.03, place),
            textcoords="axes fraction",
            fontsize=LABEL,
            color=color,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.4, "shrinkA": 0},
        )


def draw_seeds(
    values: Mapping[str, Sequence[float]], losses: Sequence[str], *, label: str, width: float = PAGE
) -> Figure:
    """A row for each loss: a dot for each seed and a bar at their mean, the highest mean on top."""
    from matplotlib.figure import Figure

    order = sorted(values, key=lambda loss: float(np.mean(values[loss])))
    figure = Figure(figsize=(width, 0.6 + 0.24 * len(order)), layout="constrained")
    axis = figure.subplots()
    for row, loss in enumerate(order):
        color = look(losses.index(loss))["color"]
        known = values[loss]
        axis.plot([min(known), max(known)], [row, row], color=color, linewidth=1, alpha=0.5)
        mean = float(np.mean(known))
        axis.plot([mean, mean], [row - 0.32, row + 0.32], color=INK, linewidth=1)
        axis.scatter(known, [row] * len(known), s=18, color=color, linewidths=0, zorder=3)
    axis.set_yticks(range(len(order)), order)
    axis.set(xlabel=label, ylim=(-0.6, len(order) - 0.4))
    axis.grid(axis="x", color="#e8e8e8", linewidth=0.5)
    axis.set_axisbelow(True)
    return figure
