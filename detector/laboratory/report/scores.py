"""How many detections of each score are right: what the pictures of scores are drawn from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detector.analysis.matching import Outcomes
from detector.laboratory.compare.study import Plain

BINS = 10
"""Over [0, 1], as reliability diagrams mostly have."""


def score_counts(found: Outcomes, bins: int = BINS) -> Plain:
    """Edges (B + 1), counts of right and wrong detections (B) and sums of scores (B).

    A bin is (low, high]; a score of 0 is in the first.
    """
    edges = np.arange(bins + 1) / bins
    places = np.searchsorted(edges[1:-1], found.scores, side="left")
    hits = found.hits.astype(bool)
    return {
        "iou": found.threshold,
        "edges": edges.tolist(),
        "right": np.bincount(places[hits], minlength=bins).tolist(),
        "wrong": np.bincount(places[~hits], minlength=bins).tolist(),
        "score_sums": np.bincount(places, weights=found.scores, minlength=bins).tolist(),
    }


def pooled(parts: Sequence[Plain]) -> Plain:
    """The counts of several runs as of one."""
    names = ("right", "wrong", "score_sums")
    sums = {name: np.sum([part[name] for part in parts], axis=0).tolist() for name in names}
    return {"iou": parts[0]["iou"], "edges": parts[0]["edges"], **sums}
