"""Box arithmetic against numbers by hand, torchvision, and what must hold for any box."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from detector import boxes

Measure = Callable[[Tensor, Tensor], Tensor]


def box(*corners: float) -> Tensor:
    return torch.tensor(corners, dtype=torch.float64)


def random_boxes(num: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(num, 2, generator=generator, dtype=torch.float64) * 100
    side = torch.rand(num, 2, generator=generator, dtype=torch.float64) * 60 + 0.1
    return torch.cat([low, low + side], -1)


def test_area_and_intersection_by_hand() -> None:
    assert boxes.area(box(1, 2, 4, 8)) == 18
    assert boxes.intersection(box(0, 0, 4, 4), box(2, 1, 6, 3)) == 4


def test_a_box_with_swapped_corners_has_no_area() -> None:
    assert boxes.area(box(4, 2, 1, 8)) == 0


def test_iou_by_hand() -> None:
    # 2 x 2 shared of 16 + 16.
    assert boxes.iou(box(0, 0, 4, 4), box(2, 2, 6, 6)).item() == pytest.approx(4 / 28)


def test_iou_of_two_empty_boxes_is_zero() -> None:
    empty = box(3, 3, 3, 3)
    assert boxes.iou(empty, empty) == 0
    assert boxes.giou(empty, empty) == 0


def test_coverage_counts_the_area_of_the_first_box_only() -> None:
    assert boxes.coverage(box(0, 0, 2, 2), box(1, 0, 100, 100)) == 0.5
    assert boxes.coverage(box(5, 5, 5, 9), box(0, 0, 100, 100)) == 0


def test_giou_by_hand() -> None:
    # Unit boxes one unit apart: union 2, hull 3; nothing shared.
    assert boxes.giou(box(0, 0, 1, 1), box(2, 0, 3, 1)).item() == pytest.approx(-1 / 3)


# Shared 4 of a union of 12, hull 4 x 4, centres (2, 1) and (1, 2).
LYING, STANDING = box(0, 0, 4, 2), box(0, 0, 2, 4)
FAMILY = [boxes.iou, boxes.giou, boxes.diou, boxes.ciou, boxes.eiou]


def test_the_hull_is_the_smallest_box_around_both() -> None:
    assert torch.equal(boxes.hull(box(0, 5, 2, 6), box(1, 1, 8, 2)), box(0, 1, 8, 6))


def test_diou_ciou_and_eiou_by_hand() -> None:
    diou = 4 / 12 - 2 / 32
    v = (2 / math.pi * (math.atan(2) - math.atan(1 / 2))) ** 2
    assert boxes.diou(LYING, STANDING).item() == pytest.approx(diou)
    assert boxes.ciou(LYING, STANDING).item() == pytest.approx(diou - v * v / (8 / 12 + v))
    assert boxes.eiou(LYING, STANDING).item() == pytest.approx(diou - 4 / 16 - 4 / 16)


def test_wasserstein_by_hand() -> None:
    # Centres (3, 0) apart, half widths 2 apart, half heights 6 apart.
    assert boxes.wasserstein(box(0, 0, 2, 2), box(1, -6, 7, 8)).item() == pytest.approx(7)
    assert boxes.wasserstein(LYING, LYING) == 0


@pytest.mark.parametrize("measure", FAMILY)
def test_every_overlap_is_1_for_equal_boxes_and_0_for_two_empty_ones(measure: Measure) -> None:
    a = random_boxes(50, 6)
    torch.testing.assert_close(measure(a, a), torch.ones(50, dtype=torch.float64))
    assert measure(box(3, 3, 3, 3), box(3, 3, 3, 3)) == 0


@pytest.mark.parametrize("measure", [*FAMILY, boxes.wasserstein])
def test_every_overlap_is_symmetric_and_broadcasts(measure: Measure) -> None:
    a, b = random_boxes(30, 7), random_boxes(20, 8)
    table = measure(a[:, None], b)
    assert table.shape == (30, 20)
    torch.testing.assert_close(table, measure(b[:, None], a).T)


def test_each_overlap_is_at_most_the_simpler_one_and_at_least_its_limit() -> None:
    a, b = random_boxes(500, 9), random_boxes(500, 10)
    iou, _, diou, ciou, eiou = (measure(a, b) for measure in FAMILY)
    assert bool((diou <= iou).all() and (ciou <= diou).all() and (eiou <= diou).all())
    assert bool((diou >= -1).all() and (ciou >= -2).all() and (eiou >= -3).all())


def test_tables_of_pairs_equal_torchvision() -> None:
    a, b = random_boxes(30, 0), random_boxes(20, 1)
    # float64 rounding only.
    torch.testing.assert_close(boxes.iou(a[:, None], b), torchvision.ops.box_iou(a, b))
    torch.testing.assert_close(boxes.giou(a[:, None], b), torchvision.ops.generalized_box_iou(a, b))


def test_giou_is_at_most_iou_and_symmetric() -> None:
    a, b = random_boxes(200, 2), random_boxes(200, 3)
    giou = boxes.giou(a, b)
    assert bool((giou <= boxes.iou(a, b) + 1e-12).all())
    assert bool(((giou >= -1) & (giou <= 1)).all())
    torch.testing.assert_close(giou, boxes.giou(b, a))


def test_encode_by_hand() -> None:
    # Centre (12, 30) against (10, 20), sides (8, 40) against (4, 20).
    deltas = boxes.encode(box(8, 10, 16, 50), box(8, 10, 12, 30))
    torch.testing.assert_close(deltas, box(0.5, 0.5, math.log(2), math.log(2)))


def test_decode_by_hand() -> None:
    decoded = boxes.decode(box(0.5, 0.5, math.log(2), math.log(2)), box(8, 10, 12, 30))
    torch.testing.assert_close(decoded, box(8, 10, 16, 50))


coordinate = st.floats(-500, 500)
side = st.floats(0.01, 1000)


@given(x=coordinate, y=coordinate, w=side, h=side, anchor_w=st.floats(16, 800))
def test_decode_is_the_inverse_of_encode(
    x: float, y: float, w: float, h: float, anchor_w: float
) -> None:
    anchor = box(10, 20, 10 + anchor_w, 120)
    b = box(x, y, x + w, y + h)
    back = boxes.decode(boxes.encode(b, anchor), anchor)
    # Corners of 1,000 px in float64 keep 12 digits through a log and an exp.
    torch.testing.assert_close(back, b, rtol=0, atol=1e-9)


def test_a_sliver_has_a_finite_code() -> None:
    assert bool(torch.isfinite(boxes.encode(box(5, 5, 5, 9), box(0, 0, 32, 32))).all())


def test_a_wild_delta_is_cut_at_the_largest_scale() -> None:
    decoded = boxes.decode(box(0, 0, 1000, 1000), box(0, 0, 16, 16))
    torch.testing.assert_close(decoded, box(-492, -492, 508, 508))


def test_boxes_are_clipped_to_their_own_image() -> None:
    b = torch.stack([box(-5, -5, 700, 700), box(-5, -5, 700, 700)])
    sizes = torch.tensor([[480, 640], [600, 100]])
    wanted = torch.stack([box(0, 0, 640, 480), box(0, 0, 100, 600)])
    assert torch.equal(boxes.clip(b, sizes), wanted)


def test_clip_leaves_a_box_inside_as_it_is() -> None:
    inside = box(1, 2, 30, 40)
    assert torch.equal(boxes.clip(inside, torch.tensor([40, 30])), inside)
