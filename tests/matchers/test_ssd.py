"""The matcher of SSD: the same ladder of overlaps, without a neutral band."""

from __future__ import annotations

from detector.matchers.ssd import SSDMatcher
from detector.structures import BACKGROUND, IGNORE
from tests.matchers.test_retinanet import CONTEST, CONTESTANTS, LADDER, targets_of


def test_below_one_half_is_background() -> None:
    matches = SSDMatcher()(LADDER, targets_of([(0, 0, 10, 10)], [7]))
    assert matches.labels.tolist() == [[7, 7] + [BACKGROUND] * 4]


def test_each_object_is_given_its_best_anchor() -> None:
    matches = SSDMatcher()(CONTEST, CONTESTANTS)
    assert matches.labels.tolist() == [[4, 3]]
    assert matches.objects.tolist() == [[1, 0]]


def test_an_object_that_no_anchor_touches_forces_nothing() -> None:
    matches = SSDMatcher()(LADDER, targets_of([(80, 80, 90, 90)], [7]))
    assert matches.labels.tolist() == [[BACKGROUND] * 6]


def test_only_a_crowd_makes_an_anchor_neutral() -> None:
    targets = targets_of([(0, 0, 10, 10), (50, 50, 60, 60)], [7, 0], [False, True])
    matches = SSDMatcher()(LADDER, targets)
    assert matches.labels.tolist() == [[7, 7, BACKGROUND, BACKGROUND, BACKGROUND, IGNORE]]
