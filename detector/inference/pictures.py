"""What an analysis is drawn as: curves of all detections, and the images that went worst."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detector.analysis.matching import match
from detector.analysis.operating_points import OperatingPoints
from detector.analysis.packing import Packed, pack
from detector.drawing.drawing import Box, Mark, captioned, draw, grid
from detector.errors import ConfigError
from detector.plots.precision_recall import draw_precision_recall
from detector.plots.reliability import draw_reliability
from detector.plots.style import require_matplotlib, save, styled
from detector.runs import own_files

Row = dict[str, Any]
Pixels = Callable[[int], NDArray[np.uint8]]
"""Image id -> (H, W, 3) pixels."""

IOU = 0.5
"""From which a detection counts as right."""


def figures_of(analysis: Mapping[str, Any]) -> dict[str, Any]:
    """Pictures by the name of their file. To be called within `styled`."""
    groups = analysis["reliability"]
    drawn = {
        "reliability": draw_reliability({**groups["all"], **groups["size"]}),
        **_paged("reliability_classes", groups["class"], draw_reliability),
    }
    curves = analysis["precision_recall"]

    def of_classes(classes: Mapping[str, Any]) -> Any:
        return draw_precision_recall(curves["recall"], classes, iou=curves["iou"])

    return {**drawn, **_paged("precision_recall", curves["classes"], of_classes)}


def _paged(
    stem: str,
    parts: Mapping[str, Any],
    draw_part: Callable[[Mapping[str, Any]], Any],
    size: int = 12,
) -> dict[str, Any]:
    """Pictures of at most `size` parts each, numbered where there is more than one."""
    names = list(parts)
    pages = [names[start : start + size] for start in range(0, len(names), size)]
    return {
        stem if len(pages) == 1 else f"{stem}_{i}": draw_part({name: parts[name] for name in page})
        for i, page in enumerate(pages, 1)
    }


def write_figures(analysis: Mapping[str, Any], folder: Path) -> list[Path]:
    """Writes PNGs in place of earlier ones. Raises ConfigError without matplotlib."""
    own_files.remove(folder, own_files.FIGURES)
    with styled():
        drawn = figures_of(analysis)
        return [
            path for stem, figure in drawn.items() for path in save(figure, folder, stem, ["png"])
        ]


def show(writer: Any, analysis: Mapping[str, Any], step: int) -> None:
    """The pictures into a `SummaryWriter`, where matplotlib is there to draw them."""
    try:
        require_matplotlib()
    except ConfigError:  # pictures=false was given then, or the run would not have begun
        return
    with styled():
        for stem, figure in figures_of(analysis).items():
            writer.add_figure(f"val/{stem}", figure, step)


def write_worst(
    analysis: Mapping[str, Any],
    truth: Mapping[str, list[Row]],
    rows: list[Row],
    pixels: Pixels,
    folder: Path,
    top: int,
) -> list[Path]:
    """Draws the worst images of each kind, the truth on the left, what is shown on the right."""
    own_files.remove(folder, own_files.WORST)
    worst = {kind: images[:top] for kind, images in analysis["worst_images"].items()}
    wanted = {row["image_id"] for images in worst.values() for row in images}
    packed = pack(
        {
            "images": [row for row in truth["images"] if row["id"] in wanted],
            "categories": truth["categories"],
            "annotations": [row for row in truth["annotations"] if row["image_id"] in wanted],
        },
        [row for row in rows if row["image_id"] in wanted],
    )
    points = OperatingPoints.from_dict(analysis["operating_points"]["lrp"])
    sides = marks_of(packed, points)
    paths = []
    for kind, images in worst.items():
        for number, row in enumerate(images, 1):
            image_id = row["image_id"]
            path = folder / f"{kind}_{number:02d}_image_{image_id}.png"
            folder.mkdir(parents=True, exist_ok=True)
            beside(pixels(image_id), *sides[image_id]).save(path)
            paths.append(path)
    return paths


def marks_of(packed: Packed, points: OperatingPoints) -> dict[int, tuple[list[Mark], list[Mark]]]:
    """By image id what is drawn of its objects and of its detections that `points` show.

    Dashed: crowds, and detections on them, which count for nothing.
    """
    found, objects, names = packed.found, packed.objects, packed.classes
    matching = match(packed, (IOU,))
    shown = points.keep(found.scores, found.labels)
    finders = matching.objects[0][shown]
    is_found = np.zeros(len(objects), dtype=bool)
    is_found[finders[finders >= 0]] = True
    hits, ignored = matching.hits[0], matching.ignored[0]
    sides: dict[int, tuple[list[Mark], list[Mark]]] = {
        int(image_id): ([], []) for image_id in packed.image_ids
    }
    for o, box in enumerate(_corners(objects.boxes)):
        k, crowd = int(objects.labels[o]), bool(objects.crowd[o])
        word = " (crowd)" if crowd else "" if is_found[o] else ": missed"
        image_id = int(packed.image_ids[objects.images[o]])
        sides[image_id][0].append(Mark(box, k, names[k] + word, is_dashed=crowd))
    corners = _corners(found.boxes)
    for s in sorted(np.flatnonzero(shown), key=lambda s: -found.scores[s]):
        k = int(found.labels[s])
        word = "" if hits[s] or ignored[s] else ": wrong"
        text = f"{names[k]} {found.scores[s]:.2f}{word}"
        image_id = int(packed.image_ids[found.images[s]])
        mark = Mark(corners[s], k, text, is_dashed=bool(ignored[s]))
        sides[image_id][1].append(mark)
    return sides


def beside(pixels: NDArray[np.uint8], objects: list[Mark], shown: list[Mark]) -> Image.Image:
    """An image twice: with its objects, and with what is shown of it."""
    enlarge = max(1, 256 // max(pixels.shape[:2]))
    missed = sum(mark.text.endswith(": missed") for mark in objects)
    wrong = sum(mark.text.endswith(": wrong") for mark in shown)
    return grid(
        [
            captioned(draw(pixels, objects, enlarge), f"truth: {missed} of {len(objects)} missed"),
            captioned(draw(pixels, shown, enlarge), f"shown: {wrong} of {len(shown)} wrong"),
        ],
        columns=2,
    )


def _corners(xywh: NDArray[np.float64]) -> list[Box]:
    return [(x, y, x + width, y + height) for x, y, width, height in xywh.tolist()]
