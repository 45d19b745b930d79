"""The matcher of TOOD on cases small enough to see, and against the algorithm in words."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from detector.boxes import encode
from detector.config.model import AnchorConfig
from detector.config.registry import MATCHERS
from detector.config.schema import Plug
from detector.errors import ConfigError
from detector.matchers.task_aligned import TaskAlignedMatcher
from detector.structures import BACKGROUND, IGNORE, Anchors, Matches
from tests.matchers.cases import (
    Box,
    objects,
    predictions_of,
    pyramid,
    random_objects,
    random_predictions,
)
from tests.matchers.test_base import loop_area, loop_iou, loop_shared

# Three squares of 10 px side by side.
ROW = Anchors(
    torch.tensor([(x, 0.0, x + 10.0, 10.0) for x in (0.0, 10.0, 20.0)], dtype=torch.float64),
    torch.full((3,), 10.0, dtype=torch.float64),
    (3,),
)


def run(boxes: list[Box], said: list[Box], scores: list[list[float]], **options: float) -> Matches:
    """The anchors of `ROW` predict the boxes `said`, with scores of the classes."""
    deltas = encode(torch.tensor([said], dtype=torch.float64), ROW.boxes)
    predictions = predictions_of(ROW, deltas, torch.tensor([scores], dtype=torch.float64))
    return MATCHERS.build(Plug("task_aligned", options))(ROW, objects(boxes), predictions)


def test_score_and_overlap_decide_together() -> None:
    """t = 0.9 x 0.5^6 = 0.0141, 0.2 x 1, 0.8 x 0.8^6 = 0.21: the second and third of two."""
    boxes: list[Box] = [(0, 0, 30, 10)]
    said: list[Box] = [(0, 0, 15, 10), (0, 0, 30, 10), (6, 0, 30, 10)]
    matches = run(boxes, said, [[0.9], [0.2], [0.8]], candidates=2)
    assert matches.labels.tolist() == [[BACKGROUND, 0, 0]]
    best = 0.8 * 0.8**6
    expected = torch.tensor([[0.0, 0.2 / best, 1.0]], dtype=torch.float64)  # times the best IoU, 1
    assert matches.quality is not None
    torch.testing.assert_close(matches.quality, expected, rtol=1e-12, atol=0)


def test_the_score_is_that_of_the_objects_class() -> None:
    matches = run([(0, 0, 30, 10)], [(0, 0, 30, 10)] * 3, [[0.1, 0.9], [0.3, 0], [0.2, 0.9]],
                  candidates=1)  # fmt: skip
    assert matches.labels.tolist() == [[BACKGROUND, 0, BACKGROUND]]


def test_an_anchor_centred_outside_its_object_is_no_candidate() -> None:
    matches = run([(0, 0, 14, 10)], [(0, 0, 14, 10)] * 3, [[0.1], [0.9], [0.9]])
    assert matches.labels.tolist() == [[0, BACKGROUND, BACKGROUND]]


def test_a_box_that_misses_its_object_is_no_positive() -> None:
    matches = run([(0, 0, 30, 10)], [(0, 0, 30, 10), (50, 50, 60, 60), (0, 0, 15, 10)], [[0.5]] * 3)
    assert matches.labels.tolist() == [[0, BACKGROUND, 0]]


def test_an_anchor_that_two_objects_claim_goes_to_the_one_its_box_overlaps_most() -> None:
    # Of the first anchor's alignments the first object's is larger, by its score; its IoU is not.
    boxes: list[Box] = [(0, 0, 10, 10), (0, 0, 10, 8)]
    said: list[Box] = [(0, 0, 10, 8.5), (0, 0, 1, 1), (0, 0, 1, 1)]
    matches = run(boxes, said, [[0.99, 0.01]] * 3)
    assert matches.labels[0, 0] == 1


def test_an_overlap_whose_power_float32_does_not_hold_still_counts() -> None:
    anchors = replace(ROW, boxes=ROW.boxes.float(), strides=ROW.strides.float())
    deltas = encode(torch.tensor([[(4.9995, 4.9995, 5.0005, 5.0005)] * 3]), anchors.boxes)
    targets = objects([(0, 0, 10, 10)])
    targets = replace(targets, boxes=targets.boxes.float())
    predictions = predictions_of(anchors, deltas, torch.full((1, 3, 1), 1e-4))
    matches = TaskAlignedMatcher()(anchors, targets, predictions)  # t = 1e-4 x (1e-8)^6
    assert matches.labels.tolist() == [[0, BACKGROUND, BACKGROUND]]
    assert matches.quality is not None
    assert matches.quality[0, 0].item() == pytest.approx(1e-8, rel=1e-3)  # 1e-3 px in float32


def test_predictions_that_are_no_numbers_serve_no_object() -> None:
    """Such a step is skipped, but it has to come to its end."""
    nothing = torch.full((1, 3, 4), math.nan, dtype=torch.float64)
    predictions = predictions_of(ROW, nothing, nothing[..., :1])
    matches = TaskAlignedMatcher()(ROW, objects([(0, 0, 30, 10)]), predictions)
    assert not matches.foreground.any()
    assert matches.quality is not None
    assert not matches.quality.any()


def in_words(
    anchors: Anchors,
    predicted: list[list[float]],
    scores: Tensor,
    boxes: list[list[float]],
    is_crowd: list[bool],
    options: dict[str, float],
) -> tuple[list[int], list[float]]:
    """Sections 3.2 and 3.3, anchor by anchor and object by object."""
    table = anchors.boxes.tolist()
    claims: dict[int, list[tuple[float, int]]] = {a: [] for a in range(len(table))}

    def alignment(a: int, m: int) -> float:
        overlap = loop_iou(predicted[a], boxes[m])
        return scores[a, m].item() ** options["alpha"] * overlap ** options["beta"]

    for m, box in enumerate(boxes):
        if is_crowd[m]:
            continue
        inside = []
        for a, (x1, y1, x2, y2) in enumerate(table):
            cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
            if min(cx - box[0], cy - box[1], box[2] - cx, box[3] - cy) > 0.01:
                inside.append(a)
        inside = [a for a in inside if loop_iou(predicted[a], box) > 0]
        inside.sort(key=lambda a, m=m: alignment(a, m), reverse=True)
        for a in inside[: int(options["candidates"])]:
            claims[a].append((loop_iou(predicted[a], box), -m))
    crowds = [box for box, c in zip(boxes, is_crowd, strict=True) if c]
    owners, quality = [], [0.0] * len(table)
    for a, anchor in enumerate(table):
        lies_in = max((loop_shared(anchor, box) for box in crowds), default=0.0)
        lost = IGNORE if lies_in / loop_area(anchor) >= 0.5 else BACKGROUND
        owners.append(-max(claims[a])[1] if claims[a] else lost)
    for a, m in enumerate(owners):
        if m >= 0:
            own = [b for b, other in enumerate(owners) if other == m]
            best = max(alignment(b, m) for b in own)
            most = max(loop_iou(predicted[b], boxes[m]) for b in own)
            quality[a] = alignment(a, m) / best * most
    return owners, quality


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "options",
    [
        {"candidates": 13, "alpha": 1.0, "beta": 6.0},
        {"candidates": 4, "alpha": 0.5, "beta": 2.0},
    ],
    ids=["paper", "other"],
)
@pytest.mark.parametrize(
    "config", [AnchorConfig(), AnchorConfig(scales=(1.0,), ratios=(1.0,))], ids=["9", "1"]
)
def test_matches_equal_the_algorithm_in_words(
    seed: int, options: dict[str, float], config: AnchorConfig
) -> None:
    anchors = pyramid(128, config)
    counts = [5, 14]
    targets = random_objects(counts, seed)
    predictions = random_predictions(anchors, 2, seed)
    matches = MATCHERS.build(Plug("task_aligned", options))(anchors, targets, predictions)
    assert predictions.scores is not None
    assert matches.quality is not None
    for i, count in enumerate(counts):
        owners, quality = in_words(
            anchors,
            predictions.boxes[i].tolist(),
            predictions.scores[i],
            targets.boxes[i, :count].tolist(),
            targets.crowd[i, :count].tolist(),
            options,
        )
        assert matches.objects[i].tolist() == [max(m, BACKGROUND) for m in owners]
        assert torch.equal(matches.labels[i] == IGNORE, torch.tensor(owners) == IGNORE)
        expected = torch.tensor(quality, dtype=torch.float64)
        # Powers by way of logs: a few rounding errors of float64.
        torch.testing.assert_close(matches.quality[i], expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("candidates", 0, "0 given, at least 1 is needed"),
        ("alpha", -1.0, "-1.0 given, at least 0 is needed"),
        ("beta", -0.5, "-0.5 given, at least 0 is needed"),
    ],
)
def test_options_that_mean_nothing_are_refused(option: str, value: float, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        MATCHERS.build(Plug("task_aligned", {option: value}))
    assert str(error.value) == f"matcher.{option}: {words}"
