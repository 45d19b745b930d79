"""The images with the most false positives and misses."""

from __future__ import annotations

import numpy as np

from detector.analysis.worst import Image, worst_images
from tests.analysis.made import make_outcomes

SHOWN = make_outcomes(
    [0.9, 0.25, 0.25, 0.5, 0.75],
    [0.0, 0.0, 0.0, 0.0, 0.9],
    images=[0, 1, 1, 2, 3],
    missed=[(2, 0), (2, 0), (3, 0), (1, 0)],
    num_images=5,
)


def test_images_are_ranked_by_scores_of_false_positives_and_number_of_misses() -> None:
    worst = worst_images(SHOWN, np.array([10, 20, 30, 40, 50]))
    # Equal weights: the lower id first.
    assert worst.false_positives == [Image(10, 1, 0.9), Image(20, 2, 0.5), Image(30, 1, 0.5)]
    assert worst.misses == [Image(30, 2, 2.0), Image(20, 1, 1.0), Image(40, 1, 1.0)]


def test_no_more_than_asked_for_are_listed() -> None:
    worst = worst_images(SHOWN, np.array([10, 20, 30, 40, 50]), top=1)
    assert [image.image_id for image in worst.false_positives + worst.misses] == [10, 30]


def test_a_set_without_faults_has_no_worst_images() -> None:
    worst = worst_images(make_outcomes([0.9], [0.8]), np.array([10]))
    assert (worst.false_positives, worst.misses) == ([], [])
