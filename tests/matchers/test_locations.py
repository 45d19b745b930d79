"""Cells of the maps and their anchors."""

from __future__ import annotations

import torch

from detector.config.model import AnchorConfig
from detector.matchers.locations import locations_of, nearest, squared_distance
from detector.structures import Anchors
from tests.matchers.cases import pyramid
from tests.synthetic import make_anchors


def test_the_anchors_of_a_pyramid_stand_nine_to_a_cell() -> None:
    locations = locations_of(pyramid(128))
    assert locations.num_anchors == 9
    assert locations.level_sizes == (256, 64, 16, 4, 1)
    # Cells of 8 px, row by row, centred.
    expected = torch.tensor([[4.0, 4.0], [12.0, 4.0], [20.0, 4.0]], dtype=torch.float64)
    torch.testing.assert_close(locations.centers[:3], expected, rtol=0, atol=1e-4)
    assert locations.strides[[0, 256, 320, 336, 340]].tolist() == [8, 16, 32, 64, 128]


def test_a_number_of_anchors_is_read_from_the_anchors() -> None:
    for scales, ratios in (((1.0,), (1.0,)), ((1.0,), (0.5, 2.0)), ((1.0, 1.5), (0.5, 1.0, 2.0))):
        config = AnchorConfig(scales=scales, ratios=ratios, offset=0.0)
        assert locations_of(pyramid(256, config)).num_anchors == len(scales) * len(ratios)


def test_the_anchors_of_a_location_lie_side_by_side() -> None:
    anchors = pyramid(128)
    locations = locations_of(anchors)
    index = locations.anchors_at(torch.tensor([0, 300]))
    assert index.tolist() == [list(range(9)), list(range(2700, 2709))]
    corners = anchors.boxes[index]
    centers = (corners[..., :2] + corners[..., 2:]) / 2
    # The corners are rounded to float32.
    expected = locations.centers[[0, 300]][:, None].expand_as(centers)
    torch.testing.assert_close(centers, expected, rtol=0, atol=1e-4)


def test_scattered_anchors_are_locations_of_one() -> None:
    anchors = make_anchors(60)
    locations = locations_of(anchors)
    assert (locations.num_anchors, locations.level_sizes) == (1, (30, 30))
    assert len(locations.centers) == 60


def test_a_level_without_cells_is_legal() -> None:
    boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0], [2.0, 2.0, 6.0, 6.0]])
    locations = locations_of(Anchors(boxes, torch.full((2,), 8.0), (0, 2)))
    assert (locations.num_anchors, locations.level_sizes) == (2, (0, 1))


def test_the_nearest_location_is_looked_for_among_the_candidates() -> None:
    locations = locations_of(pyramid(128))
    point = torch.tensor([[13.0, 5.0], [127.0, 127.0]], dtype=torch.float64)
    assert nearest(point, locations, locations.strides == 8).tolist() == [1, 255]
    assert nearest(point, locations, locations.strides == 64).tolist() == [336, 339]


def test_distances_of_many_points_keep_their_digits() -> None:
    # 30 points: `torch.cdist` would multiply matrices, and be off by more than 0.1 here.
    points = torch.tensor([[4000.25, 3000.5]]).expand(30, 2)
    assert squared_distance(points, points[:1] + 0.25).flatten().tolist() == [0.125] * 30
