"""The tables of docs/guarantees.md: each belongs to the program that makes its figures."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.commands import ROOT

PAGE = ROOT / "docs" / "guarantees.md"

HEAD = "| case | injection | figure | command |\n|---|---|---|---|\n"

NOT_RUN = "not run yet"


@dataclass(frozen=True)
class Case:
    """A row of the page. figure: makes it, in a folder of its own."""

    injection: str
    figure: Callable[[Path], str]


def table_of(text: str, program: str) -> str:
    """The rows of a page that a program makes, with their head."""
    blocks = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    (block,) = [block for block in blocks if f"`python -m {program} " in block]
    return block


def figures(block: str) -> dict[str, str]:
    """The figures that a table holds, by the name of their case."""
    return dict(re.findall(r"^\| (\w+) \| .* \| (.*) \| `.*` \|$", block, re.MULTILINE))


def rows(cases: Mapping[str, Case], program: str, known: Mapping[str, str]) -> str:
    """A table of all cases. known: the figures that were made, by name."""
    lines = [
        f"| {name} | {case.injection} | {known.get(name, NOT_RUN)} | `python -m {program} {name}` |"
        for name, case in cases.items()
    ]
    return HEAD + "".join(f"{line}\n" for line in lines)


def make(cases: Mapping[str, Case], program: str, names: Sequence[str]) -> None:
    """Makes the figures of some cases, or of all, and writes each into the page at once."""
    for name in names or list(cases):
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            figure = cases[name].figure(Path(folder))
        print(f"{name}: {figure} ({time.monotonic() - began:.0f} s)", flush=True)
        text = PAGE.read_text()
        before = table_of(text, program)
        PAGE.write_text(
            text.replace(before, rows(cases, program, figures(before) | {name: figure}))
        )
