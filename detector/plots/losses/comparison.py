"""Losses against cross entropy in numbers: what an easy answer costs less, and a hopeless one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from detector.layouts import logit
from detector.plots.losses.curves import MARKS, Probe, Subject

HOPELESS = 200.0
"""Logit of an answer that could not be more wrong: all limits are reached there in float64."""

NOTHING = 1e-9
"""A slope below this is that of a loss that gives up on hopeless answers."""


@dataclass(frozen=True)
class Comparison:
    """A loss for one truth against cross entropy.

    weight: |slope| at a hopelessly wrong answer, which for cross entropy is 1; 0 where the loss
    gives up on it. factors: at `MARKS`, how many times less the loss is than cross entropy of that
    weight, or of weight 1 where it is 0.
    """

    weight: float
    factors: tuple[float, ...]

    def in_words(self, i: int) -> str:
        """Such as "0.25 CE / 100": the loss at the mark i."""
        weight = "" if self.weight in (0.0, 1.0) else f"{self.weight:.3g} "
        factor = self.factors[i]
        times = f"{factor:.3g}" if factor < 999.5 else f"{factor:,.0f}"
        return f"{weight}CE" if abs(factor - 1) < 1e-6 else f"{weight}CE / {times}"


def compare(probe: Probe) -> Comparison:
    """Weight and factors of a loss, asked at these points: nothing is read off a curve."""
    sign = 1 if probe.truth else -1
    slope = probe(torch.tensor([-sign * HOPELESS])).slope.abs().item()
    weight = slope if slope > NOTHING else 0.0
    points = torch.tensor([sign * logit(p_t) for p_t in MARKS], dtype=torch.float64)
    values = probe(points).loss.tolist()
    plain = [(weight or 1.0) * -math.log(p_t) for p_t in MARKS]
    factors = (a / b if b > 0 else math.inf for a, b in zip(plain, values, strict=True))
    return Comparison(weight, tuple(factors))


def markdown(subjects: Sequence[Subject]) -> str:
    """A table of `Comparison`s, a row for each loss and truth."""
    marks = [f"less at p_t {p_t}" for p_t in MARKS]
    rows = [["loss", "y", "weight if hopeless", *marks]]
    for one in subjects:
        for probe, y in ((one.yes, "1"), (one.no, "0")):
            rows.append([one.label, y, *_cells(probe)])
    return "\n".join("| " + " | ".join(row) + " |" for row in _aligned(rows))


def remarks(subjects: Iterable[Subject]) -> list[str]:
    """A line for each thing a reader has to know of how a curve was made."""
    return [f"{one.label}: {note}" for one in subjects for note in one.notes]


def _cells(probe: Probe | None) -> list[str]:
    if probe is None:
        return ["no curve"] + ["-"] * len(MARKS)
    result = compare(probe)
    return [f"{result.weight:.4g}", *(f"{factor:.4g}x" for factor in result.factors)]


def _aligned(rows: list[list[str]]) -> list[list[str]]:
    """With a rule below the head, all cells of a column as wide as the widest."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = [[cell.ljust(w) for cell, w in zip(row, widths, strict=True)] for row in rows]
    return [padded[0], ["-" * w for w in widths], *padded[1:]]
