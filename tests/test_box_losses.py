"""Box losses: values by hand, properties, and boxes gone wild."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss

from detector.box_losses import GIoULoss, L1Loss, SmoothL1Loss, YOLOBoxLoss
from detector.errors import ConfigError
from detector.registry import BOX_LOSSES
from detector.schema import Plug
from detector.structures import BACKGROUND, IGNORE, Matches, Predictions
from tests.by_hand import gradient, match, predict
from tests.synthetic import PlainCoder, make_anchors, make_matches, make_targets

LN2 = math.log(2)


def one_positive(anchor: tuple, box: tuple, deltas: list[float]) -> tuple[Predictions, Matches]:
    predictions = predict(
        torch.zeros(1, 1, 1, dtype=torch.float64),
        anchors=[anchor],
        deltas=torch.tensor([[deltas]], dtype=torch.float64),
    )
    return predictions, match(predictions, [[0]], boxes={(0, 0): box})


# Centre half a side right and down, twice as high: deltas (0.5, 0.5, 0, ln 2).
SHIFTED = one_positive((0, 0, 10, 10), (5, 0, 15, 20), [0.0] * 4)


def total(name: str, options: dict, predictions: Predictions, matches: Matches) -> Tensor:
    """(N, A) sum of the terms."""
    terms = BOX_LOSSES.build(Plug(name, options))(predictions, matches)
    return sum(terms.values())  # type: ignore[return-value]


def test_l1_is_the_sum_over_the_four_deltas() -> None:
    predictions, matches = SHIFTED
    loss = L1Loss()(predictions, matches)["box"]
    assert loss.tolist() == [[pytest.approx(1 + LN2, abs=1e-9)]]
    assert gradient(loss.sum(), predictions.deltas).tolist() == [[[-1, -1, 0, -1]]]


def test_smooth_l1_is_square_below_beta_and_straight_above() -> None:
    predictions, matches = SHIFTED
    wide = SmoothL1Loss(beta=1.0)(predictions, matches)["box"]
    assert wide.tolist() == [[pytest.approx(0.125 + 0.125 + LN2**2 / 2, abs=1e-9)]]
    narrow = SmoothL1Loss(beta=0.1)(predictions, matches)["box"]
    assert narrow.tolist() == [[pytest.approx(0.45 + 0.45 + LN2 - 0.05, abs=1e-9)]]
    slopes = gradient(wide.sum(), predictions.deltas)[0, 0]
    assert slopes.tolist() == pytest.approx([-0.5, -0.5, 0, -LN2], abs=1e-9)


def test_giou_of_two_squares_that_share_a_corner() -> None:
    # Shared 1, union 7, hull 9: 1/7 - 2/9.
    predictions, matches = one_positive((0, 0, 2, 2), (1, 1, 3, 3), [0.0] * 4)
    loss = GIoULoss()(predictions, matches)["box"]
    assert loss.tolist() == [[pytest.approx(1 - 1 / 7 + 2 / 9, abs=1e-9)]]


def test_giou_still_pulls_where_boxes_do_not_touch() -> None:
    # Union 2, hull 3: giou -1/3; a step to the right, toward the object, lowers the loss.
    predictions, matches = one_positive((0, 0, 1, 1), (2, 0, 3, 1), [0.0] * 4)
    loss = GIoULoss()(predictions, matches)["box"]
    assert loss.tolist() == [[pytest.approx(4 / 3, abs=1e-9)]]
    assert gradient(loss.sum(), predictions.deltas)[0, 0, 0].item() < 0


def test_giou_agrees_with_torchvision() -> None:
    predictions, matches = scattered()
    ours = GIoULoss()(predictions, matches)["box"][matches.foreground]
    theirs = generalized_box_iou_loss(predictions.boxes, matches.boxes)[matches.foreground]
    # torchvision adds 1e-7 to both divisors.
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_yolo_counts_centres_in_cells_and_roots_of_sides_in_images() -> None:
    # 16 px and 8 px off on a stride of 16; sides 32 and 32 against 64 and 16 in 256 x 128.
    predictions, matches = one_positive((0, 0, 32, 32), (0, 0, 64, 16), [0.0] * 4)
    terms = YOLOBoxLoss(lambda_coord=2.0)(predictions, matches)
    assert terms["box_center"].tolist() == [[pytest.approx(2 * (1 + 0.25), abs=1e-9)]]
    roots = (math.sqrt(32 / 256) - math.sqrt(64 / 256), math.sqrt(32 / 128) - math.sqrt(16 / 128))
    expected = 2 * (roots[0] ** 2 + roots[1] ** 2)
    assert terms["box_size"].tolist() == [[pytest.approx(expected, abs=1e-9)]]


@pytest.mark.parametrize(("stride", "cost"), [(8.0, 5.0), (16.0, 1.25), (32.0, 0.3125)])
def test_yolo_takes_the_cell_of_the_anchors_own_level(stride: float, cost: float) -> None:
    # 8 px off in x: 5 (8 / stride)^2.
    predictions = predict(torch.zeros(1, 1, 1, dtype=torch.float64), stride=stride)
    matches = match(predictions, [[0]], boxes={(0, 0): (8.0, 0.0, 40.0, 32.0)})
    loss = YOLOBoxLoss()(predictions, matches)["box_center"]
    assert loss.tolist() == [[pytest.approx(cost, abs=1e-9)]]


@pytest.fixture(params=BOX_LOSSES.names)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def scattered(dtype: torch.dtype = torch.float64) -> tuple[Predictions, Matches]:
    """60 anchors in three images with random deltas and random objects."""
    anchors, targets = make_anchors(dtype=torch.float64), make_targets([3, 0, 5], 2)
    targets = replace(targets, boxes=targets.boxes.double())
    generator = torch.Generator().manual_seed(5)
    deltas = 0.3 * torch.randn(3, 60, 4, generator=generator, dtype=torch.float64)
    logits = torch.zeros(3, 60, 2, dtype=torch.float64)
    predictions = Predictions(logits, deltas.to(dtype).requires_grad_(), anchors, PlainCoder())
    return predictions, make_matches(anchors, targets)


def test_nothing_but_positives_has_a_value_or_a_gradient(name: str) -> None:
    predictions, matches = scattered()
    loss = total(name, {}, predictions, matches)
    assert loss.shape == (3, 60)
    slopes = gradient(loss.sum(), predictions.deltas)
    assert torch.equal(loss > 0, matches.foreground)
    assert torch.equal(slopes.any(-1), matches.foreground)


def test_moving_everything_changes_nothing(name: str) -> None:
    predictions, matches = scattered()
    shift = torch.tensor([30.0, -70.0, 30.0, -70.0], dtype=torch.float64)
    anchors = replace(predictions.anchors, boxes=predictions.anchors.boxes + shift)
    moved = replace(matches, boxes=matches.boxes + shift, anchors=anchors)
    # Coordinates of other size round differently.
    torch.testing.assert_close(
        total(name, {}, replace(predictions, anchors=anchors), moved),
        total(name, {}, predictions, matches),
        rtol=1e-9,
        atol=1e-9,
    )


def test_a_perfect_box_costs_nothing(name: str) -> None:
    predictions, matches = scattered()
    deltas = PlainCoder().encode(matches.boxes, predictions.anchors.boxes)
    loss = total(name, {}, replace(predictions, deltas=deltas), matches)
    torch.testing.assert_close(loss, torch.zeros_like(loss), rtol=0, atol=1e-12)


def test_giou_treats_prediction_and_object_alike() -> None:
    predictions, matches = scattered()
    coder, anchors = PlainCoder(), predictions.anchors.boxes
    swapped = replace(predictions, deltas=coder.encode(matches.boxes, anchors))
    turned = replace(matches, boxes=predictions.boxes.detach())
    torch.testing.assert_close(
        total("giou", {}, swapped, turned),
        total("giou", {}, predictions, matches),
        atol=1e-12,
        rtol=0,
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("value", [-200.0, 200.0])
def test_wild_deltas_keep_value_and_gradient_finite(
    name: str, dtype: torch.dtype, value: float
) -> None:
    anchors, targets = make_anchors(), make_targets([3, 0, 5], 2)
    deltas = torch.full((3, 60, 4), value, dtype=dtype, requires_grad=True)
    predictions = Predictions(torch.zeros(3, 60, 2), deltas, anchors, PlainCoder())
    loss = total(name, {}, predictions, make_matches(anchors, targets))
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss).all()
    slopes = gradient(loss.sum(), deltas)
    assert not slopes.isnan().any()
    # The slope of a square 200 sides away is a finite number, but may be none of float16's.
    assert dtype == torch.float16 or torch.isfinite(slopes).all()


@pytest.mark.parametrize("side", [1e-3, 1e-6])
def test_slivers_keep_value_and_gradient_finite(name: str, side: float) -> None:
    predictions = predict(torch.zeros(1, 1, 1))
    matches = match(predictions, [[0]], boxes={(0, 0): (5.0, 5.0, 5.0 + side, 30.0)})
    loss = total(name, {}, predictions, matches)
    assert torch.isfinite(loss).all()
    assert torch.isfinite(gradient(loss.sum(), predictions.deltas)).all()


def test_images_without_objects_cost_nothing(name: str) -> None:
    predictions = predict(torch.zeros(2, 3, 1))
    matches = match(predictions, [[BACKGROUND] * 3, [IGNORE] * 3])
    loss = total(name, {}, predictions, matches)
    assert not loss.any()
    assert not gradient(loss.sum(), predictions.deltas).any()


@pytest.mark.parametrize(
    ("plug", "message"),
    [
        (
            Plug("smooth_l1", {"beta": 0.0}),
            "box_loss.beta: 0.0 given, above 0 is needed (for 0 take box_loss=l1)",
        ),
        (
            Plug("yolo", {"lambda_coord": 0.0}),
            "box_loss.lambda_coord: 0.0 given, above 0 is needed",
        ),
    ],
)
def test_options_out_of_range_are_refused(plug: Plug, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        BOX_LOSSES.build(plug)
    assert str(error.value) == message
