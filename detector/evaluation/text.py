"""Numbers and tables as text."""

from __future__ import annotations

from collections.abc import Sequence


def digits(number: float | None, places: int = 3) -> str:
    """The number with `places` decimals, "-" for None."""
    return "-" if number is None else f"{number:.{places}f}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of rows of equally many cells, the first column to the left, others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, whose head is the first row."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], f"|{'---|' * len(rows[0])}", *lines[1:]])
