"""YOLO v3's class loss: worked by hand, and which background it leaves out."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from detector.config.registry import LOSSES
from detector.config.schema import Plug
from detector.errors import ConfigError
from detector.losses import yolo_objectness
from detector.losses.yolo_objectness import YOLOObjectnessLoss, best_iou
from detector.structures import BACKGROUND, IGNORE, Matches, Predictions
from tests.by_hand import gradient, match, predict, random_logits
from tests.synthetic import make_anchors, make_targets

LN3 = math.log(3)
"""sigmoid(ln 3) = 3/4, sigmoid(-ln 3) = 1/4."""

NEAR = (2.0, 0.0, 32.0, 32.0)
"""Of `FIRST` it misses a sixteenth: IoU 15/16."""
FIRST = (0.0, 0.0, 32.0, 32.0)
FAR = (100.0, 0.0, 132.0, 32.0)


def worked_example() -> tuple[Predictions, Matches]:
    """A positive of class 0 whose object is twice as wide as its box, so of IoU 1/2; a background
    that is far away; a neutral one."""
    logits = [[LN3, LN3, -LN3], [-LN3, 8.0, 8.0], [9.0, 9.0, 9.0]]
    predictions = predict(torch.tensor([logits], dtype=torch.float64), anchors=[FIRST, FAR, FIRST])
    matches = match(predictions, [[0, BACKGROUND, IGNORE]], boxes={(0, 0): (0.0, 0.0, 64.0, 32.0)})
    return predictions, matches


def sums(loss: YOLOObjectnessLoss, predictions: Predictions, matches: Matches) -> dict[str, float]:
    return {name: term.sum().item() for name, term in loss(predictions, matches).items()}


def test_the_three_terms_of_a_worked_example() -> None:
    # Objectness 3/4 of the positive, 1/4 of the background; classes 3/4 (right) and 1/4 (wrong).
    expected = {
        "object": -math.log(3 / 4),
        "no_object": -math.log(3 / 4),
        "class": -2 * math.log(3 / 4),
    }
    assert sums(YOLOObjectnessLoss(2), *worked_example()) == pytest.approx(expected, rel=1e-9)


def test_soft_targets_are_the_iou_of_the_predicted_box() -> None:
    # At target 1/2 a score of 3/4, or of 1/4, costs -(log 3/4 + log 1/4) / 2.
    soft = -(math.log(3 / 4) + math.log(1 / 4)) / 2
    plain = -math.log(3 / 4)
    example = worked_example()
    v2 = sums(YOLOObjectnessLoss(2, object_target="iou"), *example)
    assert v2 == pytest.approx({"object": soft, "no_object": plain, "class": 2 * plain}, rel=1e-9)
    # YOLOX: the class is to say IoU, the other class 0.
    x = sums(YOLOObjectnessLoss(2, class_target="iou", ignore_iou=None), *example)
    assert x == pytest.approx(
        {"object": plain, "no_object": plain, "class": soft + plain}, rel=1e-9
    )


def test_the_weights_scale_their_own_term_alone() -> None:
    example = worked_example()
    usual = sums(YOLOObjectnessLoss(2), *example)
    other = sums(YOLOObjectnessLoss(2, lambda_obj=5.0, lambda_noobj=0.1), *example)
    factors = {name: other[name] / usual[name] for name in usual}
    assert factors == pytest.approx({"object": 5.0, "no_object": 0.1, "class": 1.0}, rel=1e-9)


@pytest.mark.parametrize("target", ["hard", "iou"])
def test_the_gradients_are_score_minus_target(target: str) -> None:
    predictions, matches = worked_example()
    loss = YOLOObjectnessLoss(2, object_target=target, class_target=target)  # type: ignore[arg-type]
    total = sum(term.sum() for term in loss(predictions, matches).values())
    slopes = gradient(total, predictions.logits)[0].tolist()  # type: ignore[arg-type]
    y = 1.0 if target == "hard" else 0.5
    assert slopes[0] == pytest.approx([3 / 4 - y, 3 / 4 - y, 1 / 4], abs=1e-9)
    assert slopes[1] == pytest.approx([1 / 4, 0.0, 0.0], abs=1e-9)
    assert slopes[2] == [0.0, 0.0, 0.0]


def test_the_boxes_are_not_pulled() -> None:
    predictions, matches = worked_example()
    loss = YOLOObjectnessLoss(2, object_target="iou", class_target="iou")
    total = sum(term.sum() for term in loss(predictions, matches).values())
    (pull,) = torch.autograd.grad(total, predictions.deltas, allow_unused=True)  # type: ignore[arg-type]
    assert pull is None


def test_background_whose_predicted_box_lies_on_an_object_is_left_out() -> None:
    logits = torch.zeros(1, 3, 2, dtype=torch.float64)
    labels = [[0, BACKGROUND, BACKGROUND]]
    predictions = predict(logits, anchors=[FIRST, NEAR, FAR])
    for threshold, counted in ((0.9, [False, False, True]), (0.94, [False, True, True])):
        loss = YOLOObjectnessLoss(1, ignore_iou=threshold)
        terms = loss(predictions, match(predictions, labels))
        assert (terms["no_object"][0] > 0).tolist() == counted
    # Its anchor lies there still, but what counts is the box it predicts.
    deltas = torch.zeros(1, 3, 4, dtype=torch.float64)
    deltas[0, 1, 0] = 3.0
    moved = predict(logits, anchors=[FIRST, NEAR, FAR], deltas=deltas)
    terms = YOLOObjectnessLoss(1)(moved, match(moved, labels))
    assert (terms["no_object"][0] > 0).tolist() == [False, True, True]


def test_null_leaves_nothing_out() -> None:
    predictions = predict(torch.zeros(1, 2, 2), anchors=[FIRST, NEAR])
    matches = match(predictions, [[0, BACKGROUND]])
    terms = YOLOObjectnessLoss(1, ignore_iou=None)(predictions, matches)
    assert (terms["no_object"][0] > 0).tolist() == [False, True]


def test_a_positive_is_never_left_out() -> None:
    predictions = predict(torch.zeros(1, 1, 2))
    terms = YOLOObjectnessLoss(1, ignore_iou=0.0)(predictions, match(predictions, [[0]]))
    assert terms["object"].item() == pytest.approx(math.log(2))
    assert terms["class"].item() == pytest.approx(math.log(2))


def test_a_crowd_and_padding_are_no_objects() -> None:
    predictions = predict(torch.zeros(1, 2, 2), anchors=[FIRST, NEAR])
    matches = match(predictions, [[0, BACKGROUND]])  # object 1 is padding that lies on NEAR
    assert best_iou(predictions.boxes, matches.targets)[0].tolist() == pytest.approx([1, 15 / 16])
    crowd = replace(matches.targets, crowd=torch.tensor([[True, False]]))
    assert not best_iou(predictions.boxes, crowd).any()


@pytest.mark.parametrize("size", [1, 200, 2**23])
def test_the_best_iou_equals_a_loop_however_few_pairs_fit_at_a_time(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yolo_objectness, "TABLE_SIZE", size)
    targets = make_targets([3, 0, 7], 4)
    anchors = make_anchors(20).boxes
    found = best_iou(anchors.expand(3, -1, -1), targets)
    for i, count in enumerate([3, 0, 7]):
        for a, (x1, y1, x2, y2) in enumerate(anchors.double().tolist()):
            best = 0.0
            for u1, v1, u2, v2 in targets.boxes[i, :count].double().tolist():
                shared = max(0, min(x2, u2) - max(x1, u1)) * max(0, min(y2, v2) - max(y1, v1))
                union = (x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - shared
                best = max(best, shared / union)
            # float32 boxes.
            assert found[i, a].item() == pytest.approx(best, abs=1e-5)


def test_a_batch_without_any_object_is_all_background() -> None:
    predictions = predict(random_logits(2, 3, 3))
    matches = match(predictions, [[BACKGROUND] * 3] * 2)
    none = make_targets([0, 0], 2)
    assert none.labels.shape == (2, 0)
    terms = YOLOObjectnessLoss(2)(predictions, replace(matches, targets=none))
    assert bool((terms["no_object"] > 0).all())
    assert not terms["object"].any()
    assert not terms["class"].any()


@given(low=st.floats(0, 1), high=st.floats(0, 1), seed=st.integers(0, 50))
def test_a_lower_threshold_leaves_out_more(low: float, high: float, seed: int) -> None:
    low, high = sorted((low, high))
    predictions = predict(random_logits(1, 4, 2, seed=seed), anchors=[FIRST, NEAR, FAR, FAR])
    matches = match(predictions, [[0, BACKGROUND, BACKGROUND, 0]])
    kept = [
        YOLOObjectnessLoss(1, ignore_iou=t).background(predictions, matches) for t in (low, high)
    ]
    assert bool((kept[0] <= kept[1]).all())


@pytest.mark.parametrize("posterior", [0.05, 0.5, 0.8])
def test_hard_targets_make_the_score_the_posterior(posterior: float) -> None:
    loss = YOLOObjectnessLoss(1)
    near = predict(torch.zeros(1, 2, 2, dtype=torch.float64), anchors=[FIRST, FAR])
    labels = match(near, [[0, BACKGROUND]])

    def expected(x: float) -> float:
        """Of an anchor that is a positive with this probability; there is one class."""
        logits = torch.tensor([[[x, 30.0]] * 2], dtype=torch.float64)
        terms = loss(predict(logits, anchors=[FIRST, FAR]), labels)
        yes, no = terms["object"][0, 0].item(), terms["no_object"][0, 1].item()
        return posterior * yes + (1 - posterior) * no

    best = minimize_scalar(expected, bounds=(-12, 12), method="bounded", options={"xatol": 1e-10})
    score = loss.layout.scores(torch.tensor([best.x, 40.0], dtype=torch.float64))
    link = loss.link_inverse(score)
    assert link is not None
    # A minimum is flat: its place is found to the root of float64's precision.
    assert link.item() == pytest.approx(posterior, abs=1e-6)


@pytest.mark.parametrize(
    "options", [{"lambda_noobj": 0.5}, {"object_target": "iou"}, {"class_target": "iou"}]
)
def test_other_options_have_no_link(options: dict) -> None:
    assert YOLOObjectnessLoss(3, **options).link_inverse(torch.rand(5)) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lambda_noobj": -1.0}, "loss.lambda_noobj: -1.0 given, at least 0 is needed"),
        ({"lambda_obj": -1.0}, "loss.lambda_obj: -1.0 given, at least 0 is needed"),
        ({"ignore_iou": 1.5}, "loss.ignore_iou: 1.5 given, 0 to 1 or null is allowed"),
        ({"object_target": "soft"}, "loss.object_target: 'soft' is not one of hard, iou"),
    ],
)
def test_options_out_of_range_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        LOSSES.build(Plug("yolo_objectness", options), 3)
    assert str(error.value) == message
