"""Pictures of registered losses: value and slope, against the probability and the logit."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from detector.config.schema import Plug, require
from detector.layouts import logit
from detector.plots.losses.comparison import compare
from detector.plots.losses.curves import (
    MARKS,
    Curve,
    Probe,
    Subject,
    depends_on_iou,
    same,
    subject,
)
from detector.plots.style import COLORS, FAINT, INK, PAPER, grid, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

Panel = Literal["loss_probability", "loss_logit", "gradient_probability", "gradient_logit"]
PANELS: tuple[Panel, ...] = (
    "loss_probability",
    "loss_logit",
    "gradient_probability",
    "gradient_logit",
)

AXES = {
    "loss": "loss",
    "gradient": r"gradient $\partial L\,/\,\partial x$",
    "probability": r"$p_t$, probability of the truth",
    "logit": r"logit $x$",
}

POOR_IOU = 0.7
"""IoU of the box of the dotted curve, where the loss asks for it."""

FLOOR, CEILING = 1e-5, 12.0
"""Least and largest loss of the logarithmic panel."""

MOST_MARKED = 5
"""Lines at which factors are written; for more they would cover the curves."""

REACH = 6.0
"""Logits to both sides."""

JOINT = " =\u00a0"
"""Between losses that share a line; a line of text may break before it, not after."""

MOST_LABELS = 6
"""Lines that are named at their ends; more are named above."""


@dataclass(frozen=True)
class Line:
    """One or more losses that say the same, and how they are drawn."""

    subject: Subject
    label: str
    color: str


def merge(subjects: Sequence[Subject]) -> list[Line]:
    """Losses that are equal share a line, so that none hides another; cross entropy is grey.

    Raises ConfigError for more lines than there are colours.
    """
    groups: list[list[Subject]] = []
    for one in subjects:
        if not (one.yes or one.no):
            continue
        group = next((g for g in groups if same(g[0], one)), None)
        if group is None:
            groups.append([one])
        else:
            group.append(one)
    plain = subject(Plug("cross_entropy", {}))
    is_plain = [same(group[0], plain) for group in groups]
    count = is_plain.count(False)
    require(
        count <= len(COLORS),
        f"losses: {count} different curves for one picture, {len(COLORS)} are told apart at most; "
        "each=true draws one for each",
    )
    colors = iter(COLORS)
    return [
        Line(group[0], JOINT.join(one.label for one in group), FAINT if grey else next(colors))
        for group, grey in zip(groups, is_plain, strict=True)
    ]


def draw(
    subjects: Sequence[Subject],
    *,
    panels: Sequence[Panel] = PANELS,
    width: float,
    points: int,
    poor_iou: bool = False,
) -> Figure:
    """A figure of the panels: y = 1 solid, y = 0 dashed.

    width: inches. points: of a curve. poor_iou: also y = 1 for a box of IoU `POOR_IOU`, dotted,
    where the loss depends on it.
    """
    lines = merge(subjects)
    is_direct = len(lines) <= MOST_LABELS and any("logit" in panel for panel in panels)
    handles = legend_of(lines, with_names=not is_direct, poor_iou=poor_iou)
    columns = columns_of(handles, width)
    figure, axes = grid(len(panels), width, 2.2, above=0.17 * -(-len(handles) // columns))
    for axis, panel in zip(axes, panels, strict=True):
        what, over = panel.split("_")
        x = sample(over, points)
        for line in lines:
            draw_line(axis, line, x, what, over, poor_iou)
        frame(axis, what, over)
        if panel == "loss_probability":
            mark(axis, lines)
        if over == "logit" and is_direct:
            label_ends(axis, lines, what)
    figure.legend(
        handles=handles,
        loc="outside upper center",
        ncols=columns,
        frameon=False,
        handlelength=1.8,
        columnspacing=1.4,
    )
    return figure


def sample(over: str, points: int) -> Tensor:
    """(points,) logits, even in the logit, or in the probability but for its ends."""
    if over == "logit":
        return torch.linspace(-REACH, REACH, points, dtype=torch.float64)
    p = torch.linspace(0, 1, points + 2, dtype=torch.float64)[1:-1]
    ends = torch.tensor([1e-6, 1e-5, 1e-4, 1e-3, 3e-3], dtype=torch.float64)
    return torch.cat([p, ends, 1 - ends]).unique().logit()


def draw_line(axis: Axes, line: Line, x: Tensor, what: str, over: str, poor_iou: bool) -> None:
    one = line.subject
    if one.yes is not None:
        plot(axis, one.yes(x), what, over, line.color, "-")
        if poor_iou and depends_on_iou(one.yes):
            plot(axis, one.yes(x, iou=POOR_IOU), what, over, line.color, ":")
    is_twin = over == "probability" and what == "loss" and mirrored(one, x)
    if one.no is not None and not is_twin:
        plot(axis, one.no(x), what, over, line.color, "--")


def mirrored(one: Subject, x: Tensor) -> bool:
    """y = 1 and y = 0 cost the same at the same p_t: one line says both."""
    if one.yes is None or one.no is None:
        return False
    return torch.allclose(one.yes(x).loss, one.no(-x).loss, rtol=1e-9)


def plot(axis: Axes, curve: Curve, what: str, over: str, color: str, style: str) -> None:
    across = curve.p_t if over == "probability" else curve.x
    order = across.argsort()
    up = curve.loss if what == "loss" else curve.slope
    zorder = 2.0 if color == FAINT else 3.0
    axis.plot(across[order], up[order], style, color=color, zorder=zorder)


def frame(axis: Axes, what: str, over: str) -> None:
    axis.set_xlabel(AXES[over])
    axis.set_ylabel(AXES[what])
    axis.set_xlim(*((0, 1) if over == "probability" else (-REACH, REACH)))
    if what == "gradient":
        axis.axhline(0, color=INK, linewidth=0.5, zorder=1)
    elif over == "probability":
        axis.set_yscale("log")
        axis.minorticks_off()
        axis.set_ylim(FLOOR, CEILING)
    else:
        axis.set_ylim(0, REACH)


def mark(axis: Axes, lines: Sequence[Line]) -> None:
    """Dots at `MARKS` on the curve of y = 1, with what the loss is of cross entropy there."""
    probes = [(line, line.subject.yes) for line in lines if line.subject.yes is not None]
    for i, p_t in enumerate(MARKS):
        axis.axvline(p_t, color=FAINT, linewidth=0.5, linestyle=(0, (1, 2)), zorder=1)
        values = [value_at(probe, p_t) for _, probe in probes]
        for (line, _), value in zip(probes, values, strict=True):
            axis.plot([p_t], [value], "o", color=line.color, markersize=3.2, zorder=4)
            if line.color == FAINT:
                place = {"xy": (p_t, value), "xytext": (4, 2), "textcoords": "offset points"}
                axis.annotate("CE", **place, fontsize=6.5)
        compared = [
            (line, value, text)
            for (line, probe), value in zip(probes, values, strict=True)
            if len(lines) <= MOST_MARKED and value > FLOOR
            if line.color != FAINT and (text := compare(probe).in_words(i)) != "CE"
        ]
        logs = [math.log10(value) for _, value, _ in compared]
        places = spread(logs, [0.42] * len(logs))
        for (line, _, text), place in zip(compared, places, strict=True):
            axis.annotate(
                text,
                (p_t, 10**place),
                xytext=(-4, -1),
                textcoords="offset points",
                ha="right",
                va="top",
                fontsize=6.5,
                color=line.color,
                bbox=PAPER,
                zorder=5,
            )


def value_at(probe: Probe, p_t: float) -> float:
    sign = 1 if probe.truth else -1
    return probe(torch.tensor([sign * logit(p_t)], dtype=torch.float64)).loss.item()


def label_ends(axis: Axes, lines: Sequence[Line], what: str) -> None:
    """The names at the right ends of the curves of y = 0, in their colours."""
    ends = []
    for line in lines:
        probe = line.subject.no or line.subject.yes
        assert probe is not None
        curve = probe(torch.tensor([REACH]))
        ends.append((curve.loss if what == "loss" else curve.slope).item())
    low, high = axis.get_ylim()
    names = [textwrap.fill(line.label, 18) for line in lines]
    heights = [0.085 * (high - low) * (1 + name.count("\n")) for name in names]
    places = spread([min(max(end, low), high) for end in ends], heights)
    for line, name, place in zip(lines, names, places, strict=True):
        axis.annotate(
            name,
            (REACH, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            linespacing=1.05,
            color=INK if line.color == FAINT else line.color,
            annotation_clip=False,
        )


def legend_of(lines: Sequence[Line], *, with_names: bool, poor_iou: bool) -> list[Line2D]:
    """What solid, dashed and dotted mean, after the names in the lines' colours if they are to."""
    from matplotlib.lines import Line2D

    styles: list[tuple[Any, str]] = [("-", "y = 1"), ("--", "y = 0")]
    asked = [line.subject.yes for line in lines if line.subject.yes is not None]
    if poor_iou and any(depends_on_iou(probe) for probe in asked):
        styles.append((":", f"y = 1, IoU {POOR_IOU}"))
    named = [(line.color, textwrap.fill(line.label, 90)) for line in lines if with_names]
    return [Line2D([], [], color=color, label=name) for color, name in named] + [
        Line2D([], [], color=INK, linewidth=1, linestyle=style, label=text)
        for style, text in styles
    ]


def columns_of(handles: Sequence[Line2D], width: float) -> int:
    """Of a legend `width` inches wide: all side by side, or as many as the widest leaves room."""
    widths = [34 + 4.4 * len(str(handle.get_label())) for handle in handles]
    if sum(widths) < 72 * width:
        return len(handles)
    return max(1, int(72 * width / max(widths)))
