"""Figures 1, 5 and 6 of the focal loss paper, drawn from the losses that are registered here.

Lin et al. 2017, "Focal Loss for Dense Object Detection", arXiv 1708.02002. None of them has alpha.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from detector.config.schema import Plug
from detector.plots.losses.curves import Probe, subject
from detector.plots.style import COLORS, FAINT, INK, grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PaperFigure = Literal["focal_1", "focal_5", "focal_6"]

GAMMAS = (0.0, 0.5, 1.0, 2.0, 5.0)
"""Of figure 1."""


@dataclass(frozen=True)
class Series:
    """A line of a figure: the loss of a foreground anchor."""

    label: str
    probe: Probe
    color: str
    style: str = "-"


def series(label: str, name: str, color: str, style: str = "-", **options: Any) -> Series:
    yes = subject(Plug(name, options)).yes
    assert yes is not None
    return Series(label, yes, color, style)


def draw_paper(figure: PaperFigure, *, width: float, points: int) -> Figure:
    """The figure, `width` inches wide; points of a curve."""
    drawn, (axis,) = grid(1, width, 0.78 * width)
    if figure == "focal_1":
        draw_figure_1(axis, points)
    else:
        draw_variants(axis, figure, points)
    return drawn


def draw_figure_1(axis: Axes, points: int) -> None:
    """Focal loss against p_t for five gammas, of which 0 is cross entropy."""
    colors = (INK, *COLORS)
    x = torch.linspace(0, 1, points + 2, dtype=torch.float64)[1:-1].logit()
    for gamma, color in zip(GAMMAS, colors, strict=False):
        label = rf"$\gamma$ = {gamma:g}" + (" (CE)" if gamma == 0 else "")
        line = series(label, "focal", color, alpha=None, gamma=gamma)
        curve = line.probe(x)
        axis.plot(curve.p_t, curve.loss, color=color, label=label)
    axis.set(xlim=(0, 1), ylim=(0, 5), ylabel="loss", xlabel="probability of the truth, $p_t$")
    axis.legend(frameon=False, loc="upper right", handlelength=1.6)
    axis.text(0.13, 4.7, r"CE = $-\log p_t$", va="center")
    axis.text(0.13, 4.25, r"FL = $-(1 - p_t)^\gamma \log p_t$", va="center")
    arrow = {"arrowstyle": "<->", "color": FAINT, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 0}
    axis.annotate("", (0.6, 0.95), (1.0, 0.95), arrowprops=arrow)
    axis.text(0.8, 1.02, "well classified", ha="center", va="bottom")


def draw_variants(axis: Axes, figure: PaperFigure, points: int) -> None:
    """Focal loss and two FL* beside cross entropy: figure 5 has values, figure 6 slopes."""
    reach = 5.0 if figure == "focal_5" else 10.0
    x = torch.linspace(-reach, reach, points, dtype=torch.float64)
    star = r"FL* $\gamma$ = {:g}, $\beta$ = {:g}"
    lines = [
        series("CE", "cross_entropy", FAINT),
        series(r"FL $\gamma$ = 2", "focal", COLORS[0], alpha=None, gamma=2.0),
        series(star.format(2, 1), "focal_star", COLORS[1], "--", alpha=None, gamma=2.0, beta=1.0),
        series(star.format(4, 0), "focal_star", COLORS[2], "-.", alpha=None, gamma=4.0, beta=0.0),
    ]
    for line in lines:
        curve = line.probe(x)
        up = curve.loss if figure == "focal_5" else curve.slope
        axis.plot(curve.x, up, line.style, color=line.color, label=line.label)
    axis.set(xlim=(-reach, reach), xlabel=r"$x_t$, logit towards the truth")
    if figure == "focal_5":
        axis.set(ylim=(0, 5), ylabel="loss")
        axis.legend(frameon=False, loc="upper right")
    else:
        axis.set_ylabel(r"gradient $\partial L\,/\,\partial x_t$")
        axis.legend(frameon=False, loc="lower right")
