"""What every registered box loss must hold, with boxes gone wild; a new one is tested here too."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from detector.boxes import iou
from detector.config.registry import BOX_LOSSES
from detector.structures import BACKGROUND, IGNORE, Predictions
from tests.box_losses.cases import scattered, swapped, total
from tests.by_hand import gradient, match, predict
from tests.shipped import is_a_strangers
from tests.synthetic import PlainCoder, make_anchors, make_matches, make_targets

VARIANTS = [(name, {}) for name in BOX_LOSSES.names] + [
    ("iou", {"form": "linear"}),
    ("iou", {"form": "square"}),
    ("eiou", {"focal_gamma": 0.5}),
]
BLIND = ("iou", "iou linear", "iou square", "eiou 0.5")
"""No gradient where boxes are disjoint."""

ONE_SIDED = ("l1", "smooth_l1", "balanced_l1", "yolo")
"""In units of the anchor or of its cell: a prediction and an object are not treated alike."""


def label(variant: tuple[str, dict]) -> str:
    return " ".join([variant[0], *map(str, variant[1].values())])


@pytest.fixture(params=VARIANTS, ids=label)
def variant(request: pytest.FixtureRequest) -> tuple[str, dict]:
    return request.param


def test_nothing_but_positives_has_a_value_or_a_gradient(variant: tuple[str, dict]) -> None:
    predictions, matches = scattered()
    loss = total(*variant, predictions, matches)
    assert loss.shape == (3, 60)
    assert not loss[~matches.foreground].any()
    assert bool((loss >= 0).all())
    pulled = gradient(loss.sum(), predictions.deltas).any(-1)
    touching = matches.foreground & (iou(predictions.boxes, matches.boxes) > 0)
    assert 0 < int(touching.sum()) < int(matches.foreground.sum())
    if is_a_strangers("box_loss", variant[0]):  # it may be blind, which is listed for the others
        assert bool((pulled <= matches.foreground).all())
        assert bool(pulled[touching].all())
    else:
        assert torch.equal(pulled, touching if label(variant) in BLIND else matches.foreground)


def test_moving_everything_changes_nothing(variant: tuple[str, dict]) -> None:
    predictions, matches = scattered()
    shift = torch.tensor([30.0, -70.0, 30.0, -70.0], dtype=torch.float64)
    anchors = replace(predictions.anchors, boxes=predictions.anchors.boxes + shift)
    moved = replace(matches, boxes=matches.boxes + shift, anchors=anchors)
    # Coordinates of other size round differently.
    torch.testing.assert_close(
        total(*variant, replace(predictions, anchors=anchors), moved),
        total(*variant, predictions, matches),
        rtol=1e-9,
        atol=1e-9,
    )


def test_a_perfect_box_costs_nothing_and_is_left_alone(variant: tuple[str, dict]) -> None:
    predictions, matches = scattered()
    deltas = PlainCoder().encode(matches.boxes, predictions.anchors.boxes).requires_grad_()
    loss = total(*variant, replace(predictions, deltas=deltas), matches)
    torch.testing.assert_close(loss, torch.zeros_like(loss), rtol=0, atol=1e-12)
    assert torch.isfinite(gradient(loss.sum(), deltas)).all()


def test_prediction_and_object_are_treated_alike(variant: tuple[str, dict]) -> None:
    if variant[0] in ONE_SIDED or is_a_strangers("box_loss", variant[0]):
        pytest.skip("errors are counted from the anchor, or may be")
    predictions, matches = scattered()
    # encode and decode round.
    torch.testing.assert_close(
        total(*variant, *swapped(predictions, matches)),
        total(*variant, predictions, matches),
        atol=1e-12,
        rtol=0,
    )


def test_the_order_of_anchors_does_not_matter(variant: tuple[str, dict]) -> None:
    predictions, matches = scattered()
    order = torch.arange(59, -1, -1)
    a = predictions.anchors
    anchors = replace(a, boxes=a.boxes[order], strides=a.strides[order], level_sizes=(60,))
    turned = replace(predictions, deltas=predictions.deltas[:, order], anchors=anchors)
    moved = replace(
        matches,
        labels=matches.labels[:, order],
        boxes=matches.boxes[:, order],
        objects=matches.objects[:, order],
        anchors=anchors,
    )
    loss = total(*variant, turned, moved)
    torch.testing.assert_close(loss[:, order], total(*variant, predictions, matches))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("value", [-200.0, 200.0])
def test_wild_deltas_keep_value_and_gradient_finite(
    variant: tuple[str, dict], dtype: torch.dtype, value: float
) -> None:
    anchors, targets = make_anchors(), make_targets([3, 0, 5], 2)
    deltas = torch.full((3, 60, 4), value, dtype=dtype, requires_grad=True)
    predictions = Predictions(torch.zeros(3, 60, 2), deltas, anchors, PlainCoder())
    loss = total(*variant, predictions, make_matches(anchors, targets))
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss).all()
    slopes = gradient(loss.sum(), deltas)
    assert not slopes.isnan().any()
    # The slope of a square 200 sides away is a finite number, but may be none of float16's.
    assert dtype == torch.float16 or torch.isfinite(slopes).all()


EMPTY = [0.0, 0.0, -200.0, -200.0]
FLAT = [0.0, 0.0, 0.0, -200.0]
AWAY = [50.0, 50.0, 0.0, 0.0]
EMPTY_AND_AWAY = [50.0, 50.0, -200.0, -200.0]
SAME = [0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("deltas", [EMPTY, FLAT, AWAY, EMPTY_AND_AWAY, SAME], ids=str)
def test_empty_flat_distant_and_equal_boxes_keep_value_and_gradient_finite(
    variant: tuple[str, dict], dtype: torch.dtype, deltas: list[float]
) -> None:
    """exp(-200) is 0 in float32."""
    predictions = predict(
        torch.zeros(1, 1, 1, dtype=dtype), deltas=torch.tensor([[deltas]], dtype=dtype)
    )
    loss = total(*variant, predictions, match(predictions, [[0]]))
    assert torch.isfinite(loss).all()
    assert torch.isfinite(gradient(loss.sum(), predictions.deltas)).all()


@pytest.mark.parametrize("side", [1e-3, 1e-6, 0.0])
def test_slivers_keep_value_and_gradient_finite(variant: tuple[str, dict], side: float) -> None:
    predictions = predict(torch.zeros(1, 1, 1))
    matches = match(predictions, [[0]], boxes={(0, 0): (5.0, 5.0, 5.0 + side, 30.0)})
    loss = total(*variant, predictions, matches)
    assert torch.isfinite(loss).all()
    assert torch.isfinite(gradient(loss.sum(), predictions.deltas)).all()


def test_images_without_objects_cost_nothing(variant: tuple[str, dict]) -> None:
    predictions = predict(torch.zeros(2, 3, 1))
    matches = match(predictions, [[BACKGROUND] * 3, [IGNORE] * 3])
    loss = total(*variant, predictions, matches)
    assert not loss.any()
    assert not gradient(loss.sum(), predictions.deltas).any()


def test_float64_stays_float64(variant: tuple[str, dict]) -> None:
    assert total(*variant, *scattered()).dtype == torch.float64
