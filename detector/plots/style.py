"""How pictures look: type of real size, colours that colour-blind readers tell apart, vector files.

matplotlib is imported where it is needed, since everything but pictures works without it.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from detector.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Format = Literal["png", "svg"]

INK, FAINT = "#1a1a1a", "#9a9a9a"

COLORS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"),
    *("#332288", "#882255", "#999933", "#661100", "#117733", "#aa4499"),
)
"""The first six are those of Okabe and Ito 2008, which are told apart with any colour vision, the
others of Tol 2021, "muted"."""

PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 0.4, "alpha": 0.85}
"""Behind a text that a curve may pass."""

COLUMN, PAGE = 3.4, 7.0
"""Inches of a column and of a page of a paper in two columns."""

RULES: dict[Any, Any] = {
    "font.family": ["DejaVu Sans", "sans-serif"],  # the first comes with matplotlib
    "font.size": 7.5,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.4,
    "lines.solid_capstyle": "round",
    "mathtext.fontset": "dejavusans",
    "svg.fonttype": "none",  # text stays text: to be searched, and edited in a drawing program
    "svg.hashsalt": "detector",  # ids, and so files, are the same on every call
    "path.simplify": True,
    "path.simplify_threshold": 0.2,
}


def require_matplotlib() -> None:
    """Raises ConfigError, which says how to install it, where matplotlib is absent."""
    try:
        importlib.import_module("matplotlib")
    except ModuleNotFoundError:
        raise ConfigError(
            "matplotlib: needed for pictures and not installed; pip install matplotlib"
        ) from None


@contextmanager
def styled() -> Iterator[None]:
    """Everything drawn and saved inside has `RULES`; the caller's settings are left alone."""
    require_matplotlib()
    import matplotlib

    with matplotlib.rc_context(RULES):
        yield


def grid(
    num_panels: int, width: float, panel_height: float, *, above: float = 0.0
) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels: two in a row where it is as wide as a page, else one.

    All in inches. above: room left above the panels.
    """
    from matplotlib.figure import Figure

    columns = 2 if width > (COLUMN + PAGE) / 2 and num_panels > 1 else 1
    rows = -(-num_panels // columns)
    figure = Figure(figsize=(width, rows * panel_height + above), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for unused in axes[num_panels:]:
        unused.set_axis_off()
    return figure, axes[:num_panels]


def save(figure: Figure, folder: Path, stem: str, formats: Sequence[Format]) -> list[Path]:
    """Writes FOLDER/STEM in each format and says where.

    Dates and versions are left out, so that equal pictures are equal files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{stem}.{suffix}" for suffix in formats]
    for path in paths:
        metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        figure.savefig(path, dpi=200, facecolor="white", metadata=metadata)
        if path.suffix == ".svg":
            path.write_text(shorten(path.read_text(encoding="utf-8")), encoding="utf-8")
    return paths


def plain(name: str) -> str:
    """A name of somebody's data as matplotlib shows it letter by letter.

    Dollars would make a formula of it, a leading underscore would keep it out of a legend, and
    signs that end a line or cannot be drawn are shown as escapes.
    """
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    shown = shown.replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def shorten(svg: str) -> str:
    """The same picture: coordinates to 1/100 pt, no indents, and a second choice of typeface.

    Verdana is as wide as DejaVu Sans, which Windows and macOS lack: labels keep their places.
    """
    typeface = "font-family: 'DejaVu Sans', Verdana, sans-serif"
    svg = re.sub("font-family: 'DejaVu Sans'[^;\"]*", typeface, svg)

    def of_tag(tag: re.Match[str]) -> str:
        return re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", tag[0])

    return re.sub(r"\n\s+", "\n", re.sub(r"<[^>]*>", of_tag, svg))


def spread(wanted: Sequence[float], heights: Sequence[float]) -> list[float]:
    """Centres as near as may be to the wanted ones, in their order, for labels that may not touch.

    Labels that would touch become a stack whose centre is the mean of theirs.
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    stacks: list[list[int]] = []

    def bottom(stack: list[int]) -> float:
        return sum(wanted[i] for i in stack) / len(stack) - sum(heights[i] for i in stack) / 2

    for index in order:
        stacks.append([index])
        while len(stacks) > 1:
            below, above = stacks[-2:]
            if bottom(above) >= bottom(below) + sum(heights[i] for i in below):
                break
            stacks[-2:] = [below + above]
    centres = [0.0] * len(wanted)
    for stack in stacks:
        place = bottom(stack)
        for i in stack:
            centres[i] = place + heights[i] / 2
            place += heights[i]
    return centres
