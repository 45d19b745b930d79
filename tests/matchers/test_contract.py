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
        own = replace(
            predictions,
            **{f: getattr(predictions, f)[i : i + 1] for f in ("logits", "deltas", "scores")},
        )
        by_itself = matcher(ANCHORS, alone, own)
        assert torch.equal(by_itself.labels[0], together.labels[i])
        if together.quality is not None:
            assert by_itself.quality is not None
            assert torch.equal(by_itself.quality[0], together.quality[i])


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


def test_a_quality_is_a_share_that_positives_alone_have(matcher: Matcher) -> None:
    matches = run(matcher, random_objects([6, 0, 3], 4))
    assert (matches.quality is not None) == matcher.gives_quality
    if matches.quality is not None:
        assert matches.quality.shape == matches.labels.shape
        assert not matches.quality.requires_grad
        assert bool(((matches.quality >= 0) & (matches.quality <= 1)).all())
        assert not matches.quality[~matches.foreground].any()
        assert bool((matches.quality > 0).any())


@pytest.mark.parametrize("seed", range(3))
def test_matchers_work_without_predictions(matcher: Matcher, seed: int) -> None:
    """`prior=from_data`, the audit and the first look at a batch have none."""
    matches = matcher(ANCHORS, random_objects([5, 2], seed), None)
    assert matches.foreground.any()


@pytest.mark.parametrize("name", SHIPPED["matcher"])
def test_no_object_goes_without_an_anchor_where_that_is_asked_for(name: str) -> None:
    """Tiny ones between the centres, twins, thirty in one cell; a crowd still gets none."""
    matcher = MATCHERS.build(Plug(name, {"every_object": True}))
    tiny = [(x, 33.0, x + 0.4, 33.5) for x in (1.2, 50.0, 97.7)]
    twins = [(30.0, 40.0, 61.0, 90.0)] * 3
    cell = [(64.0 + i / 8, 64.0, 70.0 + i / 4, 71.0) for i in range(24)]
    boxes = [*tiny, *twins, *cell, (0.0, 0.0, 128.0, 60.0)]
    targets = objects(boxes, crowd=[False] * (len(boxes) - 1) + [True])
    usual = run(MATCHERS.build(Plug(name, {"every_object": False})), targets)
    matches = run(matcher, targets)
    counts = torch.bincount(matches.objects[0].clamp(min=-1) + 1, minlength=len(boxes) + 1)[1:]
    assert (counts > 0).tolist() == [True] * (len(boxes) - 1) + [False]
    before = torch.bincount(usual.objects[0].clamp(min=-1) + 1, minlength=len(boxes) + 1)[1:]
    assert not before[:-1].all()  # or the option was not needed
    # Only anchors that an object had to spare, or nobody had, have changed hands.
    changed = (usual.objects != matches.objects).sum()
    assert int(changed) == int((before[:-1] == 0).sum())


@pytest.mark.parametrize("name", SHIPPED["matcher"])  # another may have no such option
def test_a_crowd_coverage_of_0_is_refused(name: str) -> None:
    with pytest.raises(ConfigError) as error:
        MATCHERS.build(Plug(name, {"crowd_coverage": 0.0}))
    assert str(error.value) == "matcher.crowd_coverage: 0.0 given, above 0 is needed"
