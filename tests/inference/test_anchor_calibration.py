"""Calibration of anchors, against a loop over every anchor and class."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from detector.config import from_plain
from detector.data.loader import evaluation_batches
from detector.inference.anchor_calibration import EDGES, LEAST, anchor_calibration, table
from detector.inference.calibrated import link_of
from detector.runtime.distributed import World
from detector.training.setup import Setup, build, predictor_of
from detector.training.state import State
from tests.training.tiny import tiny

DRAWS = 50


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Setup, State]:
    plain = tiny(tmp_path_factory.mktemp("anchors"), prior=0.05)
    return build(from_plain(plain), plain, World(0, 1, torch.device("cpu")))


def batches(setup: Setup) -> list[Any]:
    return list(
        evaluation_batches(
            setup.val_set,
            setup.augment,
            images_per_group=2,
            rank=0,
            world_size=1,
            num_workers=0,
            timeout=0,
            limit=None,
        )
    )


def measured(setup: Setup, state: State) -> dict[str, Any]:
    link = link_of(state.criterion.loss)
    assert link is not None
    predictor = predictor_of(setup, state)
    predictor.model = state.model  # as `pairs` takes it, not the averaged weights
    return anchor_calibration(
        predictor, state.criterion.matcher, batches(setup), link, draws=DRAWS, seed=0
    )


@torch.no_grad()
def pairs(setup: Setup, state: State) -> tuple[np.ndarray, np.ndarray]:
    """Score and label of every anchor and class, one after another, in double precision."""
    scores, labels = [], []
    state.model.eval()
    for batch, targets in batches(setup):
        predictions = state.model(batch)
        matches = state.criterion.matcher(predictions.anchors, targets, predictions)
        values = predictions.logits.sigmoid()
        for i, row in enumerate(matches.labels.tolist()):
            for a, label in enumerate(row):
                if not bool(matches.valid[i, a]):
                    continue
                for k, value in enumerate(values[i, a].tolist()):
                    scores.append(value)
                    labels.append(float(label == k))
    return np.array(scores), np.array(labels)


def error(scores: np.ndarray, labels: np.ndarray) -> float:
    gaps = [0.0] * (len(EDGES) - 1)
    for score, label in zip(scores, labels, strict=True):
        place = next(i for i, high in enumerate(EDGES[1:]) if score <= high)
        gaps[place] += score - label
    return sum(map(abs, gaps)) / len(scores)


def test_errors_equal_a_loop_over_every_anchor_and_class(made: tuple[Setup, State]) -> None:
    found = measured(*made)["errors"]
    scores, labels = pairs(*made)
    assert labels.sum() > 0
    link = link_of(made[1].criterion.loss)
    assert link is not None
    above = scores > LEAST
    assert 0 < above.sum() < len(scores)
    expected = {
        "raw, all": error(scores, labels),
        "raw, above": error(scores[above], labels[above]),
        "link_inverse, all": error(link(scores), labels),
        "link_inverse, above": error(link(scores[above]), labels[above]),
    }
    assert {name: row["value"] for name, row in found.items()} == pytest.approx(
        expected, rel=1e-9
    )  # sums of 10^5 doubles in another order


def test_bins_hold_every_pair_once(made: tuple[Setup, State]) -> None:
    found = measured(*made)
    scores, labels = pairs(*made)
    for name in ("raw, all", "link_inverse, all"):
        bins = found["bins"][name]
        assert sum(bins["counts"]) == len(scores)
        right = sum(n * mean for n, mean in zip(bins["counts"], bins["labels"], strict=True) if n)
        assert right == pytest.approx(labels.sum())


def test_intervals_hold_the_errors_and_the_table_names_them(made: tuple[Setup, State]) -> None:
    found = measured(*made)
    for row in found["errors"].values():
        assert row["low"] <= row["value"] <= row["high"]
    head, *rows = table(found)
    assert [row[0] for row in rows] == list(found["errors"])
    assert len(head) == len(rows[0])
