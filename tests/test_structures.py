"""The types that flow between the parts."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import pytest
import torch
from torch.utils.data._utils.pin_memory import pin_memory

from detector.config.registry import MATCHERS
from detector.config.schema import Plug
from detector.layouts import Sigmoid
from detector.structures import (
    BACKGROUND,
    IGNORE,
    Batch,
    Predictions,
    Targets,
    promote,
    to_device,
)
from tests.by_hand import match, predict
from tests.synthetic import PlainCoder, make_anchors, make_predictions, make_targets


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_only_half_precision_is_promoted(given: torch.dtype, kept: torch.dtype) -> None:
    x = torch.ones(2, dtype=given)
    assert promote(x).dtype == kept
    assert (promote(x) is x) == (given == kept)


def test_moving_to_a_device_moves_tensors_and_keeps_the_rest() -> None:
    targets = make_targets([2, 1], 3)
    moved = to_device(targets, torch.device("meta"))
    assert {moved.boxes.device.type, moved.labels.device.type, moved.keys.device.type} == {"meta"}
    assert moved.image_ids == (1, 2)
    assert targets.boxes.device.type == "cpu"


def test_the_loader_of_torch_finds_every_tensor_of_a_batch_to_pin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pinning itself takes a GPU, so what is pinned is noted instead."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor, *_: tensor + 1)
    size = torch.tensor([[32, 32]])
    batch = Batch(torch.zeros(1, 3, 32, 32), size, torch.ones(1, 2), (7,))
    targets = make_targets([2], 3)
    pinned_batch, pinned_targets = pin_memory((batch, targets))
    for before, after in ((batch, pinned_batch), (targets, pinned_targets)):
        for field in fields(before):
            value = getattr(before, field.name)
            expected = value + 1 if isinstance(value, torch.Tensor) else value
            assert torch.equal(
                torch.as_tensor(getattr(after, field.name)), torch.as_tensor(expected)
            )


def test_boxes_are_decoded_once_in_float32_and_are_differentiable() -> None:
    predictions = make_predictions(Sigmoid(3), make_anchors(), 2, dtype=torch.bfloat16)
    boxes = predictions.boxes
    assert boxes.dtype == torch.float32
    assert boxes.shape == (2, 60, 4)
    assert predictions.boxes is boxes
    boxes.sum().backward()
    assert predictions.deltas.grad is not None
    assert predictions.deltas.grad.any()


def test_deltas_of_zero_decode_to_the_anchors() -> None:
    anchors = make_anchors()
    zeros = torch.zeros(2, 60, 4)
    boxes = Predictions(torch.zeros(2, 60, 1), zeros, anchors, PlainCoder()).boxes
    # The anchor goes through centre and side and back, in float32 at up to 160 px.
    torch.testing.assert_close(boxes, anchors.boxes.expand(2, -1, -1), rtol=0, atol=1e-4)


def test_an_anchor_is_foreground_background_or_neutral() -> None:
    predictions = predict(torch.zeros(1, 4, 3))
    matches = match(predictions, [[2, BACKGROUND, IGNORE, 0]])
    assert matches.foreground.tolist() == [[True, False, False, True]]
    assert matches.background.tolist() == [[False, True, False, False]]
    assert matches.valid.tolist() == [[True, True, False, True]]


def test_one_hot_is_true_at_the_class_and_nowhere_for_the_rest() -> None:
    predictions = predict(torch.zeros(1, 4, 3))
    matches = match(predictions, [[2, BACKGROUND, IGNORE, 0]])
    none = [False, False, False]
    assert matches.one_hot(3).tolist() == [[[False, False, True], none, none, [True, False, False]]]


def test_the_types_cannot_be_changed_in_place() -> None:
    predictions = predict(torch.zeros(1, 1, 1))
    with pytest.raises(FrozenInstanceError):
        predictions.logits = torch.ones(1, 1, 1)  # type: ignore[misc]


def test_objects_of_several_images_are_packed_with_padding() -> None:
    boxes = [torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]]), torch.zeros(0, 4)]
    labels = [torch.tensor([2, 0]), torch.zeros(0, dtype=torch.long)]
    packed = Targets.pack(boxes, labels, image_sizes=[(10, 20), (30, 40)])
    assert packed.boxes.tolist() == [[[1, 2, 3, 4], [5, 6, 7, 8]], [[0] * 4] * 2]
    assert packed.labels.tolist() == [[2, 0], [BACKGROUND, BACKGROUND]]
    assert not packed.crowd.any()
    assert packed.crowd.shape == (2, 2)
    assert packed.image_sizes.tolist() == [[10, 20], [30, 40]]
    assert (packed.image_ids, packed.keys.tolist()) == ((0, 1), [0, 1])
    none = Targets.pack(boxes[1:], labels[1:], image_sizes=[(1, 1)], image_ids=[7], keys=[9])
    assert none.boxes.shape == (1, 0, 4)
    assert (none.image_ids, none.keys.tolist()) == ((7,), [9])


@pytest.mark.parametrize(
    ("count", "capacity"), [(0, 8), (1, 8), (8, 8), (9, 16), (16, 16), (17, 32), (1000, 1024)]
)
def test_places_for_objects_are_few_sizes_and_stay_empty(count: int, capacity: int) -> None:
    targets = make_targets([count, 0], 5)
    padded = targets.with_capacity()
    assert padded.boxes.shape == (2, capacity, 4)
    assert torch.equal(padded.boxes[:, :count], targets.boxes)
    assert torch.equal(padded.labels[:, :count], targets.labels)
    assert bool((padded.labels[:, count:] == BACKGROUND).all())
    assert not bool(padded.crowd[:, count:].any())


@pytest.mark.parametrize("name", MATCHERS.names)
def test_empty_places_change_no_match(name: str) -> None:
    matcher, anchors = MATCHERS.build(Plug(name, {})), make_anchors()
    targets = make_targets([3, 0, 5], 5)
    plain, padded = (matcher(anchors, t, None) for t in (targets, targets.with_capacity()))
    assert torch.equal(plain.objects, padded.objects)
    assert torch.equal(plain.labels, padded.labels)
    assert torch.equal(plain.boxes, padded.boxes)
