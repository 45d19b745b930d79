"""What a benchmark found, for a reader: a table on the terminal, a file, a page of many files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from detector.errors import DataError

NAMES = ("detector", "torchvision")
KINDS = ("training", "inference")

HEAD = """# Speed and memory beside torchvision

Each row is one run of `tools/benchmark.py`: this detector and torchvision's RetinaNet with the same
backbone, image size, batch, number format and frozen layers take turns in one process, on the same
random pixels and boxes. Seconds are the median of the turns; the speedup is the median over the
rounds of torchvision's time over ours, with its range. Memory is the peak that the GPU's allocator
held, of both models together with what one of them needs for its step. Loader, logging, averaged
weights and torchvision's own resizing are left out of both.

Made from the files in `{folder}` by `python tools/benchmark_page.py folder={folder}`.
"""


def title_of(result: dict[str, Any]) -> str:
    """What was run."""
    s = result["settings"]
    towers = " and ".join(f"{n} ({name})" for name, n in s["convolutions"].items())
    return (
        f"{s['backbone']}, {s['image'][0]} x {s['image'][1]}, batch {s['batch_size']}, "
        f"{s['precision']}, {s['classes']} classes, {s['channels']} channels, towers of {towers}"
    )


def place_of(result: dict[str, Any]) -> str:
    """What it was run on."""
    h = result["hardware"]
    return h["gpu"] or f"{h['processor']}, {h['threads']} threads"


def memory(result: dict[str, Any]) -> str:
    """Peaks of both in GiB; dashes where they are not known."""
    peaks = [result[name]["peak_memory"] for name in NAMES]
    return " / ".join("-" if p is None else f"{p / 2**30:.2f} GiB" for p in peaks)


def table(result: dict[str, Any]) -> str:
    """The result on a terminal."""
    lines = [
        f"{title_of(result)}; {place_of(result)}; torch {result['versions']['torch']}",
        f"{'':<12}{NAMES[0]:>14}{NAMES[1]:>14}{'speedup':>10}{'(range)':>16}{'memory':>22}",
    ]
    for kind in KINDS:
        found = result[kind]
        low, high = found["speedup_range"]
        seconds = "".join(f"{found[name]['median']:>12.4f} s" for name in NAMES)
        span = f"({low:.2f}-{high:.2f})"
        lines.append(f"{kind:<12}{seconds}{found['speedup']:>10.2f}{span:>16}{memory(found):>22}")
    return "\n".join(lines)


def write(result: dict[str, Any], path: str) -> None:
    """The result as JSON."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(result, indent=1) + "\n")


def page(folder: Path) -> str:
    """Markdown of all results in a folder. Raises DataError for a file that is no result."""
    files = sorted(folder.glob("*.json"))
    if not files:
        raise DataError(f"{folder}: no results; tools/benchmark.py benchmark.output= writes one")
    return "\n".join([HEAD.format(folder=folder), *(section(file) for file in files)])


def section(file: Path) -> str:
    """One result: what it was measured on and with, and its two rows."""
    try:
        result = json.loads(file.read_text())
        title = title_of(result)
        rows = [row(kind, result[kind]) for kind in KINDS]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: not a result of tools/benchmark.py ({error!r})") from None
    versions = ", ".join(f"{name} {v}" for name, v in result["versions"].items())
    return "\n".join(
        [
            f"## {title}",
            "",
            f"{place_of(result)}; {versions}.",
            "",
            "| | detector | torchvision | speedup | range | memory |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            f"`{result['command']}`",
            "",
        ]
    )


def row(kind: str, result: dict[str, Any]) -> str:
    """A line of the table of a page."""
    low, high = result["speedup_range"]
    ours, theirs = (f"{result[name]['median']:.4f} s" for name in NAMES)
    speedup = f"{result['speedup']:.2f} | {low:.2f} to {high:.2f}"
    return f"| {kind} | {ours} | {theirs} | {speedup} | {memory(result)} |"
