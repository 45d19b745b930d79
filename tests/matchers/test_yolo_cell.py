"""The responsible predictor of YOLO v1, in cells small enough to see and in words."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from detector.boxes import encode
from detector.config.model import AnchorConfig
from detector.config.registry import MATCHERS
from detector.config.schema import Plug
from detector.errors import ConfigError
from detector.matchers.locations import locations_of
from detector.matchers.yolo_cell import YOLOCellMatcher, cells_of
from detector.structures import BACKGROUND, Anchors, Matches, Targets
from tests.matchers.cases import (
    Box,
    objects,
    predictions_of,
    pyramid,
    random_objects,
    random_predictions,
)
from tests.matchers.test_base import loop_iou

# Two cells of 16 px side by side, each with a lying and a standing anchor.
CELLS: list[Box] = [(-8, 0, 24, 16), (0, -8, 16, 24), (8, 0, 40, 16), (16, -8, 32, 24)]
PAIR = Anchors(
    torch.tensor(CELLS, dtype=torch.float64), torch.full((4,), 16.0, dtype=torch.float64), (4,)
)
NO_DELTAS = torch.zeros(1, 4, 4, dtype=torch.float64)


def run(targets: Targets, deltas: Tensor | None = None) -> Matches:
    given = NO_DELTAS if deltas is None else deltas
    return YOLOCellMatcher()(PAIR, targets, predictions_of(PAIR, given.clone()))


def deltas_to(boxes: list[Box]) -> Tensor:
    """(1, A, 4) deltas at which the anchors of `PAIR` predict these boxes."""
    return encode(torch.tensor([boxes], dtype=torch.float64), PAIR.boxes)


def test_one_anchor_of_the_objects_cell_is_responsible_and_all_others_are_background() -> None:
    # The standing anchor of the left cell, though the right cell's are the object's equals.
    matches = run(objects([(2, -6, 14, 22)], labels=[7]))
    assert matches.labels.tolist() == [[BACKGROUND, 7, BACKGROUND, BACKGROUND]]
    near_twin = run(objects([(9.9, 0, 21.9, 16)], labels=[7]))  # centre 15.9: left, overlap right
    assert near_twin.labels[0, 2:].tolist() == [BACKGROUND] * 2


def test_a_neighbour_that_overlaps_perfectly_is_background_still() -> None:
    right: Box = (8, 0, 40, 16)
    # Both cells predict the object; its centre, 24, is the right cell's.
    matches = run(objects([right], labels=[3]), deltas_to([right, right, right, (0, 0, 1, 1)]))
    assert matches.labels.tolist() == [[BACKGROUND, BACKGROUND, 3, BACKGROUND]]


def test_responsible_is_who_predicts_best_now_not_whose_anchor_fits() -> None:
    lying: Box = (-6, 1, 22, 15)
    assert run(objects([lying])).objects[0].tolist() == [0, -1, -1, -1]
    # Now the standing anchor predicts a lying box, and the lying one something small.
    moved = run(objects([lying]), deltas_to([(6, 6, 10, 10), (-7, 1, 22, 15), *CELLS[2:]]))
    assert moved.objects[0].tolist() == [-1, 0, -1, -1]


def test_where_no_prediction_touches_the_nearest_in_shares_of_the_image_is_responsible() -> None:
    box: Box = (2, 2, 14, 14)
    # One is 30 px off to the right, one 20 px down, in an image 320 wide and 80 high:
    # 30 / 320 = 0.094 against 20 / 80 = 0.25, although 20 px are fewer.
    deltas = deltas_to([(32, 2, 44, 14), (2, 22, 14, 34), *CELLS[2:]])
    wide = objects([box], image_size=(80, 320))
    assert run(wide, deltas).objects[0].tolist() == [0, -1, -1, -1]
    square = objects([box], image_size=(320, 320))
    assert run(square, deltas).objects[0].tolist() == [-1, 0, -1, -1]


def test_the_smallest_overlap_beats_any_distance() -> None:
    box: Box = (2, 2, 14, 14)
    # The second touches a corner with an enormous box, the first lies just beside.
    deltas = deltas_to([(14.5, 2, 26.5, 14), (13.9, 13.9, 900, 900), *CELLS[2:]])
    assert run(objects([box]), deltas).objects[0].tolist() == [-1, 0, -1, -1]


def test_sides_count_in_the_distance_too() -> None:
    box: Box = (2, 2, 14, 14)
    # Both 100 px to the right; the second has the object's size.
    deltas = deltas_to([(107, 7, 109, 9), (102, 2, 114, 14), *CELLS[2:]])
    assert run(objects([box]), deltas).objects[0].tolist() == [-1, 0, -1, -1]


def test_objects_of_one_cell_take_an_anchor_each_the_larger_first() -> None:
    large: Box = (-6, 1, 22, 15)
    small: Box = (-2, 2, 18, 14)
    for boxes in ([large, small], [small, large]):
        matches = run(objects(boxes))
        first, second = matches.boxes[0, 0].tolist(), matches.boxes[0, 1].tolist()
        assert (first, second) == ([*map(float, large)], [*map(float, small)])


def test_an_object_for_which_its_cell_has_no_anchor_left_goes_without() -> None:
    boxes: list[Box] = [(2, 2, 14, 14), (1, 1, 15, 15), (0, 0, 16, 16)]
    matches = run(objects(boxes))
    assert sorted(matches.objects[0].tolist()) == [-1, -1, 1, 2]


def test_a_crowd_takes_no_anchor_from_an_object() -> None:
    boxes: list[Box] = [(2, 2, 14, 14), (0, 0, 16, 16)]
    matches = run(objects(boxes, crowd=[False, True]))
    alone = run(objects(boxes[:1]))
    assert torch.equal(matches.foreground, alone.foreground)


@pytest.mark.parametrize(
    ("side", "stride"),
    [(1, 8), (63.9, 8), (64, 16), (127.9, 16), (128, 32), (511.9, 64), (512, 128), (1000, 128)],
)
def test_the_level_is_that_of_the_objects_size(side: float, stride: int) -> None:
    anchors = pyramid(1024)
    locations = locations_of(anchors)
    box = torch.tensor([[5.0, 5.0, 5.0 + side, 5.0 + side]], dtype=torch.float64)
    cell = int(cells_of(box, locations, 64.0))
    assert locations.strides[cell] == stride
    center = 5 + side / 2
    # The cell that holds the centre.
    expected = torch.full((2,), (center // stride + 0.5) * stride, dtype=torch.float64)
    torch.testing.assert_close(locations.centers[cell], expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize(("w", "h"), [(224, 224), (112, 448), (30, 30), (700, 900), (100, 400)])
def test_the_level_is_equation_1_of_feature_pyramid_networks(w: float, h: float) -> None:
    level = min(7, max(3, math.floor(4 + math.log2(math.sqrt(w * h) / 224))))
    locations = locations_of(pyramid(1024))
    box = torch.tensor([[10.0, 10.0, 10.0 + w, 10.0 + h]], dtype=torch.float64)
    assert locations.strides[cells_of(box, locations, 224.0)].item() == 2**level


def test_nothing_is_differentiated() -> None:
    matches = run(objects([(2, 2, 14, 14)]))
    assert not matches.boxes.requires_grad


def test_without_predictions_the_anchors_stand_in() -> None:
    anchors = pyramid()
    targets = random_objects([5, 2], 4)
    zeros = torch.zeros(2, len(anchors.boxes), 4, dtype=torch.float64)
    matcher = YOLOCellMatcher()
    without, untrained = (
        matcher(anchors, targets, p) for p in (None, predictions_of(anchors, zeros))
    )
    assert torch.equal(without.labels, untrained.labels)


def test_predictions_that_are_no_numbers_serve_no_object() -> None:
    """Such a step is skipped, but it has to come to its end."""
    matches = run(objects([(2, 2, 14, 14)]), torch.full((1, 4, 4), math.nan, dtype=torch.float64))
    assert not matches.foreground.any()


def in_words(anchors: Anchors, predicted: list, boxes: list, size: int, per_cell: int) -> list[int]:
    """The rules, object by object from the largest."""
    table = anchors.boxes.tolist()
    strides = anchors.strides.tolist()
    owner = [BACKGROUND] * len(table)

    def shares(b: list[float]) -> list[float]:
        sides = [b[2] - b[0], b[3] - b[1]]
        return [x / size for x in [(b[0] + b[2]) / 2, (b[1] + b[3]) / 2, *sides]]

    def area(m: int) -> float:
        return (boxes[m][2] - boxes[m][0]) * (boxes[m][3] - boxes[m][1])

    for m in sorted(range(len(boxes)), key=area, reverse=True):
        level = min(7, max(3, 4 + math.floor(math.log2(math.sqrt(area(m)) / 64))))
        x, y = (boxes[m][0] + boxes[m][2]) / 2, (boxes[m][1] + boxes[m][3]) / 2
        cell = [
            a
            for a, (x1, y1, x2, y2) in enumerate(table)
            if strides[a] == 2**level
            and abs((x1 + x2) / 2 - x) < 2**level / 2
            and abs((y1 + y2) / 2 - y) < 2**level / 2
        ]
        assert len(cell) == per_cell
        free = [a for a in cell if owner[a] == BACKGROUND]
        overlap = {a: loop_iou(predicted[a], boxes[m]) for a in free}
        if not free:
            continue
        if max(overlap.values()) > 0:
            best = max(free, key=overlap.__getitem__)
        else:
            best = min(free, key=lambda a: math.dist(shares(predicted[a]), shares(boxes[m])))
        owner[best] = m
    return owner


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("scale", [1.0, 8.0])
def test_matches_equal_the_rules_in_words(seed: int, scale: float) -> None:
    """At scale 8 the predictions are wild, so many objects are touched by none."""
    config = AnchorConfig(scales=(1.0,), ratios=(0.5, 1.0, 2.0))
    anchors = pyramid(128, config)
    counts = [6, 30]
    targets = random_objects(counts, seed)
    targets = replace(targets, crowd=torch.zeros_like(targets.crowd))
    predictions = random_predictions(anchors, 2, seed)
    predictions = predictions_of(anchors, scale * predictions.deltas.detach())
    matches = YOLOCellMatcher()(anchors, targets, predictions)
    for i, count in enumerate(counts):
        boxes = targets.boxes[i, :count].tolist()
        expected = in_words(anchors, predictions.boxes[i].tolist(), boxes, 128, 3)
        assert matches.objects[i].tolist() == expected


def test_a_size_of_0_is_refused() -> None:
    with pytest.raises(ConfigError) as error:
        MATCHERS.build(Plug("yolo_cell", {"canonical_size": 0.0}))
    assert str(error.value) == "matcher.canonical_size: 0.0 given, above 0 is needed"
