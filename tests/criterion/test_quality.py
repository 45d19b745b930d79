"""Qualities as the targets of any loss that asks yes or no."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from detector.boxes import iou
from detector.config.registry import LOSSES
from detector.config.schema import Plug
from detector.criterion import Criterion
from detector.criterion.quality import toward_quality
from detector.errors import ConfigError
from detector.losses.base import ClassLoss
from detector.losses.quality_focal import soft_cross_entropy
from detector.structures import Matches, Predictions
from tests.synthetic import make_anchors, make_matches, make_predictions, make_targets

NAMES = [
    name
    for name in LOSSES.names
    if (cls := LOSSES.get(name)).separable and not cls.selects and not cls.asks_for_quality
]


def setting(loss: ClassLoss) -> tuple[Predictions, Matches]:
    anchors = make_anchors(dtype=torch.float64)
    targets = make_targets([3, 0, 5], loss.num_classes)
    predictions = make_predictions(loss.layout, anchors, 3, dtype=torch.float64)
    return predictions, make_matches(anchors, targets)


def test_cross_entropy_becomes_that_against_the_iou() -> None:
    loss = LOSSES.build(Plug("cross_entropy", {}), 3)
    predictions, matches = setting(loss)
    terms = toward_quality(loss, predictions, matches, "iou")
    quality = iou(predictions.boxes.detach(), matches.boxes).double()[..., None]
    targets = torch.where(matches.one_hot(3), quality, 0)
    expected = torch.where(
        matches.valid[..., None], soft_cross_entropy(predictions.logits, targets), 0
    )
    # Boxes of targets are in float32, and the two sum up in another order.
    torch.testing.assert_close(terms["class"], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_quality_1_is_the_loss_itself_and_quality_0_that_of_background(name: str) -> None:
    loss = LOSSES.build(Plug(name, {}), 3)
    predictions, matches = setting(loss)
    plain = loss(predictions, matches)
    for value in (0.0, 1.0):
        said = torch.where(matches.foreground, value, 0.0)
        found = toward_quality(loss, predictions, replace(matches, quality=said), "matcher")
        empty = replace(matches, labels=torch.where(matches.foreground, -1, matches.labels))
        expected = plain if value else loss(predictions, empty)
        for term in plain:
            torch.testing.assert_close(found[term], expected[term], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_neutral_anchors_change_nothing_and_slopes_are_finite(name: str) -> None:
    loss = LOSSES.build(Plug(name, {}), 3)
    predictions, matches = setting(loss)
    said = torch.where(matches.foreground, 0.5, 0.0)
    terms = toward_quality(loss, predictions, replace(matches, quality=said), "matcher")
    total = torch.stack([term.sum() for term in terms.values()]).sum()
    (slope,) = torch.autograd.grad(total, predictions.logits)
    assert torch.isfinite(slope).all()
    assert not slope[~matches.valid].any()


def test_the_criterion_takes_it() -> None:
    criterion = Criterion.build(3, loss="focal", quality_targets="iou")
    plain = Criterion.build(3, loss="focal")
    predictions, matches = setting(criterion.loss)
    positives = torch.tensor(4.0)
    found = criterion(predictions, matches, positives)["loss_class"]
    expected = toward_quality(criterion.loss, predictions, matches, "iou")["class"].sum() / 4
    torch.testing.assert_close(found, expected)
    assert found != plain(predictions, matches, positives)["loss_class"]
    assert torch.equal(criterion.unweighted(predictions, matches)["class"].sum() / 4, expected)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"loss": "varifocal", "quality_targets": "iou"},
            "quality_targets: iou given, but loss=varifocal asks for the quality by itself, of the "
            "matcher where that says one; null is allowed",
        ),
        (
            {"loss": "ssd", "quality_targets": "iou"},
            "quality_targets: iou given, but loss=ssd is no sum over anchors that do not know of "
            "one another; null is allowed",
        ),
        (
            {"loss": "ghm", "quality_targets": "matcher", "matcher": "task_aligned"},
            "quality_targets: matcher given, but loss=ghm is no sum over anchors that do not know "
            "of one another; null is allowed",
        ),
        (
            {"loss": "focal", "quality_targets": "matcher", "matcher": "atss"},
            "quality_targets: matcher given, but matcher=atss says no quality; iou or null is "
            "allowed",
        ),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        Criterion.build(3, **options)
    assert str(error.value) == words
