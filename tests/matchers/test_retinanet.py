"""The matcher of RetinaNet on cases small enough to see."""

from __future__ import annotations

import pytest
import torch

from detector.matchers.retinanet import RetinaNetMatcher
from detector.structures import BACKGROUND, IGNORE, Anchors, Targets

Box = tuple[float, float, float, float]


def anchors_of(*boxes: Box) -> Anchors:
    table = torch.tensor(boxes, dtype=torch.float32)
    return Anchors(table, torch.full((len(table),), 8.0), (len(table),))


def targets_of(boxes: list[Box], labels: list[int], crowd: list[bool] | None = None) -> Targets:
    """One image of 100 x 100."""
    return Targets(
        boxes=torch.tensor([boxes], dtype=torch.float32),
        labels=torch.tensor([labels]),
        crowd=torch.tensor([crowd or [False] * len(boxes)]),
        image_sizes=torch.tensor([[100, 100]]),
        image_ids=(1,),
        keys=torch.tensor([0]),
    )


# IoU with the object (0, 0, 10, 10): 1, 100/200, 100/220, 100/250, 100/260, 0.
LADDER = anchors_of(
    (0, 0, 10, 10), (0, 0, 10, 20), (0, 0, 10, 22), (0, 0, 10, 25), (0, 0, 10, 26), (50, 50, 60, 60)
)


def test_half_is_positive_four_tenths_neutral_and_less_background() -> None:
    matches = RetinaNetMatcher()(LADDER, targets_of([(0, 0, 10, 10)], [7]))
    assert matches.labels.tolist() == [[7, 7, IGNORE, IGNORE, BACKGROUND, BACKGROUND]]
    assert matches.objects.tolist() == [[0, 0, -1, -1, -1, -1]]
    assert matches.boxes[0, 1].tolist() == [0, 0, 10, 10]
    assert matches.boxes[0, 2].tolist() == [0, 0, 10, 22]


def test_the_neutral_band_moves_with_its_thresholds() -> None:
    matcher = RetinaNetMatcher(foreground_iou=0.45, background_iou=0.39)
    matches = matcher(LADDER, targets_of([(0, 0, 10, 10)], [7]))
    assert matches.labels.tolist() == [[7, 7, 7, IGNORE, BACKGROUND, BACKGROUND]]


# A overlaps object 0 by 100/220 (neutral), but is the best that object 1 has, with 20/100.
# B is object 0 itself.
CONTEST = anchors_of((0, 0, 10, 10), (0, 0, 10, 22))
CONTESTANTS = targets_of([(0, 0, 10, 22), (0, 0, 4, 5)], [3, 4])


@pytest.mark.parametrize(
    ("force", "label"), [("object", 4), ("anchor", 3), ("none", IGNORE)], ids=str
)
def test_an_objects_best_anchor_is_forced_as_the_mode_says(force: str, label: int) -> None:
    matches = RetinaNetMatcher(force=force)(CONTEST, CONTESTANTS)  # type: ignore[arg-type]
    assert matches.labels.tolist() == [[label, 3]]
    # With the label goes the box.
    box = {4: [0, 0, 4, 5], 3: [0, 0, 10, 22], IGNORE: [0, 0, 10, 10]}[label]
    assert matches.boxes[0, 0].tolist() == box


def test_forcing_to_the_object_beats_a_better_overlap_with_another() -> None:
    # The only anchor overlaps object 0 by 100/120, but object 1 has no other.
    matcher = RetinaNetMatcher()
    anchors = anchors_of((0, 0, 10, 10), (0, 0, 10, 12))
    targets = targets_of([(0, 0, 10, 12), (0, 0, 5, 10)], [0, 1])
    assert matcher(anchors, targets).labels.tolist() == [[1, 0]]


def test_of_two_objects_with_the_same_best_anchor_the_one_overlapped_more_gets_it() -> None:
    targets = targets_of([(0, 0, 4, 5), (0, 0, 5, 6)], [0, 1])
    matches = RetinaNetMatcher()(anchors_of((0, 0, 10, 10), (60, 60, 70, 70)), targets)
    assert matches.labels.tolist() == [[1, BACKGROUND]]


def test_equally_good_anchors_are_all_forced() -> None:
    anchors = anchors_of((0, 0, 10, 10), (0, 0, 10, 10), (1, 0, 11, 10))
    matches = RetinaNetMatcher()(anchors, targets_of([(0, 0, 4, 5)], [2]))
    assert matches.labels.tolist() == [[2, 2, BACKGROUND]]


@pytest.mark.parametrize("force", ["object", "anchor", "none"])
def test_an_object_that_no_anchor_touches_forces_nothing(force: str) -> None:
    targets = targets_of([(0, 0, 10, 10), (80, 80, 90, 90)], [7, 8])
    matches = RetinaNetMatcher(force=force)(LADDER, targets)  # type: ignore[arg-type]
    assert matches.labels.tolist() == [[7, 7, IGNORE, IGNORE, BACKGROUND, BACKGROUND]]


def test_anchors_half_inside_a_crowd_are_neutral_unless_positive() -> None:
    # The crowd covers all of the first four, 10 of 26 rows of the fifth and none of the last.
    crowd = (0.0, 16.0, 10.0, 26.0)
    targets = targets_of([(0, 0, 10, 10), crowd], [7, 0], [False, True])
    labels = RetinaNetMatcher()(LADDER, targets).labels
    assert labels.tolist() == [[7, 7, IGNORE, IGNORE, BACKGROUND, BACKGROUND]]
    half = RetinaNetMatcher(crowd_coverage=10 / 26)(LADDER, targets).labels
    assert half.tolist() == [[7, 7, IGNORE, IGNORE, IGNORE, BACKGROUND]]
