"""Losses of overlap: values by hand, torchvision, and the traps of CIoU and Focal-EIoU."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.ops import (
    complete_box_iou_loss,
    distance_box_iou_loss,
    generalized_box_iou_loss,
)

from detector import boxes
from detector.config.registry import BOX_LOSSES
from detector.config.schema import Plug
from detector.errors import ConfigError
from tests.box_losses.cases import Corners, one_positive, scaled, scattered, slopes, total, value
from tests.by_hand import gradient

NAMES = ["iou", "giou", "diou", "ciou", "eiou"]

# Two squares that share a corner: shared 1, union 7, hull 3 x 3, centres (1, 1) and (2, 2).
CORNER: tuple[Corners, Corners] = ((0, 0, 2, 2), (1, 1, 3, 3))
# A lying and a standing box: shared 4, union 12, hull 4 x 4, centres (2, 1) and (1, 2).
CROSSED: tuple[Corners, Corners] = ((0, 0, 4, 2), (0, 0, 2, 4))
# Unit squares one apart: hull 3 x 1, centres 2 apart.
APART: tuple[Corners, Corners] = ((0, 0, 1, 1), (2, 0, 3, 1))

V = (2 / math.pi * math.atan(3 / 4)) ** 2
"""Of `CROSSED`: tan(atan 2 - atan 1/2) = (2 - 1/2) / (1 + 1)."""


@pytest.mark.parametrize(
    ("name", "options", "pair", "expected"),
    [
        ("iou", {}, CORNER, math.log(7)),
        ("iou", {"form": "linear"}, CORNER, 6 / 7),
        ("iou", {"form": "square"}, CORNER, 48 / 49),
        ("iou", {}, APART, 6 * math.log(10)),
        ("iou", {"form": "linear"}, APART, 1.0),
        ("giou", {}, CORNER, 1 - 1 / 7 + 2 / 9),
        ("giou", {}, CROSSED, 2 / 3 + 4 / 16),
        ("giou", {}, APART, 1 + 1 / 3),
        ("diou", {}, CORNER, 6 / 7 + 2 / 18),
        ("diou", {}, CROSSED, 2 / 3 + 2 / 32),
        ("diou", {}, APART, 1 + 4 / 10),
        ("ciou", {}, CORNER, 6 / 7 + 2 / 18),
        ("ciou", {}, CROSSED, 2 / 3 + 2 / 32 + V * V / (2 / 3 + V)),
        ("eiou", {}, CORNER, 6 / 7 + 2 / 18),
        ("eiou", {}, CROSSED, 2 / 3 + 2 / 32 + 4 / 16 + 4 / 16),
        ("eiou", {"focal_gamma": 0.5}, CROSSED, math.sqrt(1 / 3) * (2 / 3 + 1 / 16 + 1 / 2)),
        ("eiou", {"focal_gamma": 2.0}, CORNER, (1 / 7) ** 2 * (6 / 7 + 1 / 9)),
        ("eiou", {"focal_gamma": 0.5}, APART, 0.0),
    ],
)
def test_values_by_hand(
    name: str, options: dict, pair: tuple[Corners, Corners], expected: float
) -> None:
    assert value(name, options, *pair) == pytest.approx(expected, abs=1e-12)


def test_giou_still_pulls_where_boxes_do_not_touch() -> None:
    # A step to the right, toward the object, lowers the loss.
    assert slopes("giou", {}, *APART)[0].item() < 0


@pytest.mark.parametrize("form", ["log", "linear", "square"])
def test_iou_does_not_pull_where_boxes_do_not_touch(form: str) -> None:
    assert not slopes("iou", {"form": form}, *APART).any()


def test_diou_moves_a_box_inside_its_object_where_giou_does_not() -> None:
    """The paper's case for it: inside, the hull is the object, and GIoU is the IoU."""
    inside: tuple[Corners, Corners] = ((2, 4, 4, 6), (0, 0, 10, 10))
    assert slopes("giou", {}, *inside)[0].item() == pytest.approx(0, abs=1e-12)
    # (2 dx - 2)^2 / 200 at dx = 0, a delta being 2 px wide: toward the middle, to the right.
    assert slopes("diou", {}, *inside)[0].item() == pytest.approx(-8 / 200, abs=1e-12)


def pairs() -> tuple[Tensor, Tensor]:
    """2,000 random pairs in float64, half of them near each other."""
    generator = torch.Generator().manual_seed(11)
    center = 200 * torch.rand(2, 2000, 2, generator=generator, dtype=torch.float64)
    center[1, :1000] = center[0, :1000] + 8 * torch.randn(
        1000, 2, generator=generator, dtype=torch.float64
    )
    half = 3 + 20 * torch.rand(2, 2000, 2, generator=generator, dtype=torch.float64)
    first, second = torch.cat([center - half, center + half], -1)
    return first, second


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("giou", generalized_box_iou_loss),
        ("diou", distance_box_iou_loss),
        ("ciou", complete_box_iou_loss),
    ],
)
def test_torchvision_gives_the_same_values_and_gradients(
    name: str, theirs: Callable[[Tensor, Tensor], Tensor]
) -> None:
    a, b = pairs()
    a.requires_grad_()
    ours = 1 - getattr(boxes, name)(a, b)
    expected = theirs(a, b)
    # torchvision adds 1e-7 to all divisors.
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(
        gradient(ours.sum(), a), gradient(expected.sum(), a), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("factor", [0.25, 64.0])
def test_scaling_the_picture_changes_neither_loss_nor_gradient(name: str, factor: float) -> None:
    predictions, matches = scattered()
    larger, its_matches = scaled(predictions, matches, factor)
    before, after = total(name, {}, predictions, matches), total(name, {}, larger, its_matches)
    torch.testing.assert_close(after, before)  # powers of two; float64 rounding
    torch.testing.assert_close(
        gradient(after.sum(), larger.deltas), gradient(before.sum(), predictions.deltas)
    )


def test_each_loss_adds_to_the_one_before() -> None:
    predictions, matches = scattered()
    linear, diou, ciou, eiou = (
        total(name, options, predictions, matches)
        for name, options in (("iou", {"form": "linear"}), ("diou", {}), ("ciou", {}), ("eiou", {}))
    )
    assert bool((linear <= diou).all())
    assert bool((diou <= ciou).all())
    assert bool((diou <= eiou).all())


def ciou_terms(w: float, h: float) -> tuple[float, float, float]:
    """IoU, centre penalty and v of a box (0, 0, w, h) and the object (0, 0, 2, 4), in floats."""
    shared = min(w, 2) * min(h, 4)
    iou = shared / (w * h + 8 - shared)
    hull = max(w, 2) ** 2 + max(h, 4) ** 2
    distance = ((w - 2) / 2) ** 2 + ((h - 4) / 2) ** 2
    v = (2 / math.pi * (math.atan(w / h) - math.atan(1 / 2))) ** 2
    return iou, distance / hull, v


def slope_of_width(*, differentiate_alpha: bool) -> float:
    """d CIoU loss / d w at the box (0, 0, 3, 2), whose left edge stays, by central differences."""
    iou, _, v = ciou_terms(3, 2)
    alpha = v / (1 - iou + v)

    def loss(w: float) -> float:
        iou, penalty, v = ciou_terms(w, 2)
        return 1 - iou + penalty + (v / (1 - iou + v) if differentiate_alpha else alpha) * v

    return (loss(3 + 1e-5) - loss(3 - 1e-5)) / 2e-5


def test_the_alpha_of_ciou_has_no_gradient() -> None:
    predictions, matches = one_positive((0, 0, 3, 2), (0, 0, 2, 4))
    loss = total("ciou", {}, predictions, matches)
    found = gradient(loss.sum(), predictions.boxes)[0, 0, 2].item()
    # Central differences err by the square of their step, 1e-10.
    assert found == pytest.approx(slope_of_width(differentiate_alpha=False), abs=1e-8)
    assert abs(found - slope_of_width(differentiate_alpha=True)) > 0.005


def test_the_aspect_counts_at_every_overlap() -> None:
    """Also where the IoU is below one half, and where boxes are disjoint."""
    assert value("ciou", {}, *CROSSED) > value("diou", {}, *CROSSED)
    away = ((0, 0, 4, 2), (10, 0, 12, 4))
    penalty = V * V / (1 + V)
    assert value("ciou", {}, *away) == pytest.approx(value("diou", {}, *away) + penalty, abs=1e-12)


def test_boxes_of_one_aspect_cost_the_same_under_diou_and_ciou() -> None:
    similar = ((0, 0, 3, 6), (1, 1, 2, 3))
    assert value("ciou", {}, *similar) == pytest.approx(value("diou", {}, *similar), abs=1e-12)


def test_the_focal_factor_of_eiou_has_no_gradient() -> None:
    focal = slopes("eiou", {"focal_gamma": 0.5}, *CROSSED)
    torch.testing.assert_close(focal, math.sqrt(1 / 3) * slopes("eiou", {}, *CROSSED))


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError) as error:
        BOX_LOSSES.build(Plug("eiou", {"focal_gamma": 0.0}))
    assert str(error.value) == "box_loss.focal_gamma: 0.0 given, above 0 or null is needed"
    with pytest.raises(ConfigError) as error:
        BOX_LOSSES.build(Plug("iou", {"form": "lin"}))
    assert str(error.value).startswith("box_loss.form: 'lin' is not one of log, linear, square")
