"""YOLO's five terms, worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from detector.box_losses.yolo import YOLOBoxLoss
from detector.config.registry import LOSSES
from detector.config.schema import Plug
from detector.errors import ConfigError
from detector.losses.yolo import YOLOLoss
from detector.structures import BACKGROUND, IGNORE, Matches, Predictions
from tests.by_hand import gradient, match, predict

LN3 = math.log(3)
"""sigmoid(ln 3) = 3/4, sigmoid(-ln 3) = 1/4."""


def worked_example() -> tuple[Predictions, Matches]:
    """Three anchors (0, 0, 32, 32) of stride 16 in an image 256 wide and 128 high: a positive of
    class 0 whose object is twice as wide, a background and a neutral one. The boxes predicted are
    the anchors, so the IoU of the positive is 1/2."""
    logits = [[LN3, LN3, -LN3], [0.0, 8.0, 8.0], [9.0, 9.0, 9.0]]
    predictions = predict(torch.tensor([logits], dtype=torch.float64))
    matches = match(predictions, [[0, BACKGROUND, IGNORE]], boxes={(0, 0): (0.0, 0.0, 64.0, 32.0)})
    return predictions, matches


def test_the_five_terms_of_a_worked_example() -> None:
    predictions, matches = worked_example()
    terms = YOLOLoss(2)(predictions, matches) | YOLOBoxLoss()(predictions, matches)
    sums = {name: term.sum().item() for name, term in terms.items()}
    assert sums == pytest.approx(
        {
            # 5 x one cell of 16 px squared: the centres are (16, 16) and (32, 16).
            "box_center": 5.0,
            # 5 x (sqrt(32 / 256) - sqrt(64 / 256))^2; the heights agree.
            "box_size": 5 * (math.sqrt(1 / 8) - 1 / 2) ** 2,
            "object": (3 / 4 - 1 / 2) ** 2,
            "no_object": 0.5 * (1 / 2) ** 2,
            "class": (3 / 4 - 1) ** 2 + (1 / 4) ** 2,
        },
        rel=1e-9,
    )


def test_the_gradients_are_twice_the_error_times_the_slope_of_the_sigmoid() -> None:
    predictions, matches = worked_example()
    total = sum(term.sum() for term in YOLOLoss(2)(predictions, matches).values())
    slopes = gradient(total, predictions.logits)[0].tolist()  # type: ignore[arg-type]
    slope = 3 / 16  # of the sigmoid at both 3/4 and 1/4
    expected = [2 * (3 / 4 - 1 / 2) * slope, 2 * (3 / 4 - 1) * slope, 2 * (1 / 4) * slope]
    assert slopes[0] == pytest.approx(expected, abs=1e-9)
    assert slopes[1] == pytest.approx([0.5 * 2 * (1 / 2) / 4, 0.0, 0.0], abs=1e-9)
    assert slopes[2] == [0.0, 0.0, 0.0]


def test_the_iou_to_be_foretold_does_not_pull_on_the_boxes() -> None:
    predictions, matches = worked_example()
    total = sum(term.sum() for term in YOLOLoss(2)(predictions, matches).values())
    (pull,) = torch.autograd.grad(total, predictions.deltas, allow_unused=True)  # type: ignore[arg-type]
    assert pull is None


def test_confidence_follows_the_current_box() -> None:
    predictions, matches = worked_example()
    # Shifted by half its width and twice as wide: exactly the object.
    deltas = torch.zeros(1, 3, 4, dtype=torch.float64)
    deltas[0, 0] = torch.tensor([0.5, 0.0, math.log(2), 0.0], dtype=torch.float64)
    moved = predict(predictions.logits, deltas=deltas)
    terms = YOLOLoss(2)(moved, matches) | YOLOBoxLoss()(moved, matches)
    assert terms["object"].sum().item() == pytest.approx((3 / 4 - 1) ** 2, rel=1e-9)
    left = terms["box_center"].sum() + terms["box_size"].sum()
    assert left.item() == pytest.approx(0, abs=1e-12)


def test_lambda_noobj_scales_the_background_alone() -> None:
    predictions, matches = worked_example()
    usual, tenth = (YOLOLoss(2, lambda_noobj=x)(predictions, matches) for x in (0.5, 0.05))
    assert tenth["no_object"].sum().item() == pytest.approx(usual["no_object"].sum().item() / 10)
    assert torch.equal(usual["object"], tenth["object"])
    assert torch.equal(usual["class"], tenth["class"])


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^loss\.lambda_noobj: -1\.0 given"):
        LOSSES.build(Plug("yolo", {"lambda_noobj": -1.0}), 3)
