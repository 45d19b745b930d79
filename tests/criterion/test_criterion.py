"""What is minimised, as one object that knows no model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from detector.box_losses.regression import SmoothL1Loss
from detector.boxes import iou
from detector.config import Ramp
from detector.config.registry import MATCHERS
from detector.config.schema import Plug
from detector.criterion import Criterion
from detector.criterion.ramps import Ramps
from detector.errors import ConfigError
from detector.layouts import Sigmoid
from detector.losses.focal import FocalLoss
from detector.structures import Matches, Predictions, Targets
from tests.by_hand import gradient, random_logits
from tests.synthetic import PlainCoder, make_anchors, make_predictions, make_targets

CLASSES = 3


def outputs(num_images: int) -> Predictions:
    """Random float64 predictions on the anchors of `make_anchors`, under `Sigmoid`."""
    return make_predictions(Sigmoid(CLASSES), make_anchors(), num_images, dtype=torch.float64)


def judged(
    criterion: Criterion, predictions: Predictions, targets: Targets
) -> tuple[dict[str, Tensor], Matches, Tensor]:
    """The terms of a step of one micro-batch, its matches and its positives."""
    matches = criterion.match(predictions.anchors, targets, predictions)
    positives = criterion.positives([matches], [targets])
    return criterion(predictions, matches, positives), matches, positives


def test_terms_are_those_of_the_losses_over_the_positives_of_the_step() -> None:
    criterion = Criterion.build(CLASSES, box_loss={"name": "smooth_l1", "weight": 2.0})
    predictions, targets = outputs(2), make_targets([2, 1], CLASSES)
    terms, matches, positives = judged(criterion, predictions, targets)
    assert positives.item() == matches.foreground.sum() > 0
    focal = FocalLoss(CLASSES)(predictions, matches)["class"].sum() / positives
    box = SmoothL1Loss()(predictions, matches)["box"].sum() / positives
    assert terms["loss_class"].item() == pytest.approx(focal.item(), rel=1e-12)
    assert terms["loss_box"].item() == pytest.approx(2 * box.item(), rel=1e-12)


def test_a_matcher_that_uses_predictions_matches_after_them_and_objects_are_counted() -> None:
    targets = make_targets([2, 1], CLASSES)
    criterion = Criterion.build(CLASSES, loss="yolo_v1", matcher="yolo_cell")
    anchors = make_anchors()
    early = criterion.match(anchors, targets)
    assert early is None
    assert criterion.positives([early], [targets]).item() == 3
    assert Criterion.build(CLASSES).match(anchors, targets) is not None


@pytest.mark.parametrize("loss", ["focal", "ghm", "ssd", "distributional_ranking"])
def test_a_step_in_two_parts_is_the_step_in_one(loss: str) -> None:
    """Sums of a loss without statistics over the images: equal but for rounding in float64."""
    criterion = Criterion.build(CLASSES, loss=loss, batch_size=4)
    D = criterion.layout.num_outputs
    anchors, targets = make_anchors(), make_targets([2, 0, 1, 3], CLASSES)
    logits = random_logits(4, len(anchors.boxes), D).requires_grad_()
    deltas = torch.zeros(4, len(anchors.boxes), 4, dtype=torch.float64, requires_grad=True)
    slopes = []
    for parts in ([slice(0, 4)], [slice(0, 1), slice(1, 4)]):
        shares = [part_of(targets, part) for part in parts]
        matches = [criterion.match(anchors, share) for share in shares]
        positives = criterion.positives(matches, shares)
        total = torch.zeros((), dtype=torch.float64)
        for part, own in zip(parts, matches, strict=True):
            assert own is not None
            predictions = Predictions(logits[part], deltas[part], anchors, PlainCoder())
            total = total + sum(criterion(predictions, own, positives).values())
        slopes.append(gradient(total, logits))
    torch.testing.assert_close(slopes[1], slopes[0], rtol=1e-12, atol=1e-15)


def part_of(targets: Targets, part: slice) -> Targets:
    return Targets(
        targets.boxes[part], targets.labels[part], targets.crowd[part], targets.image_sizes[part],
        targets.image_ids[part], targets.keys[part],
    )  # fmt: skip


def test_progress_sets_ramped_options_and_weights() -> None:
    ramps = (Ramp("loss.gamma", start=0.0, end=2.0), Ramp("box_loss.weight", start=1.0, end=3.0))
    loss = FocalLoss(CLASSES)
    matcher = MATCHERS.build(Plug("retinanet", {}))
    weights = {"loss": 1.0, "box_loss": 1.0}
    criterion = Criterion(loss, SmoothL1Loss(), matcher, ramps=Ramps(ramps, weights))
    criterion.progress(0.25)
    assert (loss.gamma, criterion.factors) == (0.5, {"loss": 1.0, "box_loss": 1.5})


@pytest.mark.parametrize("loss", ["focal", "ssd", "yolo_objectness"])
def test_a_matcher_that_looks_at_scores_is_given_those_of_the_layout(loss: str) -> None:
    """beta 0: the alignment is the score alone, scaled to the best overlap."""
    criterion = Criterion.build(CLASSES, loss=loss, matcher={"name": "task_aligned", "beta": 0.0})
    anchors, targets = make_anchors(), make_targets([1], CLASSES)
    layout = criterion.layout
    predictions = make_predictions(layout, anchors, 1, dtype=torch.float64)
    matches = criterion.match(anchors, targets, predictions)
    scores = layout.scores(predictions.logits.detach())
    assert matches.foreground.any()
    own = torch.where(matches.foreground[0], scores[0, :, int(targets.labels[0, 0])], 0)
    overlap = iou(predictions.boxes.detach(), matches.boxes)[0][matches.foreground[0]]
    assert matches.quality is not None
    expected = own / own.max() * overlap.max()
    # By way of logs, on boxes in float32.
    torch.testing.assert_close(matches.quality[0], expected.float(), rtol=1e-5, atol=0)
    assert not matches.quality.requires_grad


def test_what_it_remembers_is_in_its_state_and_comes_back() -> None:
    criterion = Criterion.build(CLASSES, loss="ghm", guided_scale=True)
    predictions, targets = outputs(2), make_targets([2, 1], CLASSES)
    terms, matches, positives = judged(criterion, predictions, targets)
    numbers = {name: term.item() for name, term in terms.items()}
    statistics = criterion.statistics(predictions, matches)
    criterion.update(statistics, numbers, positives.item())
    after = judged(criterion, predictions, targets)[0]
    assert after["loss_class"].item() != terms["loss_class"].item()
    fresh = Criterion.build(CLASSES, loss="ghm", guided_scale=True)
    fresh.load_state_dict(criterion.state_dict())
    again = judged(fresh, predictions, targets)[0]
    assert {k: v.item() for k, v in again.items()} == {k: v.item() for k, v in after.items()}
    assert {"weighting.ema_positives", "weighting.class_scale"} < criterion.state_dict().keys()


def test_a_training_loop_of_ones_own_minimises_it() -> None:
    """With a model that this project does not know: numbers for each anchor."""
    criterion = Criterion.build(CLASSES, loss="focal", box_loss="giou", batch_size=2)
    anchors, targets = make_anchors(), make_targets([2, 1], CLASSES)
    logits = nn.Parameter(
        criterion.layout.initial_bias(0.01).expand(2, len(anchors.boxes), -1).clone()
    )
    deltas = nn.Parameter(torch.zeros(2, len(anchors.boxes), 4))
    optimizer = torch.optim.Adam([logits, deltas], lr=0.1)
    totals = []
    for _ in range(60):
        matches = criterion.match(anchors, targets)
        positives = criterion.positives([matches], [targets])
        assert matches is not None
        terms = criterion(Predictions(logits, deltas, anchors, PlainCoder()), matches, positives)
        total = torch.stack([*terms.values()]).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < 0.2 * totals[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loss": "focall"}, "loss=focall: unknown .did you mean 'focal'"),
        ({"loss": {"name": "focal", "gama": 2.0}}, "loss.gama: unknown key .did you mean 'gamma'"),
        ({"loss": {"name": "focal", "weight": -1.0}}, "loss.weight: -1.0 given"),
        ({"box_loss": "giuo"}, "box_loss=giuo: unknown .did you mean 'giou'"),
        ({"matcher": {"force": "none"}}, "matcher: a part with a `name` is needed"),
        ({"loss": "ohem", "normalizer": "positives"}, "normalizer: positives given, but loss=ohem"),
        ({"class_weights": [1.0, 2.0]}, "class_weights: 2 given, 3 are needed"),
    ],
)
def test_what_it_cannot_be_built_of_is_named(options: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Criterion.build(CLASSES, **options)
