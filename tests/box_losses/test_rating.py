"""A rating beside the classes: what it is to say, what it multiplies, and who knows of it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from detector.box_losses.rating import centerness, rating_term
from detector.boxes import iou
from detector.config import from_plain
from detector.config.registry import LOSSES
from detector.config.schema import Plug
from detector.criterion import Criterion
from detector.inference import outputs
from detector.inference.calibrated import link_of
from detector.inference.load import load
from detector.layouts import Layout, Objectness, Rated, Sigmoid, Softmax
from detector.structures import BACKGROUND, IGNORE
from tests.by_hand import gradient, match, predict, random_logits
from tests.synthetic import make_anchors, make_matches, make_predictions, make_targets
from tests.training.tiny import go, losses, tiny

INNER = [Sigmoid(3), Softmax(3), Objectness(3)]


def named(layout: Layout) -> str:
    return layout.name


@pytest.mark.parametrize("inner", INNER, ids=named)
def test_its_score_multiplies_those_of_the_classes(inner: Layout) -> None:
    layout = Rated(inner)
    logits = random_logits(5, layout.num_outputs)
    rating = [[1 / (1 + math.exp(-x))] for x in logits[:, -1].tolist()]
    expected = inner.scores(logits[:, :-1]) * torch.tensor(rating, dtype=torch.float64)
    torch.testing.assert_close(layout.scores(logits), expected)
    assert torch.equal(layout.foreground(logits), inner.foreground(logits[:, :-1]))
    bias = layout.initial_bias(0.02)
    assert bias.shape == (layout.num_outputs,)
    torch.testing.assert_close(layout.foreground(bias).max(), torch.tensor(0.02))
    ours = outputs.scores_of(layout.name, logits.float().numpy())
    np.testing.assert_allclose(ours, layout.scores(logits.float()).numpy(), rtol=1e-5)


def test_centerness_is_equation_3_and_0_outside() -> None:
    box = torch.tensor([0.0, 0.0, 40.0, 10.0])
    # Centres (20, 5), (10, 5), (10, 2), (-5, 5): 1, sqrt(10 / 30), sqrt(10 / 30 x 2 / 8), 0.
    centers = torch.tensor([[20.0, 5.0], [10.0, 5.0], [10.0, 2.0], [-5.0, 5.0]])
    anchors = torch.cat([centers - 4, centers + 4], -1)
    expected = [1.0, math.sqrt(1 / 3), math.sqrt(1 / 12), 0.0]
    assert centerness(anchors, box).tolist() == pytest.approx(expected)


def test_the_term_is_cross_entropy_on_positives_alone_and_does_not_pull_on_boxes() -> None:
    predictions = predict(torch.zeros(1, 3, 2, dtype=torch.float64))
    matches = match(predictions, [[0, BACKGROUND, IGNORE]], boxes={(0, 0): (0, 0, 64, 32)})
    logits = torch.tensor([[math.log(3)] * 3], dtype=torch.float64, requires_grad=True)
    loss = rating_term(logits, predictions, matches, "iou")
    # IoU one half, said three quarters.
    expected = -0.5 * math.log(3 / 4) - 0.5 * math.log(1 / 4)
    assert loss[0].tolist() == pytest.approx([expected, 0, 0])
    assert gradient(loss.sum(), logits)[0].tolist() == pytest.approx([0.25, 0, 0])
    assert iou(predictions.boxes, matches.boxes)[0, 0].item() == 0.5
    central = rating_term(logits, predictions, matches, "centerness")
    # Centre (16, 16) in 64 x 32: sqrt(16 / 48 x 1).
    target = math.sqrt(1 / 3)
    expected = -target * math.log(3 / 4) - (1 - target) * math.log(1 / 4)
    assert central[0, 0].item() == pytest.approx(expected)


@pytest.mark.parametrize("name", LOSSES.names)
def test_no_class_loss_knows_of_it(name: str) -> None:
    """Its terms are those without a rating, and nothing of them pulls on the rating."""
    rated = Criterion.build(3, loss=name, rating="iou", rating_weight=0.5)
    plain = Criterion.build(3, loss=name)
    anchors, targets = make_anchors(), make_targets([3, 0, 5], 3)
    matches = make_matches(anchors, targets)
    predictions = make_predictions(rated.layout, anchors, 3)
    without = plain.unweighted(rated.seen_by_loss(predictions), matches)
    terms = rated.unweighted(predictions, matches)
    assert {*terms} == {*without, "box_rating"}
    for term, value in without.items():
        assert torch.equal(terms[term], value), term
    class_loss = torch.stack([v.sum() for k, v in terms.items() if k != "box_rating"]).sum()
    assert not gradient(class_loss, predictions.logits)[..., -1].any()
    own = rating_term(predictions.logits[..., -1], predictions, matches, "iou")
    assert torch.equal(terms["box_rating"], 0.5 * own)


def test_a_rated_score_has_no_link_inverse() -> None:
    loss = LOSSES.build(Plug("cross_entropy", {}), 3)
    assert link_of(loss) is not None
    assert link_of(loss, "iou") is None


def test_a_run_trains_with_it_and_is_loaded_with_it(tmp_path: Path) -> None:
    plain = tiny(tmp_path / "run", rating="centerness", loss={"name": "ssd", "weight": 1.0})
    folder = go(plain)
    assert len(losses(folder)) == 6
    model = load(folder / "checkpoints" / "last.pt", device="cpu")
    assert model.layout.name == "Rated Softmax"  # type: ignore[union-attr]
    assert from_plain(plain).rating == "centerness"
    found = model(np.zeros((64, 64, 3), np.uint8), threshold=0.0)
    assert len(found.scores) > 0
