"""Reliability diagrams with their counts, by class and by size."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from detector.analysis import reliability
from tests.analysis.made import make_outcomes


def test_a_diagram_by_hand() -> None:
    scores = np.array([0.1, 0.25, 0.5, 0.75])
    hits = np.array([False, True, True, False])
    made = reliability.diagram(scores, np.array([0.0, 0.9, 0.7, 0.0]), hits, number=2)
    assert made.edges == [0, 0.5, 1]
    assert (made.counts, made.right) == ([3, 1], [2, 0])
    assert made.scores == pytest.approx([0.85 / 3, 0.75])
    assert made.targets == pytest.approx([1.6 / 3, 0.0])


def test_an_empty_bin_has_no_means() -> None:
    made = reliability.diagram(np.array([0.9]), np.array([1.0]), np.array([True]), number=2)
    assert (made.counts, made.scores, made.targets) == ([0, 1], [None, 0.9], [None, 1.0])


def test_every_detection_is_in_one_class_and_in_one_size() -> None:
    found = make_outcomes(
        [0.1, 0.2, 0.3, 0.4], [0.9, 0.0, 0.9, 0.0], labels=[0, 1, 1, 1], num_classes=2
    )
    found = dataclasses.replace(found, areas=np.array([1023.0, 1024.0, 9215.0, 9216.0]))
    made = reliability.diagrams(found)
    numbers = {
        group: {name: sum(d.counts) for name, d in named.items()} for group, named in made.items()
    }
    assert numbers == {
        "all": {"all": 4},
        "class": {"class 0": 1, "class 1": 3},
        "size": {"small": 1, "medium": 2, "large": 1},
    }
    assert made["class"]["class 1"].targets[1:4] == [0.0, 1.0, 0.0]
    assert made["size"]["large"].right == [0] * 10
