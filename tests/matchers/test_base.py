"""What matchers share: matches from object indices, thresholds, and a loop over everything."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from detector.config.registry import MATCHERS
from detector.config.schema import Plug
from detector.errors import ConfigError
from detector.layouts import Sigmoid
from detector.losses.focal import FocalLoss
from detector.matchers import base
from detector.matchers.base import Thresholds, match_images, matches_from_objects
from detector.structures import BACKGROUND, IGNORE, Anchors, Matches, Targets
from tests.commands import ROOT
from tests.synthetic import make_anchors, make_predictions, make_targets

MODES = ["object", "anchor", "none"]
USUAL = Thresholds(0.5, 0.4, "object", 0.5)


def crowded(targets: Targets, places: list[tuple[int, int]]) -> Targets:
    """The same with crowds at (image, object)."""
    crowd = targets.crowd.clone()
    for place in places:
        crowd[place] = True
    return replace(targets, crowd=crowd)


def fine(targets: Targets) -> Targets:
    return replace(targets, boxes=targets.boxes.double())


def loop_area(box: list[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def loop_shared(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0.0) * max(height, 0.0)


def loop_iou(a: list[float], b: list[float]) -> float:
    shared = loop_shared(a, b)
    return shared / (loop_area(a) + loop_area(b) - shared)


def loop_match(
    anchors: list[list[float]], boxes: list[list[float]], is_crowd: list[bool], rule: Thresholds
) -> list[int]:
    """The rules in words, anchor by anchor."""
    objects = [m for m in range(len(boxes)) if not is_crowd[m]]
    best_of = {m: max(loop_iou(anchor, boxes[m]) for anchor in anchors) for m in objects}
    result = []
    for anchor in anchors:
        overlap = {m: loop_iou(anchor, boxes[m]) for m in objects}
        favourite = max(objects, key=lambda m: overlap[m], default=None)
        top = overlap[favourite] if favourite is not None else 0.0
        claims = [m for m in objects if overlap[m] == best_of[m] > 0]
        if rule.force == "object" and claims:
            answer = max(claims, key=lambda m: overlap[m])
        elif top >= rule.foreground_iou or (rule.force == "anchor" and claims):
            answer = favourite
        elif top >= rule.background_iou and objects:
            answer = IGNORE
        else:
            answer = BACKGROUND
        inside = max(
            (loop_shared(anchor, b) for b, c in zip(boxes, is_crowd, strict=True) if c), default=0.0
        )
        if answer in (IGNORE, BACKGROUND) and inside / loop_area(anchor) >= rule.crowd_coverage:
            answer = IGNORE
        assert answer is not None
        result.append(answer)
    return result


@pytest.mark.parametrize("force", MODES)
@pytest.mark.parametrize("seed", range(5))
def test_matches_equal_a_loop_over_anchors_and_objects(force: str, seed: int) -> None:
    anchors = make_anchors(200, torch.float64)
    targets = crowded(fine(make_targets([6, 0, 3, 9], 4, seed)), [(0, 1), (3, 0), (3, 8)])
    rule = Thresholds(0.4, 0.25, force, 0.5)  # type: ignore[arg-type]
    matches = match_images(anchors, targets, rule)
    for i, count in enumerate([6, 0, 3, 9]):
        expected = loop_match(
            anchors.boxes.tolist(),
            targets.boxes[i, :count].tolist(),
            targets.crowd[i, :count].tolist(),
            rule,
        )
        assert matches.objects[i].tolist() == [max(m, BACKGROUND) for m in expected]
        labels = [int(targets.labels[i, m]) if m >= 0 else m for m in expected]
        assert matches.labels[i].tolist() == labels


def test_the_boxes_are_those_of_the_objects_or_else_the_anchor() -> None:
    anchors, targets = make_anchors(4), make_targets([2, 1], 3)
    objects = torch.tensor([[1, BACKGROUND, 0, IGNORE], [BACKGROUND, 0, BACKGROUND, BACKGROUND]])
    matches = matches_from_objects(objects, anchors, targets)
    assert matches.labels.tolist() == [
        [int(targets.labels[0, 1]), BACKGROUND, int(targets.labels[0, 0]), IGNORE],
        [BACKGROUND, int(targets.labels[1, 0]), BACKGROUND, BACKGROUND],
    ]
    expected = anchors.boxes.expand(2, -1, -1).clone()
    expected[0, 0], expected[0, 2] = targets.boxes[0, 1], targets.boxes[0, 0]
    expected[1, 1] = targets.boxes[1, 0]
    assert torch.equal(matches.boxes, expected)
    assert matches.objects.tolist() == [[1, -1, 0, -1], [-1, 0, -1, -1]]


@pytest.mark.parametrize("counts", [[0, 0], [0, 3]])
def test_an_image_without_objects_is_all_background(counts: list[int]) -> None:
    anchors, targets = make_anchors(), make_targets(counts, 3)
    matches = match_images(anchors, targets, USUAL)
    assert (matches.labels[0] == BACKGROUND).all()
    assert (matches.objects[0] == BACKGROUND).all()
    assert torch.equal(matches.boxes[0], anchors.boxes)


@pytest.mark.parametrize("force", MODES)
def test_the_order_of_objects_changes_neither_matches_nor_loss(force: str) -> None:
    anchors, targets = make_anchors(), make_targets([5, 5], 3)
    order = torch.tensor([3, 1, 4, 0, 2])
    shuffled = replace(
        targets,
        boxes=targets.boxes[:, order],
        labels=targets.labels[:, order],
        crowd=targets.crowd[:, order],
    )
    rule = Thresholds(0.4, 0.25, force, 0.5)  # type: ignore[arg-type]
    first, second = (match_images(anchors, t, rule) for t in (targets, shuffled))
    assert torch.equal(first.labels, second.labels)
    assert torch.equal(first.boxes, second.boxes)
    predictions = make_predictions(FocalLoss(3).layout, anchors, 2)
    loss = FocalLoss(3)
    assert torch.equal(loss(predictions, first)["class"], loss(predictions, second)["class"])


def covered(anchors: Anchors, box: Tensor) -> Tensor:
    """(A,) bool: at least half of the anchor's area lies in the box."""
    shares = [loop_shared(a, box.tolist()) / loop_area(a) for a in anchors.boxes.tolist()]
    return torch.tensor(shares) >= 0.5


def test_the_loss_with_a_crowd_is_the_loss_with_its_anchors_masked() -> None:
    anchors = make_anchors(120)
    alone = make_targets([2], 3, seed=3)
    box = torch.tensor([20.0, 20.0, 90.0, 90.0])
    both = replace(
        alone,
        boxes=torch.cat([alone.boxes, box[None, None]], 1),
        labels=torch.cat([alone.labels, torch.tensor([[1]])], 1),
        crowd=torch.tensor([[False, False, True]]),
    )
    with_crowd = match_images(anchors, both, USUAL)
    plain = match_images(anchors, alone, USUAL)
    masked = (plain.labels < 0) & covered(anchors, box)
    expected = replace(plain, labels=torch.where(masked, IGNORE, plain.labels))
    assert torch.equal(with_crowd.labels, expected.labels)
    assert 0 < int(masked.sum()) < len(anchors.boxes)
    loss = FocalLoss(3)
    predictions = make_predictions(loss.layout, anchors, 1)
    assert torch.equal(loss(predictions, with_crowd)["class"], loss(predictions, expected)["class"])


def test_a_crowd_is_never_a_positive_not_even_alone() -> None:
    anchors = make_anchors()
    targets = crowded(make_targets([1], 3), [(0, 0)])
    targets = replace(targets, boxes=anchors.boxes[None, :1].clone())
    labels = match_images(anchors, targets, USUAL).labels[0]
    assert int(labels[0]) == IGNORE
    assert not (labels >= 0).any()


def test_padding_is_no_object() -> None:
    anchors, targets = make_anchors(), make_targets([2, 4], 3)
    cut = replace(
        targets,
        boxes=targets.boxes[:1, :2],
        labels=targets.labels[:1, :2],
        crowd=targets.crowd[:1, :2],
        image_sizes=targets.image_sizes[:1],
    )
    padded, bare = (match_images(anchors, t, USUAL) for t in (targets, cut))
    assert torch.equal(padded.labels[0], bare.labels[0])
    assert torch.equal(padded.boxes[0], bare.boxes[0])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "retinanet",
            {"foreground_iou": 0.0},
            "matcher.foreground_iou: 0.0 given, above 0 and at most 1 is allowed",
        ),
        (
            "retinanet",
            {"background_iou": 0.6},
            "matcher.background_iou: 0.6 given, 0 to foreground_iou = 0.5 is allowed",
        ),
        (
            "retinanet",
            {"force": "objekt"},
            "matcher.force: 'objekt' is not one of object, anchor, none (did you mean 'object'?)",
        ),
        ("ssd", {"crowd_coverage": 0.0}, "matcher.crowd_coverage: 0.0 given, above 0 is needed"),
        (
            "ssd",
            {"foreground_iou": 1.1},
            "matcher.foreground_iou: 1.1 given, above 0 and at most 1 is allowed",
        ),
    ],
)
def test_options_out_of_range_are_refused(name: str, options: dict, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        MATCHERS.build(Plug(name, options))
    assert str(error.value) == message


@pytest.mark.parametrize("name", MATCHERS.names)
def test_every_matcher_answers_for_every_anchor_of_every_image(name: str) -> None:
    matcher = MATCHERS.build(Plug(name, {}))
    anchors, targets = make_anchors(), make_targets([3, 0, 1], 5)
    matches = matcher(anchors, targets, None)
    assert isinstance(matches, Matches)
    assert matches.labels.shape == (3, 60)
    assert matches.boxes.shape == (3, 60, 4)
    assert torch.equal(matches.objects >= 0, matches.foreground)
    assert bool((matches.labels < 5).all())


class Counter(TorchDispatchMode):
    """How many operators run."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.filterwarnings("error")  # torch warns where it falls back to a loop over the images
@pytest.mark.parametrize("name", MATCHERS.names)
@pytest.mark.parametrize("has_predictions", [False, True])
def test_images_matched_together_are_matched_as_each_by_itself(
    monkeypatch: pytest.MonkeyPatch, name: str, has_predictions: bool
) -> None:
    matcher, anchors = MATCHERS.build(Plug(name, {})), make_anchors()
    counts = [9, 0, 1, 5, 5, 2]
    for seed in range(5):
        targets = crowded(make_targets(counts, 5, seed=seed), [(0, 2), (3, 1)])
        predictions = None
        if has_predictions:
            predictions = make_predictions(Sigmoid(5), anchors, len(counts), seed=seed)
            scores = predictions.logits.detach().sigmoid()
            predictions = replace(predictions, scores=scores)
        alone = matcher(anchors, targets, predictions)
        with monkeypatch.context() as patch:
            patch.setattr(base, "is_at_once", lambda device: True)
            whole = matcher(anchors, targets, predictions)
            patch.setattr(base, "MOST_PAIRS", 2 * 9 * len(anchors.boxes))  # two images at a time
            parts = matcher(anchors, targets, predictions)
        for found in (whole, parts):
            assert torch.equal(found.objects, alone.objects)
            assert torch.equal(found.labels, alone.labels)
            assert torch.equal(found.boxes, alone.boxes)
            if alone.quality is not None:
                assert found.quality is not None
                assert torch.equal(found.quality, alone.quality)


@pytest.mark.parametrize("name", ["retinanet", "ssd", "atss", "task_aligned", "dynamic_soft"])
def test_operators_do_not_grow_with_the_images(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(base, "is_at_once", lambda device: True)
    matcher, anchors = MATCHERS.build(Plug(name, {})), make_anchors()
    counts = []
    for num_images in (2, 20):
        targets = make_targets([3] * num_images, 5)
        with Counter() as counter:
            matcher(anchors, targets, None)
        counts.append(counter.count)
    assert counts[0] == counts[1]


@pytest.mark.parametrize("force", MODES)
@pytest.mark.parametrize("at_a_time", [1, 3, 7])
def test_objects_looked_at_in_parts_give_the_same_matches(
    monkeypatch: pytest.MonkeyPatch, force: str, at_a_time: int
) -> None:
    anchors = make_anchors()
    targets = crowded(make_targets([9, 1, 10], 3), [(0, 2), (2, 9)])
    boxes = targets.boxes.clone()
    boxes[0, 5] = boxes[0, 1]  # equal objects in different parts: the first one is taken
    boxes[2, 7] = anchors.boxes[4]
    boxes[2, 0] = anchors.boxes[4]
    targets = replace(targets, boxes=boxes)
    rule = replace(USUAL, force=force)
    whole = match_images(anchors, targets, rule)
    monkeypatch.setattr(base, "MOST_PAIRS", at_a_time * len(anchors.boxes))
    parts = match_images(anchors, targets, rule)
    assert torch.equal(whole.labels, parts.labels)
    assert torch.equal(whole.objects, parts.objects)
    assert torch.equal(whole.boxes, parts.boxes)


@pytest.mark.long
def test_five_thousand_objects_in_an_image_take_no_more_tables_than_a_few() -> None:
    code = """if True:
        import resource
        import torch
        from detector.matchers.base import MOST_PAIRS, Thresholds, match_images
        from tests.synthetic import make_anchors, make_targets
        anchors, targets = make_anchors(20_000), make_targets([5000], 3)
        few = make_targets([3], 3)
        rule = Thresholds(0.5, 0.4, "object", 0.5)
        match_images(anchors, few, rule)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        match_images(anchors, targets, rule)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print((after - before) * 1024 / (4 * MOST_PAIRS))
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # In tables of MOST_PAIRS float32. All pairs at once would be 6 of them, times the 15 tables
    # that an overlap of boxes takes; the bound is what those tables take for one part, and a half.
    assert float(done.stdout) < 20
