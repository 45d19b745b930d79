from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from detector.config.registry import AUGMENTATIONS
from detector.config.schema import Plug
from detector.data.transforms import Albumentations, Sample, crop
from detector.errors import ConfigError


def make(
    boxes: Any, size: tuple[int, int] = (60, 80), crowd: bool = False, seed: int = 0
) -> Sample:
    table = np.array(boxes, np.float32).reshape(-1, 4)
    return Sample(
        image=np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8),
        boxes=table,
        labels=np.arange(len(table), dtype=np.int64) + 7,
        crowd=np.full(len(table), crowd),
        scale=np.ones(2, np.float32),
    )


CONFIGS: list[dict[str, Any]] = [
    {},
    {"horizontal_flip": 0.0},
    {"horizontal_flip": 1.0, "min_size": 37, "max_size": 61},
    {"max_size": 45},
    {"min_size": 100, "color": 1.0},
    {"scale_jitter": (0.3, 2.5)},
    {"scale_jitter": (0.8, 1.25), "min_size": 41, "max_size": 90, "color": 0.5},
    {"scale_jitter": (1.5, 3.0), "min_visible": 0.0},
]


@pytest.mark.parametrize("options", CONFIGS, ids=str)
def test_after_any_pipeline_boxes_lie_in_the_image_and_have_area(options: dict[str, Any]) -> None:
    """10,000 random boxes a pipeline, many of them partly or wholly outside."""
    augment = Albumentations(**options)
    rng = np.random.default_rng(0)
    for key in range(100):
        height, width = rng.integers(1, 90, 2).tolist()
        corner = rng.uniform(-30, 90, (100, 2))
        boxes = np.concatenate([corner, corner + rng.exponential(15, (100, 2))], 1)
        sample = make(boxes, (height, width))
        for result in (augment.train(sample, key), augment.evaluate(sample)):
            h, w = result.image.shape[:2]
            x1, y1, x2, y2 = result.boxes.T
            assert bool(((x1 >= 0) & (x1 < x2) & (x2 <= w)).all())
            assert bool(((y1 >= 0) & (y1 < y2) & (y2 <= h)).all())
            assert len(result.boxes) == len(result.labels) == len(result.crowd)
            assert result.image.dtype == np.uint8
            assert result.image.flags.c_contiguous


def test_a_flip_mirrors_image_and_boxes_and_keeps_labels_integers() -> None:
    sample = make([[10, 5, 30, 25], [0, 0, 80, 60]])
    result = Albumentations(horizontal_flip=1.0).train(sample, 1)
    assert np.array_equal(result.image, sample.image[:, ::-1])
    # albumentations divides by the width and multiplies again.
    np.testing.assert_allclose(result.boxes, [[50, 5, 70, 25], [0, 0, 80, 60]], atol=1e-5)
    assert result.labels.tolist() == [7, 8]
    assert (result.labels.dtype, result.boxes.dtype) == (np.int64, np.float32)


def test_an_image_without_objects_stays_without() -> None:
    augment = Albumentations(horizontal_flip=1.0, color=1.0, scale_jitter=(1.5, 2.0))
    result = augment.train(make([]), 3)
    assert result.boxes.shape == (0, 4)
    assert (result.labels.dtype, result.crowd.dtype) == (np.int64, np.bool_)


def test_nothing_to_do_returns_the_same_pixels() -> None:
    sample = make([[1, 2, 30, 40]])
    augment = Albumentations(horizontal_flip=0.0)
    assert augment.evaluate(sample).image is sample.image
    assert augment.train(sample, 0).image is sample.image


@pytest.mark.parametrize(
    ("options", "size", "expected"),
    [
        ({}, (60, 80), (60, 80)),
        ({"min_size": 30}, (60, 80), (30, 40)),
        ({"min_size": 800, "max_size": 1333}, (480, 640), (800, 1067)),
        ({"min_size": 800, "max_size": 1333}, (100, 1000), (133, 1333)),
        ({"max_size": 320}, (480, 640), (240, 320)),
        ({"max_size": 320}, (64, 32), (320, 160)),
        ({"max_size": 10}, (1, 100), (1, 10)),
        ({"min_size": 3}, (2, 3), (3, 5)),
    ],
)
def test_sizes_by_hand(
    options: dict[str, Any], size: tuple[int, int], expected: tuple[int, int]
) -> None:
    """1066.67 -> 1067; 133.3 -> 133; 4.5 -> 5: rounded half up; never below 1."""
    result = Albumentations(**options).evaluate(make([], size))
    assert result.image.shape[:2] == expected


def test_the_scale_is_per_axis_and_moves_the_boxes() -> None:
    result = Albumentations(max_size=50).evaluate(make([[20, 10, 60, 33]], (33, 80)))
    assert result.image.shape[:2] == (21, 50)  # 20.625 is rounded
    np.testing.assert_array_equal(result.scale, np.array([21 / 33, 50 / 80], np.float32))
    expected = [[20 * 50 / 80, 10 * 21 / 33, 60 * 50 / 80, 21.0]]
    np.testing.assert_allclose(result.boxes, expected, rtol=1e-6)


def test_shrinking_averages_areas() -> None:
    sample = make([], (2, 4))
    result = Albumentations(max_size=2).evaluate(sample)
    exact = sample.image.astype(float).reshape(1, 2, 2, 2, 3).mean((1, 3))
    # Half a grey level: the mean of four integers, rounded.
    assert np.abs(result.image - exact).max() <= 0.5


def test_resize_and_flip_agree_with_torchvision() -> None:
    sample = make([[3.5, 4.25, 40, 50.75], [0, 0, 80, 60]])
    ours = Albumentations(min_size=100, horizontal_flip=1.0).train(sample, 0)
    boxes = tv_tensors.BoundingBoxes(
        torch.from_numpy(sample.boxes), format="XYXY", canvas_size=(60, 80)
    )
    theirs = v2.Compose([v2.Resize(100), v2.RandomHorizontalFlip(1.0)])(boxes)
    # Ecosystem parity: both round in float32, some 1e-5 px at 133 px.
    np.testing.assert_allclose(ours.boxes, theirs.numpy(), atol=1e-3)


def test_what_jitter_enlarges_is_cropped_to_the_size_without_jitter() -> None:
    augment = Albumentations(scale_jitter=(2.0, 2.0), horizontal_flip=0.0, min_visible=0.0)
    sample = make([[0, 0, 80, 60]])
    offsets = set()
    for key in range(20):
        result = augment.train(sample, key)
        assert result.image.shape == (60, 80, 3)
        assert result.boxes.tolist() == [[0, 0, 80, 60]]
        assert result.scale.tolist() == [2, 2]
        offsets.add(result.image[0, 0].tobytes())
    assert len(offsets) > 15


def test_what_jitter_shrinks_is_not_padded() -> None:
    augment = Albumentations(scale_jitter=(0.5, 0.5), horizontal_flip=0.0)
    result = augment.train(make([[10, 20, 30, 40]]), 0)
    assert result.image.shape == (30, 40, 3)
    assert result.boxes.tolist() == [[5, 10, 15, 20]]


def test_a_crop_moves_pixels_and_boxes_alike() -> None:
    sample = make([[12, 9, 20, 21], [0, 0, 5, 5]])
    top, left = 4, 10  # draws (4.5 / 21, 10.5 / 31): 20 and 30 px are to spare
    result = crop(sample, (40, 50), np.array([4.5 / 21, 10.5 / 31]))
    assert np.array_equal(result.image, sample.image[top : top + 40, left : left + 50])
    assert result.boxes[0].tolist() == [2, 5, 10, 17]
    assert result.boxes[1].tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize(("x2", "is_kept"), [(40.0, True), (39.0, False)])
def test_a_box_that_is_clipped_too_far_is_dropped_unless_a_crowd(x2: float, is_kept: bool) -> None:
    """A box from -120 to 40: a quarter of its 160 px is in the image, at 39 a little less."""
    augment = Albumentations(horizontal_flip=1.0)
    box = [[-120, 10, x2, 20], [1, 1, 9, 9]]
    assert len(augment.train(make(box), 0).boxes) == 1 + is_kept
    assert len(augment.train(make(box, crowd=True), 0).boxes) == 2
    assert len(augment.evaluate(make(box)).boxes) == 2


def test_draws_follow_from_the_key_alone() -> None:
    options: dict[str, Any] = {"scale_jitter": (0.5, 2.0), "color": 1.0}
    sample = make([[10, 20, 60, 50]])
    first, second = Albumentations(**options), Albumentations(**options)
    for key in (0, 5, 2**63 - 1):
        second.train(sample, key + 1 if key < 9 else 4)
        a, b = first.train(sample, key), second.train(sample, key)
        assert np.array_equal(a.image, b.image)
        assert np.array_equal(a.boxes, b.boxes)


def test_a_thousand_keys_draw_a_thousand_values() -> None:
    """Of a continuous option, at least 95 % distinct; flips come up as often as asked for."""
    sample = make([[0, 0, 8, 8]], (8, 8))
    colored = Albumentations(horizontal_flip=0.0, color=1.0)
    images = {colored.train(sample, key).image.tobytes() for key in range(1000)}
    assert len(images) >= 950
    flips = Albumentations(horizontal_flip=0.5)
    flipped = sum(
        not np.array_equal(flips.train(sample, key).image, sample.image) for key in range(1000)
    )
    assert abs(flipped - 500) < 80  # five standard deviations of a fair coin


def test_the_given_sample_is_not_changed() -> None:
    sample = make([[-5, -5, 60, 50]])
    before = sample.image.copy(), sample.boxes.copy()
    Albumentations(color=1.0, scale_jitter=(0.7, 1.4), min_size=50).train(sample, 1)
    assert np.array_equal(sample.image, before[0])
    assert np.array_equal(sample.boxes, before[1])


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"min_size": 0}, "augment.min_size"),
        ({"max_size": -1}, "augment.max_size"),
        ({"min_size": 800, "max_size": 600}, "augment.max_size"),
        ({"horizontal_flip": 1.5}, "augment.horizontal_flip"),
        ({"color": -0.1}, "augment.color"),
        ({"min_visible": 2.0}, "augment.min_visible"),
        ({"scale_jitter": [0.0, 1.0]}, "augment.scale_jitter"),
        ({"scale_jitter": [2.0, 1.0]}, "augment.scale_jitter"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        AUGMENTATIONS.build(Plug("albumentations", options))


def test_all_options_are_keywords() -> None:
    parameters = list(inspect.signature(Albumentations).parameters.values())
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters)
