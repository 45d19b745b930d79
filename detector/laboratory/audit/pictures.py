"""The findings as pictures, each a data URI, so that the page is one file."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from detector.config.model import AnchorConfig
from detector.laboratory.audit.counts import Counts
from detector.plots.style import COLORS, FAINT, INK, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from detector.laboratory.audit.outcome import Audit

MOST_POINTS = 5000
"""Objects that are drawn, taken evenly."""

NOW, THEN = COLORS[0], COLORS[1]


def data_uri(size: tuple[float, float], draw: Callable[[Axes], None]) -> str:
    """A picture of one panel as SVG. size: inches."""
    with styled():
        import matplotlib
        from matplotlib.figure import Figure

        # Paths, not text: a page shows an SVG of its own as an image, without the reader's fonts.
        with matplotlib.rc_context({"svg.fonttype": "path"}):
            figure = Figure(figsize=size, layout="constrained")
            draw(figure.subplots())
            return encoded(figure)


def encoded(figure: Figure) -> str:
    """The figure in the address of an image."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", facecolor="white", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def pictures(found: Audit, numbers: dict[str, Any]) -> dict[str, str]:
    """Data URIs by name."""
    return {
        "shapes": data_uri((4.6, 4.2), lambda axes: shapes(axes, found)),
        "overlaps": data_uri((4.6, 3.0), lambda axes: overlaps(axes, found)),
        "levels": data_uri((4.6, 2.6), lambda axes: levels(axes, numbers)),
        "losses": data_uri((7.0, 0.9 + 0.24 * len(numbers["losses"])),
                           lambda axes: losses(axes, numbers)),
    }  # fmt: skip


def shapes(axes: Axes, found: Audit) -> None:
    """Width and height of the objects, and of the anchors now and with the advice."""
    counts = found.advised
    step = max(1, len(counts.sides) // MOST_POINTS)
    width, height = counts.sides[::step].T
    axes.scatter(width, height, s=4, color=FAINT, alpha=0.35, linewidths=0, rasterized=True,
                 label="objects")  # fmt: skip
    now, then = found.config.model.anchors, found.advised_config.model.anchors
    strides = counts.strides
    is_same = now == then
    axes.scatter(*anchor_shapes(now, strides), s=16, marker="x", color=NOW, linewidths=0.9,
                 label="anchors" if is_same else "anchors now")  # fmt: skip
    if not is_same:
        axes.scatter(*anchor_shapes(then, strides), s=16, marker="o", facecolors="none",
                     edgecolors=THEN, linewidths=0.9, label="anchors advised")  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="width in px", ylabel="height in px")
    limits = min(counts.sides.min(), 8) / 1.3, max(counts.sides.max(), 512) * 1.3
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.yaxis.set_major_formatter("{x:.0f}")
    axes.legend(loc="upper left", frameon=False, markerscale=1.2)


def anchor_shapes(config: AnchorConfig, strides: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Width and height of every level's anchors."""
    side, ratio = np.meshgrid(
        np.multiply.outer(strides * config.size, config.scales).ravel(), config.ratios
    )
    return (side / np.sqrt(ratio)).ravel(), (side * np.sqrt(ratio)).ravel()


def overlaps(axes: Axes, found: Audit) -> None:
    """Share of objects whose best anchor overlaps them at most so much."""
    draw_cumulative(axes, found.counts, "now", NOW)
    if found.advised is not found.counts:
        draw_cumulative(axes, found.advised, "advised", THEN)
    threshold = getattr(found.config.matcher, "options", {}).get("foreground_iou", 0.5)
    axes.axvline(threshold, color=INK, linewidth=0.6, linestyle=":")
    axes.annotate(f"positive from {threshold:g}", (threshold, 1), xytext=(3, -8),
                  textcoords="offset points", fontsize=7)  # fmt: skip
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.set(xlabel="IoU of an object with its best anchor", ylabel="share of objects below")
    axes.legend(loc="center left", frameon=False)


def draw_cumulative(axes: Axes, counts: Counts, label: str, color: str) -> None:
    values = np.sort(counts.overlaps)
    shares = np.arange(1, len(values) + 1) / len(values)
    axes.step(np.r_[0, values, 1], np.r_[0, shares, 1], where="post", color=color, label=label)


def levels(axes: Axes, numbers: dict[str, Any]) -> None:
    """Foreground, neutral and background anchors of each level."""
    rows = numbers["levels"]
    places = np.arange(len(rows))
    kinds = (
        ("foreground", [r["positives"] for r in rows], COLORS[2]),
        ("ignored", [r["anchors"] - r["positives"] - r["background"] for r in rows], FAINT),
        ("background", [r["background"] for r in rows], COLORS[0]),
    )
    for i, (label, values, color) in enumerate(kinds):
        axes.bar(places + 0.27 * (i - 1), values, 0.25, color=color, label=label)
    names = [f"{r['level']}\nstride {r['stride']}" for r in rows]
    axes.set_xticks(places, names)
    axes.set(yscale="symlog", ylabel="anchors")
    axes.set_ylim(0, max(kinds[2][1]) * 40)
    axes.legend(loc="upper right", frameon=False, ncols=3)


def losses(axes: Axes, numbers: dict[str, Any]) -> None:
    """The share of the gradient that background has, for every loss and both priors."""
    rows = [row for row in numbers["losses"] if row["given"]][::-1]
    for i, row in enumerate(rows):
        now = row["given"]["negative_share"]
        then = row["data"]["negative_share"] if row["data"] else now
        axes.plot([now, then], [i, i], color=FAINT, linewidth=0.8, zorder=1)
        axes.scatter([now], [i], color=NOW, s=18, label=None if i else "at the run's prior")
        axes.scatter([then], [i], color=THEN, s=18, marker="D", facecolors="none",
                     label=None if i else "at the data's share of positives")  # fmt: skip
    axes.axvline(0.5, color=INK, linewidth=0.6, linestyle=":")
    axes.set_yticks(range(len(rows)), [row["loss"] for row in rows])
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.7, len(rows) - 0.3))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("share of the class gradient of the first step that lies on background")
    axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), frameon=False, ncols=2)
