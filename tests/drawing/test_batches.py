"""What is drawn of batches."""

from __future__ import annotations

import numpy as np
import torch

from detector.data.loader import collate
from detector.data.transforms import Sample
from detector.drawing.batches import of_objects, striped
from detector.drawing.drawing import Mark
from detector.matchers.base import matches_from_objects
from detector.structures import BACKGROUND, IGNORE, Anchors, Batch, Targets


def batch() -> tuple[Batch, Targets]:
    """An image of 20 x 30 px with a dog and a crowd of cats, one of 32 x 32 px with a cat."""
    samples = [
        sample(20, 30, [[1, 2, 10, 12], [3, 4, 20, 18]], [1, 0], [False, True]),
        sample(32, 32, [[5, 5, 9, 9]], [0], [False]),
    ]
    return collate([(s, i, i) for i, s in enumerate(samples)])


def sample(
    height: int, width: int, boxes: list[list[int]], labels: list[int], crowd: list[bool]
) -> Sample:
    return Sample(
        image=np.full((height, width, 3), (10, 20, 30), np.uint8),
        boxes=np.array(boxes, np.float32),
        labels=np.array(labels),
        crowd=np.array(crowd),
        scale=np.ones(2, np.float32),
    )


def test_objects_have_their_names_and_padding_has_no_mark() -> None:
    _, targets = batch()
    assert of_objects(0, targets, ("cat", "dog")) == [
        Mark((1, 2, 10, 12), 1, "dog"),
        Mark((3, 4, 20, 18), 0, "cat (crowd)", is_dashed=True),
    ]
    assert of_objects(1, targets, ("cat", "dog")) == [Mark((5, 5, 9, 9), 0, "cat")]


def test_matches_add_the_anchors_of_each_object_and_their_number() -> None:
    _, targets = batch()
    boxes = torch.tensor([[0, 0, 4, 4], [1, 1, 5, 5], [2, 2, 6, 6], [3, 3, 7, 7.0]])
    anchors = Anchors(boxes, torch.ones(4), (4,))
    objects = torch.tensor([[0, IGNORE, 0, BACKGROUND], [BACKGROUND] * 4])
    matches = matches_from_objects(objects, anchors, targets)
    assert of_objects(0, targets, ("cat", "dog"), matches) == [
        Mark((1, 2, 10, 12), 1, "dog: 2"),
        Mark((3, 4, 20, 18), 0, "cat (crowd)", is_dashed=True),
        Mark((0, 0, 4, 4), 1, is_thin=True),
        Mark((2, 2, 6, 6), 1, is_thin=True),
    ]
    assert [mark.text for mark in of_objects(1, targets, ("cat", "dog"), matches)] == ["cat: 0"]


def test_padding_is_striped_and_the_image_is_as_it_is() -> None:
    images, _ = batch()
    pixels = striped(images)
    assert pixels.shape == (2, 32, 32, 3)
    assert (pixels[0, :20, :30] == (10, 20, 30)).all()
    assert (pixels[1] == (10, 20, 30)).all()
    padding = np.concatenate([pixels[0, 20:].reshape(-1, 3), pixels[0, :20, 30:].reshape(-1, 3)])
    assert set(map(tuple, padding.tolist())) == {(150, 150, 150), (200, 200, 200)}
    assert (images.images[0, :, 20:] == 0).all()


def test_pixels_between_whole_numbers_are_rounded() -> None:
    images = Batch(
        torch.tensor([-3.0, 1.6, 254.6, 300.0]).expand(1, 3, 1, 4),
        torch.tensor([[1, 4]]), torch.ones(1, 2), (0,),
    )  # fmt: skip
    assert striped(images)[0, 0, :, 0].tolist() == [0, 2, 255, 255]
