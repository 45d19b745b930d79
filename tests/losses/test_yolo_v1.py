"""YOLO v1 as published: matcher, class loss and box loss together are equation 3 of the paper."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from detector.box_losses.yolo import YOLOBoxLoss
from detector.config.model import AnchorConfig
from detector.config.registry import LOSSES
from detector.config.schema import Plug
from detector.errors import ConfigError
from detector.losses.yolo_v1 import YOLOv1Loss
from detector.matchers.yolo_cell import YOLOCellMatcher
from detector.structures import BACKGROUND, Matches, Predictions
from tests.by_hand import gradient, match, predict
from tests.matchers.cases import objects, predictions_of, pyramid, random_objects
from tests.matchers.test_base import loop_iou

LN3 = math.log(3)
"""sigmoid(ln 3) = 3/4, sigmoid(-ln 3) = 1/4."""


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_the_three_terms_of_two_anchors_by_hand() -> None:
    logits = torch.tensor([[[LN3, LN3, -LN3], [0.0, 8.0, 8.0]]], dtype=torch.float64)
    predictions = predict(logits)
    # The object is twice as wide as the box predicted: IoU 1/2.
    matches = match(predictions, [[0, BACKGROUND]], boxes={(0, 0): (0.0, 0.0, 64.0, 32.0)})
    terms = YOLOv1Loss(2, lambda_noobj=0.25)(predictions, matches)
    sums = {name: term.sum().item() for name, term in terms.items()}
    assert sums == pytest.approx(
        {
            "object": (3 / 4 - 1 / 2) ** 2,
            "no_object": 0.25 * (1 / 2) ** 2,
            "class": (3 / 4 - 1) ** 2 + (1 / 4) ** 2,
        },
        rel=1e-12,
    )
    slopes = gradient(sum(t.sum() for t in terms.values()), logits := predictions.logits)  # type: ignore[arg-type]
    assert logits.shape == slopes.shape
    slope = 3 / 16  # of the sigmoid at 3/4 and at 1/4
    expected = [[2 / 4 * slope, -2 / 4 * slope, 2 / 4 * slope], [0.25 * 2 / 2 / 4, 0, 0]]
    for found, wanted in zip(slopes[0].tolist(), expected, strict=True):
        assert found == pytest.approx(wanted, abs=1e-12)


def published(predictions: Predictions, matches: Matches, size: int) -> float:
    """Equation 3 over all images, in floats: cells in strides, sides in shares of the image."""
    total = 0.0
    for i, labels in enumerate(matches.labels.tolist()):
        for a, label in enumerate(labels):
            confidence, *classes = (sigmoid(x) for x in predictions.logits[i, a].tolist())
            if label == BACKGROUND:
                total += 0.5 * confidence**2
                continue
            box, true = predictions.boxes[i, a].tolist(), matches.boxes[i, a].tolist()
            stride = float(predictions.anchors.strides[a])
            for low, high in ((0, 2), (1, 3)):
                shift = (box[low] + box[high] - true[low] - true[high]) / 2 / stride
                sides = [math.sqrt((b[high] - b[low]) / size) for b in (box, true)]
                total += 5 * shift**2 + 5 * (sides[0] - sides[1]) ** 2
            total += (confidence - loop_iou(box, true)) ** 2
            total += sum((p - (c == label)) ** 2 for c, p in enumerate(classes))
    return total


def scene() -> tuple[Predictions, Matches]:
    """Two images of 128 px with 5 and 2 objects of classes 0 to 4, and random predictions."""
    anchors = pyramid(128, AnchorConfig(scales=(1.0,), ratios=(0.5, 1.0, 2.0)))
    targets = random_objects([5, 2], 7)
    targets = replace(targets, crowd=torch.zeros_like(targets.crowd))
    generator = torch.Generator().manual_seed(1)
    shape = (2, len(anchors.boxes))
    deltas = 0.3 * torch.randn(*shape, 4, generator=generator, dtype=torch.float64)
    logits = torch.randn(*shape, 6, generator=generator, dtype=torch.float64)
    predictions = replace(predictions_of(anchors, deltas), logits=logits.requires_grad_())
    return predictions, YOLOCellMatcher()(anchors, targets, predictions)


def test_matcher_and_losses_together_are_the_published_sum() -> None:
    predictions, matches = scene()
    assert int(matches.foreground.sum()) == 7
    terms = YOLOv1Loss(5)(predictions, matches) | YOLOBoxLoss()(predictions, matches)
    found = sum(term.sum().item() for term in terms.values())
    assert found == pytest.approx(published(predictions, matches, 128), rel=1e-12)


def test_every_object_is_fitted_once_and_every_other_anchor_is_pushed_to_0() -> None:
    predictions, matches = scene()
    terms = YOLOv1Loss(5)(predictions, matches)
    responsible = matches.foreground
    assert torch.equal(terms["class"].sum(-1) > 0, responsible)
    assert torch.equal(terms["object"] > 0, responsible)
    assert torch.equal(terms["no_object"] > 0, ~responsible)


def test_there_is_no_neutral_zone_around_an_object() -> None:
    """The boxes predicted by its neighbours are perfect, and yet they are told to say 0."""
    anchors = pyramid(128)
    targets = objects([(40.0, 40.0, 80.0, 80.0)])
    predictions = predict(torch.zeros(1, len(anchors.boxes), 2, dtype=torch.float64))
    predictions = replace(predictions, anchors=anchors)
    everywhere = replace(
        predictions,
        deltas=predictions.coder.encode(
            targets.boxes.expand(1, len(anchors.boxes), 4), anchors.boxes
        ),
    )
    matches = YOLOCellMatcher()(anchors, targets, everywhere)
    assert int(matches.foreground.sum()) == 1
    pushed = YOLOv1Loss(1)(everywhere, matches)["no_object"]
    assert int((pushed > 0).sum()) == len(anchors.boxes) - 1


def test_the_sum_is_no_mean_within_an_image() -> None:
    """So that any normaliser may be asked for; `configs/loss/yolo_v1.yaml` asks for the images."""
    assert YOLOv1Loss.normalizer == "positives"


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^loss\.lambda_noobj: -1\.0 given"):
        LOSSES.build(Plug("yolo_v1", {"lambda_noobj": -1.0}), 3)
