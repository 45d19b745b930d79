"""Calibration before NMS: of every anchor and class, against the label it was to learn."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse

from detector.analysis import bootstrap
from detector.analysis.bootstrap import Statistic
from detector.analysis.calibrators import Link
from detector.inference.predictor import Predictor
from detector.matchers.base import Matcher
from detector.structures import Batch, Targets, to_device

EDGES = np.array([0, 1e-4, 1e-3, 1e-2, 0.05, *(np.arange(1, 11) / 10)])
"""Of bins (low, high]: almost all scores of a detector are near 0, where equal bins see nothing."""

CONVENTION = (
    "sum over bins |sum of scores - sum of labels| / pairs of anchor and class; labels are those "
    "of the matcher, ignored anchors left out; bins (low, high] with edges "
    + ", ".join(f"{edge:g}" for edge in EDGES)
)

LEAST = 0.05
"""Raw score above which a pair is among "above": most of what NMS is given to choose from."""


@dataclass(frozen=True)
class Bins:
    """Of each bin: pairs, sum of scores and sum of labels, (I, B) each, I images."""

    counts: np.ndarray
    scores: np.ndarray
    labels: np.ndarray

    def statistic(self) -> Statistic:
        """The calibration error as a function of sums over images."""
        number = len(EDGES) - 1
        gaps = self.scores - self.labels
        table = np.concatenate([gaps, self.counts.sum(axis=1, keepdims=True)], axis=1)

        def value(sums: np.ndarray) -> np.ndarray:
            total = np.abs(sums[:, :number]).sum(axis=1)
            pairs = sums[:, number]
            return np.divide(total, pairs, out=np.full(len(sums), np.nan), where=pairs > 0)

        def noise(sums: np.ndarray, whole: np.ndarray) -> np.ndarray:
            shift = np.concatenate([sums[:, :number] - whole[:number], sums[:, number:]], axis=1)
            return value(shift)

        return Statistic(sparse.csr_array(table), value, noise)

    def to_dict(self) -> dict[str, list[Any]]:
        """Of all images, with the means of each bin, None in an empty one."""
        counts = self.counts.sum(axis=0)
        columns = {"scores": self.scores.sum(axis=0), "labels": self.labels.sum(axis=0)}
        return {
            "edges": EDGES.tolist(),
            "counts": counts.astype(int).tolist(),
            **{
                name: [float(s / n) if n else None for s, n in zip(sums, counts, strict=True)]
                for name, sums in columns.items()
            },
        }


@torch.no_grad()
def anchor_calibration(
    predictor: Predictor,
    matcher: Matcher,
    batches: Iterable[tuple[Batch, Targets]],
    link: Link,
    *,
    draws: int,
    seed: int,
) -> dict[str, Any]:
    """The error of raw scores and of their link inverse, of all pairs and of those above LEAST."""
    parts: dict[str, list[tuple[np.ndarray, ...]]] = {}
    layout = predictor.layout
    for batch, targets in batches:
        predictions, targets = predictor.predict(batch), to_device(targets, predictor.device)
        matches = matcher(predictions.anchors, targets, predictions)
        hot = matches.one_hot(layout.num_classes)
        for i in range(len(batch.image_ids)):
            valid = matches.valid[i]
            scores = layout.scores(predictions.logits[i])[valid].double().flatten().cpu().numpy()
            labels = hot[i][valid].flatten().cpu().numpy()
            posteriors = link(scores)
            above = scores > LEAST
            for name, values in (("raw", scores), ("link_inverse", posteriors)):
                parts.setdefault(f"{name}, all", []).append(_sums(values, labels))
                chosen = _sums(values[above], labels[above])
                parts.setdefault(f"{name}, above", []).append(chosen)
    found = {name: Bins(*map(np.stack, zip(*rows, strict=True))) for name, rows in parts.items()}
    return _summary(found, draws, seed)


def _sums(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs, sum of scores and sum of labels of each bin."""
    number = len(EDGES) - 1
    cells = np.searchsorted(EDGES[1:-1], scores, side="left")
    return (
        np.bincount(cells, minlength=number).astype(np.float64),
        np.bincount(cells, weights=scores, minlength=number),
        np.bincount(cells, weights=labels.astype(np.float64), minlength=number),
    )


def _summary(found: dict[str, Bins], draws: int, seed: int) -> dict[str, Any]:
    statistics = {name: bins.statistic() for name, bins in found.items()}
    num_images = len(next(iter(found.values())).counts)
    spans = bootstrap.intervals(statistics, num_images, draws=draws, seed=seed)
    return {
        "convention": CONVENTION,
        "above": LEAST,
        "errors": {
            name: {"value": statistic.of_all(), **asdict(spans[name])}
            for name, statistic in statistics.items()
        },
        "bins": {name: bins.to_dict() for name, bins in found.items()},
    }


def table(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """Rows of cells: scores, pairs, error with its interval."""
    rows = [("anchors and classes", "pairs", "error", "95 % interval")]
    for name, row in found["errors"].items():
        pairs = sum(found["bins"][name]["counts"])
        span = "-" if row["low"] is None else f"{row['low']:.6f} .. {row['high']:.6f}"
        rows.append((name, f"{pairs:,}", f"{row['value']:.6f}", span))
    return rows
