"""The matcher of ATSS on cases small enough to see, and against the algorithm in words."""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest
import torch

from detector.config.model import AnchorConfig
from detector.config.registry import MATCHERS
from detector.config.schema import Plug
from detector.errors import ConfigError
from detector.matchers.atss import ATSSMatcher, nearest_anchors
from detector.matchers.locations import locations_of
from detector.structures import BACKGROUND, IGNORE, Anchors
from tests.matchers.cases import Box, objects, pyramid, random_objects
from tests.matchers.test_base import loop_area, loop_iou, loop_shared


def row(*boxes: Box) -> Anchors:
    """One level of a stride of 10."""
    table = torch.tensor(boxes, dtype=torch.float64)
    return Anchors(table, torch.full((len(table),), 10.0, dtype=torch.float64), (len(table),))


SQUARES = row(*((x, 0.0, x + 10.0, 10.0) for x in (0.0, 10.0, 20.0, 30.0)))


def labels_of(anchors: Anchors, boxes: list[Box], **options: int) -> list[int]:
    return ATSSMatcher(**options)(anchors, objects(boxes)).labels[0].tolist()


def test_an_anchor_of_unusual_overlap_is_positive() -> None:
    # IoU 0.8, 0, 0: threshold 0.8 / 3 + 0.8 / sqrt(3) = 0.73.
    assert labels_of(SQUARES, [(0, 0, 10, 8)], candidates=3) == [0] + [BACKGROUND] * 3


def test_the_deviation_is_the_unbiased_one() -> None:
    """Of two candidates that differ none reaches mean + |a - b| / sqrt(2); the biased deviation,
    |a - b| / 2, would make the better one positive."""
    assert labels_of(SQUARES, [(1, 0, 13, 10)], candidates=2) == [BACKGROUND] * 4


def test_candidates_of_equal_overlap_are_all_positive() -> None:
    assert labels_of(SQUARES, [(0, 0, 40, 10)], candidates=9) == [0, 0, 0, 0]


def test_a_single_candidate_is_positive_if_it_is_inside() -> None:
    assert labels_of(SQUARES, [(0, 0, 10, 8)], candidates=1) == [0] + [BACKGROUND] * 3


@pytest.mark.parametrize(("right", "label"), [(4.0, BACKGROUND), (5.005, BACKGROUND), (5.1, 0)])
def test_the_centre_of_a_positive_is_inside_its_object(right: float, label: int) -> None:
    # The first anchor is centred at 5; the only one that overlaps.
    assert labels_of(SQUARES, [(0, 0, right, 10)], candidates=3)[0] == label


def test_an_anchor_that_two_objects_claim_goes_to_the_one_it_overlaps_more() -> None:
    # IoU with the first anchor: 0.5 and 0.8, all others 0.
    assert labels_of(SQUARES, [(0, 0, 10, 20), (0, 0, 10, 8)], candidates=3)[0] == 1
    assert labels_of(SQUARES, [(0, 0, 10, 8), (0, 0, 10, 20)], candidates=3)[0] == 0


def test_of_equal_claims_the_first_object_wins() -> None:
    matches = ATSSMatcher(candidates=3)(SQUARES, objects([(0, 0, 10, 8)] * 2))
    assert matches.objects[0].tolist() == [0, -1, -1, -1]


def test_candidates_are_counted_on_each_level() -> None:
    # The same four squares on two levels, candidates 0 and 1 of each.
    anchors = replace(
        SQUARES,
        boxes=SQUARES.boxes.repeat(2, 1),
        strides=SQUARES.strides.repeat(2),
        level_sizes=(4, 4),
    )
    near = nearest_anchors(objects([(0, 0, 12, 10)]).boxes[0], locations_of(anchors), 2)
    assert sorted(near[0].tolist()) == [0, 1, 4, 5]


def test_a_candidate_location_brings_all_its_anchors() -> None:
    anchors = pyramid(128)
    near = nearest_anchors(objects([(10, 10, 31, 30)]).boxes[0], locations_of(anchors), 9)
    # 9 locations on the three finest levels, 4 and 1 on the coarse ones, 9 anchors each.
    assert near.shape == (1, (9 + 9 + 9 + 4 + 1) * 9)
    assert len(set(near[0].tolist())) == near.shape[1]
    center = (anchors.boxes[near[0, :81], :2] + anchors.boxes[near[0, :81], 2:]) / 2
    # Around (20.5, 20): the 3 x 3 cells of 8 px whose middle one is centred at (20, 20).
    assert sorted(set(center[:, 0].round().int().tolist())) == [12, 20, 28]


def in_words(
    anchors: Anchors, boxes: list[list[float]], is_crowd: list[bool], k: int, per_cell: int
) -> list[int]:
    """Algorithm 1, anchor by anchor and object by object."""
    table = anchors.boxes.tolist()
    claims: dict[int, list[tuple[float, int]]] = {a: [] for a in range(len(table))}
    for m, box in enumerate(boxes):
        if is_crowd[m]:
            continue
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        near: list[int] = []
        start = 0
        for size in anchors.level_sizes:
            cells = range(start, start + size, per_cell)

            def distance(a: int, x: float = x, y: float = y) -> float:
                x1, y1, x2, y2 = table[a]
                return ((x1 + x2) / 2 - x) ** 2 + ((y1 + y2) / 2 - y) ** 2

            for cell in sorted(cells, key=distance)[:k]:
                near += range(cell, cell + per_cell)
            start += size
        overlap = {a: loop_iou(table[a], box) for a in near}
        threshold = statistics.mean(overlap.values()) + statistics.stdev(overlap.values())
        for a in near:
            x1, y1, x2, y2 = table[a]
            cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
            margin = min(cx - box[0], cy - box[1], box[2] - cx, box[3] - cy)
            if overlap[a] >= threshold and margin > 0.01:
                claims[a].append((overlap[a], -m))
    crowds = [box for box, c in zip(boxes, is_crowd, strict=True) if c]
    result = []
    for a, anchor in enumerate(table):
        inside = max((loop_shared(anchor, box) for box in crowds), default=0.0)
        lost = IGNORE if inside / loop_area(anchor) >= 0.5 else BACKGROUND
        result.append(-max(claims[a])[1] if claims[a] else lost)
    return result


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("k", "config"),
    [(9, AnchorConfig()), (3, AnchorConfig()), (9, AnchorConfig(scales=(2.0,), ratios=(1.0,)))],
    ids=["9 of 9", "3 of 9", "9 of 1"],
)
def test_matches_equal_the_algorithm_in_words(seed: int, k: int, config: AnchorConfig) -> None:
    anchors = pyramid(128, config)
    counts = [6, 2, 9]
    targets = random_objects(counts, seed)
    matches = ATSSMatcher(candidates=k)(anchors, targets)
    per_cell = len(config.scales) * len(config.ratios)
    for i, count in enumerate(counts):
        boxes, crowd = targets.boxes[i, :count].tolist(), targets.crowd[i, :count].tolist()
        expected = in_words(anchors, boxes, crowd, k, per_cell)
        assert matches.labels[i].tolist() == expected  # the label of object m is m
    assert int(matches.foreground.sum()) > 10


def test_no_candidates_are_refused() -> None:
    with pytest.raises(ConfigError) as error:
        MATCHERS.build(Plug("atss", {"candidates": 0}))
    assert str(error.value) == "matcher.candidates: 0 given, at least 1 is needed"
