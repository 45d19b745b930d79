"""The report of a study as a page: one file, which needs no network and runs nothing."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detector.laboratory.compare import tables, verdict
from detector.laboratory.compare.study import Files, Plain, read_json
from detector.laboratory.html import environment
from detector.laboratory.report import figures, figures_images, figures_scores
from detector.laboratory.report import records as report_records
from detector.laboratory.report import tables as report_tables
from detector.laboratory.report.figures import Entry, Subject
from detector.plots import style

PAGE = "report.html"

TEMPLATES = Path(__file__).parent / "templates"

JPEG_QUALITY = 88
"""Of photographs on the page; the files beside it are lossless."""


@dataclass(frozen=True)
class Shown:
    """A figure on the page. source: its data URI; empty where `missing` stands instead."""

    name: str
    title: str
    caption: str
    missing: str
    source: str


def write_report(folder: Path) -> Path:
    """Draws FOLDER/figures/ and writes FOLDER/report.html from the study in the folder.

    Raises ConfigError where there is none, or where matplotlib is absent.
    """
    style.require_matplotlib()
    files = Files(folder)
    content, study = read_json(files.results), read_json(files.study)
    recorded = report_records.read(folder, content["runs"])
    subject = Subject(folder, content, recorded)
    drawn = {
        "accuracy": show(figures.of_accuracy(subject), folder),
        "gradient": show(figures.of_gradient(subject), folder),
        "anchors": show(figures.of_anchors(subject), folder),
        "mining": show(figures.of_mining(subject), folder),
        "images": show(figures_images.of_images(subject), folder, photographs=True),
        "scores": show(figures_scores.of_scores(subject), folder),
    }
    path = folder / PAGE
    path.write_text(render(content, study, drawn), encoding="utf-8")
    return path


def show(entries: Sequence[Entry], folder: Path, *, photographs: bool = False) -> list[Shown]:
    """Draws the entries: a PNG in FOLDER/figures/ and a data URI for the page of each."""
    shown = []
    for entry in entries:
        source = ""
        if entry.draw is not None:
            with style.styled():
                (path,) = style.save(entry.draw(), folder / "figures", entry.name, ["png"])
            source = data_uri(path, as_jpeg=photographs)
        shown.append(Shown(entry.name, entry.title, entry.caption, entry.missing, source))
    return shown


def data_uri(path: Path, *, as_jpeg: bool) -> str:
    """A picture in the address of an image."""
    kind, content = "png", path.read_bytes()
    if as_jpeg:
        from PIL import Image

        buffer = io.BytesIO()
        Image.open(path).convert("RGB").save(buffer, "JPEG", quality=JPEG_QUALITY)
        kind, content = "jpeg", buffer.getvalue()
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def render(content: Plain, study: Plain, drawn: dict[str, list[Shown]]) -> str:
    """The HTML. Names of classes, losses and files are text, whatever they hold: all is escaped."""
    failed = verdict.failures(content["runs"])
    # They have a place of their own on the page.
    said = [line for line in content["verdict"] if line not in failed]
    return (
        environment(TEMPLATES)
        .get_template("report.html.jinja")
        .render(
            content=content,
            study=study,
            drawn=drawn,
            failed=failed,
            said=said,
            tables=report_tables.tables(content),
            pairs=tables.pairs(content["comparisons"]),
            chains=tables.images(content["runs"]),
            measure=tables.MEASURE,
        )
    )
