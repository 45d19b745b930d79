"""The box terms of YOLO v1: centres in cells, roots of sides in images."""

from __future__ import annotations

import math

import pytest
import torch

from detector.box_losses.yolo import YOLOBoxLoss
from detector.config.registry import BOX_LOSSES
from detector.config.schema import Plug
from detector.errors import ConfigError
from tests.box_losses.cases import one_positive
from tests.by_hand import match, predict


def test_yolo_counts_centres_in_cells_and_roots_of_sides_in_images() -> None:
    # 16 px and 8 px off on a stride of 16; sides 32 and 32 against 64 and 16 in 256 x 128.
    predictions, matches = one_positive((0, 0, 32, 32), (0, 0, 64, 16))
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


def test_a_weight_of_0_is_refused() -> None:
    with pytest.raises(ConfigError) as error:
        BOX_LOSSES.build(Plug("yolo", {"lambda_coord": 0.0}))
    assert str(error.value) == "box_loss.lambda_coord: 0.0 given, above 0 is needed"
