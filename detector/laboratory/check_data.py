"""A data set looked at without training: all that is wrong, what it holds, what training can reach.

Both splits are read as a training reads them. Where that stops, they are read once more with all
that is at fault left out, so that one call tells everything.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from detector.config import Config
from detector.config.registry import DATASETS
from detector.config.schema import Plug, options_of
from detector.data.account import Account, by_kind
from detector.data.readers.base import SPLITS, Dataset
from detector.data.review import Review, review
from detector.drawing.drawing import Mark, captioned, draw, grid
from detector.errors import DataError
from detector.laboratory.audit.counts import Counts, count
from detector.laboratory.html import environment
from detector.runs.checkpoint import write_atomically
from detector.runs.run_folder import RunFolder
from detector.training.setup import read_sets

LENIENT = {"on_invalid": "drop", "on_missing": "drop", "on_corrupt": "drop", "max_dropped": 1.0}
"""Options of a reader with which nothing stops."""

PICTURES = 9
"""Images of each split that are drawn."""

MOST_FAULTS = 20
"""Lines of each kind of fault on the page; check.json has all."""

QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)


def check_data(config: Config, *, decode: bool = False, page: bool = True) -> Path:
    """Prints what is found and writes check.json and, with pictures, check.html; their folder.

    decode: decodes every image of both splits, which a training does of val alone. Raises DataError
    at the end where a training on these data would not begin, with what it would say.
    """
    folder = RunFolder(Path(config.output_dir or "runs/check"))
    folder.require_writable()
    refusal: DataError | None = None
    try:
        train, val = read_sets(config.data, decode=decode)
    except DataError as error:
        refusal = error
        try:
            train, val = read_sets(lenient(config.data), decode=decode)
        except DataError:
            raise error from None  # nothing can be read at all
    counts = count(config, train) if len(train.annotations.labels) else None
    found = review(train, val)
    lines = in_words(train, val, found, counts)
    print("\n".join(lines))
    written = {"check.json": json.dumps(numbers(train, val, found, counts, refusal), indent=1)}
    if page:
        written["check.html"] = as_page(train, val, lines, pictures((train, val), folder.path))
    folder.path.mkdir(parents=True, exist_ok=True)
    for name, content in written.items():
        write_atomically(folder.path / name, f"{content}\n".encode())
        print(f"written: {folder.path / name}")
    if refusal is not None:
        raise refusal
    print("a training on these data begins")
    return folder.path


def lenient(data: Plug) -> Plug:
    """The same data with all that is at fault left out, as far as its reader can."""
    known = options_of(DATASETS.get(data.name))
    more = {key: value for key, value in LENIENT.items() if key in known}
    exif = {"exif": "stored"} if data.options.get("exif", "error") == "error" else {}
    more |= exif if "exif" in known else {}
    return replace(data, options=data.options | more)


def in_words(train: Dataset, val: Dataset, found: Review, counts: Counts | None) -> list[str]:
    """What is found, line by line, for a terminal."""
    lines = []
    for split, dataset in (("train", train), ("val", val)):
        lines += [f"{split}: {dataset.name}"]
        lines += [f"{split}: {line}" for line in dataset.annotations.summary()]
        lines += [f"{split}: {line}" for line in sizes_in_words(dataset)]
    lines += found.lines()
    if counts is not None:
        unreached = int(counts.unreached.sum())
        words = "with the anchors, sizes and matcher of this config, "
        words += f"{unreached} of {len(counts.labels)} objects of train have no positive anchor"
        names = train.annotations.classes
        worst = [
            f"{name} {int(counts.unreached[counts.labels == k].sum())} of {number}"
            for k, name in enumerate(names)
            if (number := int((counts.labels == k).sum()))
            and counts.unreached[counts.labels == k].any()
        ]
        lines.append(words + (f": {', '.join(worst[:10])}" if worst else ""))
        if unreached:
            lines.append("`detector audit` with the same keys fits anchors and sizes to them")
    return lines


def sizes_in_words(dataset: Dataset) -> list[str]:
    """Sides of the images and of the objects: smallest, 5 %, middle, 95 %, largest."""
    rows = quantiles(dataset)
    return [
        f"{what}, pixels: {' '.join(f'{value:.0f}' for value in values)} "
        "(smallest, 5 %, median, 95 %, largest)"
        for what, values in rows.items()
    ]


def quantiles(dataset: Dataset) -> dict[str, list[float]]:
    """Of the longer sides of images and the geometric mean side of objects, at `QUANTILES`."""
    annotations = dataset.annotations
    longer = annotations.sizes.max(1)
    rows = {"longer side of images": np.quantile(longer, QUANTILES).tolist()}
    if len(annotations.xywh):
        sides = np.sqrt(np.prod(annotations.xywh[:, 2:], axis=1))
        rows["side of objects"] = np.quantile(sides, QUANTILES).tolist()
    return rows


def numbers(
    train: Dataset,
    val: Dataset,
    found: Review,
    counts: Counts | None,
    refusal: DataError | None,
) -> dict[str, Any]:
    """Everything, for check.json."""
    return {
        "begins": refusal is None,
        "refusal": None if refusal is None else str(refusal),
        "faults": [] if refusal is None else list(refusal.details),
        "sizes": {"train": quantiles(train), "val": quantiles(val)},
        "without_positive_anchor": None if counts is None else int(counts.unreached.sum()),
        **found.to_dict(),
    }


def pictures(sets: Sequence[Dataset], folder: Path) -> list[str]:
    """Writes a picture of some images of each split with their boxes; the file names."""
    names = []
    for split, dataset in zip(SPLITS, sets, strict=True):
        drawn = []
        step = max(1, len(dataset) // PICTURES)
        for index in range(0, len(dataset), step)[:PICTURES]:
            try:
                pixels = dataset.image(index)
            except DataError:
                continue  # is named among the faults
            drawn.append(captioned(_thumbnail(dataset, index, pixels), _name(dataset, index)))
        if drawn:
            folder.mkdir(parents=True, exist_ok=True)
            names.append(f"{split}.png")
            grid(drawn, columns=3).save(folder / names[-1])
    return names


def _thumbnail(dataset: Dataset, index: int, pixels: np.ndarray) -> Any:
    """An image with its objects, at most 320 pixels long: drawn after it is made small, so that
    lines and names stay sharp."""
    from PIL import Image

    annotations = dataset.annotations
    factor = min(1.0, 320 / max(pixels.shape[:2]))
    size = (max(1, round(pixels.shape[1] * factor)), max(1, round(pixels.shape[0] * factor)))
    small = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
    marks = []
    objects = annotations.objects(index)
    labels, crowds = annotations.labels[objects], annotations.crowd[objects]
    for box, label, crowd in zip(annotations.boxes(index), labels, crowds, strict=True):
        corners = tuple(float(value) * factor for value in box)
        marks.append(Mark(corners, int(label), annotations.classes[label], bool(crowd)))  # type: ignore[arg-type]
    return draw(small, marks)


def _name(dataset: Dataset, index: int) -> str:
    return dataset.annotations.file_name(index)


def as_page(train: Dataset, val: Dataset, lines: list[str], images: list[str]) -> str:
    """The HTML. Names from files are text there, whatever they hold: everything is escaped."""
    return (
        environment()
        .from_string(TEMPLATE)
        .render(
            name=train.name,
            lines=lines,
            images=images,
            kinds=[
                (split, kinds_of(dataset.annotations.account))
                for split, dataset in (("train", train), ("val", val))
            ],
        )
    )


def kinds_of(account: Account) -> list[tuple[str, list[str], int]]:
    """What is left out, by kind: words, some of the lines, how many more there are."""
    rows = []
    for kind, some in by_kind(account.left_out):
        told = [one.line for one in some if one.line]
        total = sum(one.count for one in some)
        shown = told[:MOST_FAULTS]
        rows.append((f"{total} {kind.unit}s: {kind.words}", shown, len(told) - len(shown)))
    return rows


TEMPLATE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Check of {{ name }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 62rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; overflow-wrap: anywhere; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
pre { background: #f4f4f4; padding: 0.7rem; white-space: pre-wrap; overflow-wrap: anywhere; }
li { overflow-wrap: anywhere; } img { max-width: 100%; }
</style>
</head>
<body>
<h1>Check of {{ name }}</h1>
<pre>{% for line in lines %}{{ line }}
{% endfor %}</pre>
{% for split, rows in kinds %}
{% for words, some, more in rows %}
<h2>{{ split }}: {{ words }}</h2>
<ul>
{% for line in some %}<li>{{ line }}</li>
{% endfor %}
{% if more %}<li>and {{ more }} more: check.json has all</li>{% endif %}
</ul>
{% endfor %}
{% endfor %}
{% for image in images %}
<h2>{{ image }}</h2>
<img src="{{ image }}" alt="images with their boxes">
{% endfor %}
</body>
</html>
"""
