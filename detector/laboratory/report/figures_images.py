"""The same images at the start, in the middle and at the end, for each loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detector.laboratory.compare.study import Plain
from detector.laboratory.report.figures import NO_PROBE, Entry, Subject
from detector.laboratory.report.records import MOMENTS
from detector.plots.studies import images as study_images

WIDTH = 3.6
"""Inches: two losses stand side by side."""

MOST = 3
"""Images that are shown."""


def of_images(subject: Subject) -> list[Entry]:
    """An entry for each loss that has pictures, or one that says that there are none."""
    entries = []
    for loss, (probe, content) in subject.sorted(subject.recorded.images).items():
        parts = shown(probe, content)
        if parts is not None:
            entries.append(Entry(f"images_{loss}", loss, "", "", _drawing(parts)))
    return entries or [Entry("images", "", "", NO_PROBE, None)]


def shown(probe: Path, content: Plain) -> dict[str, Any] | None:
    """Pictures, their sizes and what was found at each moment; None without a picture."""
    known = [name for name in content["image_ids"] if path_of(probe, name).is_file()][:MOST]
    moments = {name: content[name] for name in MOMENTS if content.get(name)}
    if not known or not moments:
        return None
    truth = {name: _of(content["truth"], name) for name in known}
    return {
        "paths": [path_of(probe, name) for name in known],
        "sizes": [tuple(content["sizes"][str(name)]) for name in known],
        "moments": {
            f"{moment}, step {part['step']}": [
                study_images.highest(_of(part["detections"], name), truth[name]) for name in known
            ]
            for moment, part in moments.items()
        },
    }


def path_of(probe: Path, image_id: Any) -> Path:
    return probe / "images" / f"{image_id}.png"


def _of(rows: list[Plain], image_id: Any) -> list[Plain]:
    return [row for row in rows if row["image_id"] == image_id]


def _drawing(parts: dict[str, Any]) -> Any:
    def draw() -> Any:
        from matplotlib.image import imread

        pictures = [imread(path) for path in parts["paths"]]
        return study_images.draw_moments(pictures, parts["sizes"], parts["moments"], width=WIDTH)

    return draw
