"""Precision against recall of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

from detector.plots.style import COLORS, PAGE, grid, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_precision_recall(
    recall: Sequence[float],
    classes: Mapping[str, Mapping[str, Any] | None],
    *,
    iou: float,
    width: float = PAGE,
) -> Figure:
    """A curve for each class that has objects, with its area (AP) in the legend.

    recall (R,); classes: by name `precision` (R,), the best at that recall or a greater one; None
    for a class without objects.
    """
    figure, (axis,) = grid(1, width, 0.6 * width)
    for (name, curve), color in zip(classes.items(), cycle(COLORS), strict=False):
        if curve is None:
            axis.plot([], [], color=color, label=f"{plain(name)}: no objects")
            continue
        precision = curve["precision"]
        area = sum(precision) / len(precision)
        axis.plot(recall, precision, color=color, label=f"{plain(name)}: AP {area:.3f}")
    axis.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    axis.set_title(f"IoU {iou:g}")
    if classes:
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return figure
