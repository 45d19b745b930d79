"""What every registered matcher must hold; a new one is tested here without an edit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from detector.config.registry import MATCHERS
from detector.config.schema import Plug
from detector.errors import ConfigError
from detector.matchers.base import Matcher
from detector.structures import BACKGROUND, IGNORE, Matches, Targets
from tests.matchers.cases import objects, pyramid, random_objects, random_predictions
from tests.shipped import SHIPPED

ANCHORS = pyramid()
FIELDS = ("boxes", "labels", "crowd")


@pytest.fixture(params=MATCHERS.names)
def matcher(request: pytest.FixtureRequest) -> Matcher:
    return MATCHERS.build(Plug(request.param, {}))


def run(matcher: Matcher, targets: Targets) -> Matches:
    return matcher(ANCHORS, targets, random_predictions(ANCHORS, len(targets.labels)))


def rearranged(targets: Targets, order: Tensor) -> Targets:
    return replace(targets, **{f: getattr(targets, f)[:, order] for f in FIELDS})


def test_a_foreground_anchor_carries_its_objects_label_and_box(matcher: Matcher) -> None:
    targets = random_objects([6, 3, 1], 0)
    matches = run(matcher, targets)
    assert matches.labels.shape == (3, len(ANCHORS.boxes))
    assert matches.foreground.any()
    for i, a in matches.foreground.nonzero().tolist():
        m = int(matches.objects[i, a])
        assert matches.labels[i, a] == targets.labels[i, m]
        assert torch.equal(matches.boxes[i, a], targets.boxes[i, m])
    elsewhere = ~matches.foreground
    assert torch.equal(matches.objects >= 0, matches.foreground)
    assert bool(((matches.labels == BACKGROUND) | (matches.labels == IGNORE))[elsewhere].all())
    assert torch.equal(matches.boxes[elsewhere], ANCHORS.boxes.expand(3, -1, -1)[elsewhere])


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_objects_does_not_matter(matcher: Matcher, seed: int) -> None:
    targets = random_objects([7, 7], seed)
    order = torch.tensor([3, 6, 1, 4, 0, 2, 5])
    first, second = run(matcher, targets), run(matcher, rearranged(targets, order))
    assert torch.equal(first.labels, second.labels)
    assert torch.equal(first.boxes, second.boxes)


def test_the_images_do_not_know_of_one_another(matcher: Matcher) -> None:
    targets = random_objects([6, 2, 4], 1)
    predictions = random_predictions(ANCHORS, 3)
    together = matcher(ANCHORS, targets, predictions)
    for i in range(3):
        alone = replace(
            targets,
            **{f: getattr(targets, f)[i : i + 1] for f in (*FIELDS, "image_sizes", "keys")},
        )
        own = replace(predictions, deltas=predictions.deltas[i : i + 1])
        assert torch.equal(matcher(ANCHORS, alone, own).labels[0], together.labels[i])


@pytest.mark.parametrize("counts", [[0], [0, 2]])
def test_an_image_without_objects_is_all_background(matcher: Matcher, counts: list[int]) -> None:
    targets = random_objects(counts, 2)
    labels = run(matcher, targets).labels
    assert bool((labels[0] == BACKGROUND).all())


def test_padding_is_no_object(matcher: Matcher) -> None:
    targets = random_objects([3], 3)
    padded = replace(
        targets,
        boxes=torch.cat([targets.boxes, torch.zeros(1, 2, 4, dtype=torch.float64)], 1),
        labels=torch.cat([targets.labels, torch.full((1, 2), BACKGROUND)], 1),
        crowd=torch.cat([targets.crowd, torch.zeros(1, 2, dtype=torch.bool)], 1),
    )
    assert torch.equal(run(matcher, padded).labels, run(matcher, targets).labels)


def test_a_crowd_makes_anchors_neutral_and_never_positive(matcher: Matcher) -> None:
    crowd = (0.0, 0.0, 64.0, 128.0)
    labels = run(matcher, objects([crowd], crowd=[True])).labels[0]
    x1, x2 = ANCHORS.boxes[:, 0].clamp(0, 64), ANCHORS.boxes[:, 2].clamp(0, 64)
    y1, y2 = ANCHORS.boxes[:, 1].clamp(0, 128), ANCHORS.boxes[:, 3].clamp(0, 128)
    sides = ANCHORS.boxes[:, 2:] - ANCHORS.boxes[:, :2]
    covered = (x2 - x1) * (y2 - y1) / sides.prod(-1) >= 0.5
    assert 0 < int(covered.sum()) < len(covered)
    assert torch.equal(labels == IGNORE, covered)
    assert torch.equal(labels == BACKGROUND, ~covered)


def test_a_positive_stays_one_inside_a_crowd(matcher: Matcher) -> None:
    alone = objects([(40, 40, 80, 80)])
    crowded = objects([(40, 40, 80, 80), (0, 0, 128, 128)], crowd=[False, True])
    before, after = run(matcher, alone).foreground, run(matcher, crowded).foreground
    assert before.any()
    assert torch.equal(before, after)


def test_objects_of_a_thousandth_of_a_pixel_and_of_the_whole_image_are_legal(
    matcher: Matcher,
) -> None:
    tiny = objects([(60.0, 60.0, 60.001, 60.001), (0, 0, 128, 128), (3.0, 90.0, 3.0001, 120.0)])
    assert run(matcher, tiny).labels.shape == (1, len(ANCHORS.boxes))


@pytest.mark.parametrize("name", SHIPPED["matcher"])  # another may have no such option
def test_a_crowd_coverage_of_0_is_refused(name: str) -> None:
    with pytest.raises(ConfigError) as error:
        MATCHERS.build(Plug(name, {"crowd_coverage": 0.0}))
    assert str(error.value) == "matcher.crowd_coverage: 0.0 given, above 0 is needed"
