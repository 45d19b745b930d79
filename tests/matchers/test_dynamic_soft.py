"""The matcher of RTMDet on cases small enough to see, and against the algorithm in words."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from detector.boxes import encode
from detector.config.model import AnchorConfig
from detector.config.registry import MATCHERS
from detector.config.schema import Plug
from detector.errors import ConfigError
from detector.matchers.dynamic_soft import DynamicSoftMatcher, soft_label_cost
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
from tests.matchers.test_task_aligned import ROW


def run(boxes: list[Box], said: list[Box], scores: list[list[float]], **options: float) -> Matches:
    """The anchors of `ROW` predict the boxes `said`, with scores of the classes."""
    deltas = encode(torch.tensor([said], dtype=torch.float64), ROW.boxes)
    predictions = predictions_of(ROW, deltas, torch.tensor([scores], dtype=torch.float64))
    return MATCHERS.build(Plug("dynamic_soft", options))(ROW, objects(boxes), predictions)


WIDE: Box = (0, 0, 30, 10)


@pytest.mark.parametrize(
    ("widths", "count"), [((10, 10, 9), 1), ((24, 20, 15), 1), ((24, 24, 15), 2), ((30, 30, 30), 3)]
)
def test_an_object_takes_as_many_anchors_as_its_overlaps_add_up_to(
    widths: tuple[float, ...], count: int
) -> None:
    """IoUs of 1/3 + 1/3 + 0.3 = 0.97, 0.8 + 2/3 + 0.5 = 1.97, 2.1, and 3."""
    matches = run([WIDE], [(0, 0, w, 10) for w in widths], [[0.5]] * 3)
    assert int(matches.foreground.sum()) == count


def test_the_cheapest_anchor_is_the_one_that_fits_is_sure_and_central() -> None:
    same: list[Box] = [(0, 0, 12, 10)] * 3  # IoU 0.4: one anchor
    central = run([WIDE], same, [[0.5]] * 3, candidates=1)
    assert central.labels.tolist() == [[BACKGROUND, 0, BACKGROUND]]
    # 0.01 strides^... the centre is 1 stride off: 10^-2 against 10^-3, so 0.009 dearer.
    sure = run([WIDE], same, [[0.4], [0.9], [0.9]], candidates=1)
    assert sure.labels.tolist() == [[0, BACKGROUND, BACKGROUND]]  # a soft label of 0.4: 0.9 is dear
    fits = run([WIDE], [same[0], same[0], (10, 0, 24, 10)], [[0.5]] * 3, candidates=1)
    assert fits.labels.tolist() == [[BACKGROUND, BACKGROUND, 0]]


def test_the_cost_of_a_class_is_the_papers() -> None:
    score, label = torch.tensor([0.3, 0.7, 0.9]).double(), torch.tensor([0.6, 0.0, 1.0]).double()
    expected = [
        -(0.6 * math.log(0.3) + 0.4 * math.log(0.7)) * 0.3**2,
        -math.log(0.3) * 0.7**2,
        -math.log(0.9) * 0.1**2,
    ]
    torch.testing.assert_close(soft_label_cost(score, label), torch.tensor(expected).double())


def test_a_score_of_0_or_1_has_a_cost_one_can_compare() -> None:
    ends = torch.tensor([0.0, 1.0])
    assert torch.isfinite(soft_label_cost(ends, 1 - ends)).all()


def test_predictions_that_are_no_numbers_serve_no_object() -> None:
    """Such a step is skipped, but it has to come to its end."""
    nothing = torch.full((1, 3, 4), math.nan, dtype=torch.float64)
    predictions = predictions_of(ROW, nothing, nothing[..., :1])
    matches = DynamicSoftMatcher()(ROW, objects([WIDE]), predictions)
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
    """Section 3.3, anchor by anchor, object by object and class by class."""
    table, strides = anchors.boxes.tolist(), anchors.strides.tolist()
    claims: dict[int, list[tuple[float, int]]] = {a: [] for a in range(len(table))}

    def cost(a: int, m: int) -> float:
        overlap = loop_iou(predicted[a], boxes[m])
        total = -options["overlap_weight"] * math.log(max(overlap, 1e-7))
        for k, s in enumerate(scores[a].tolist()):
            y = overlap if k == m else 0.0
            total -= (y * math.log(s) + (1 - y) * math.log(1 - s)) * (y - s) ** 2
        x, y = ((table[a][i] + table[a][i + 2]) / 2 for i in (0, 1))
        own = ((boxes[m][i] + boxes[m][i + 2]) / 2 for i in (0, 1))
        distance = math.dist((x, y), tuple(own)) / strides[a]
        return total + 10 ** (distance - options["center_radius"])

    for m, box in enumerate(boxes):
        if is_crowd[m]:
            continue
        inside = []
        for a, (x1, y1, x2, y2) in enumerate(table):
            cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
            if min(cx - box[0], cy - box[1], box[2] - cx, box[3] - cy) > 0.01:
                inside.append(a)
        overlaps = sorted((loop_iou(predicted[a], box) for a in inside), reverse=True)
        k = max(1, int(sum(overlaps[: int(options["candidates"])])))
        for a in sorted(inside, key=lambda a, m=m: cost(a, m))[:k]:
            claims[a].append((cost(a, m), m))
    crowds = [box for box, c in zip(boxes, is_crowd, strict=True) if c]
    owners = []
    for a, anchor in enumerate(table):
        lies_in = max((loop_shared(anchor, box) for box in crowds), default=0.0)
        lost = IGNORE if lies_in / loop_area(anchor) >= 0.5 else BACKGROUND
        owners.append(min(claims[a])[1] if claims[a] else lost)
    quality = [loop_iou(predicted[a], boxes[m]) if m >= 0 else 0.0 for a, m in enumerate(owners)]
    return owners, quality


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "options",
    [
        {"candidates": 13, "overlap_weight": 3.0, "center_radius": 3.0},
        {"candidates": 5, "overlap_weight": 0.5, "center_radius": 0.5},
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
    matches = MATCHERS.build(Plug("dynamic_soft", options))(anchors, targets, predictions)
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
        torch.testing.assert_close(matches.quality[i], torch.tensor(quality, dtype=torch.float64))


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("candidates", 0, "0 given, at least 1 is needed"),
        ("overlap_weight", -1.0, "-1.0 given, at least 0 is needed"),
    ],
)
def test_options_that_mean_nothing_are_refused(option: str, value: float, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        MATCHERS.build(Plug("dynamic_soft", {option: value}))
    assert str(error.value) == f"matcher.{option}: {words}"
