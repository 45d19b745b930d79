"""Makes the figures of docs/guarantees.md: `make guarantees`, about 20 minutes on two processors.

`python -m tests.guarantees NAME ...` makes some of them and leaves the other rows as they are.
"""

import re
import sys
import tempfile
import time
from pathlib import Path

from tests.commands import ROOT
from tests.guarantees.cases import CASES

PAGE = ROOT / "docs" / "guarantees.md"


NOT_RUN = "not run yet"


def figures(text: str) -> dict[str, str]:
    """The figures that a page holds, by the name of their case."""
    rows = re.findall(r"^\| (\w+) \| .* \| (.*) \| `.*` \|$", text, re.MULTILINE)
    return dict(rows)


def table(known: dict[str, str]) -> str:
    """The rows of the page."""
    lines = ["| case | injection | figure | command |", "|---|---|---|---|"]
    for name, case in CASES.items():
        command = f"`python -m tests.guarantees {name}`"
        lines.append(f"| {name} | {case.injection} | {known.get(name, NOT_RUN)} | {command} |")
    return "\n".join(lines) + "\n"


def main(names: list[str]) -> None:
    """Makes the figures of some cases, or of all, and writes each into the page at once."""
    for name in names or list(CASES):
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            figure = CASES[name].figure(Path(folder))
        print(f"{name}: {figure} ({time.monotonic() - began:.0f} s)", flush=True)
        text = PAGE.read_text()
        known = figures(text) | {name: figure}
        head = text[: text.index("| case |")]
        PAGE.write_text(head + table(known))


if __name__ == "__main__":
    main(sys.argv[1:])
