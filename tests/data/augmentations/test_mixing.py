"""Images made of several: where boxes end up, what they show, and that a key decides it all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray

from detector.config.registry import AUGMENTATIONS
from detector.config.schema import Plug
from detector.data.augmentations.mixing import Mixing, blend, mosaic, paste, window
from detector.data.loader import train_batches
from detector.data.transforms import Augmentation, Sample, visible
from detector.errors import ConfigError
from tests.commands import ROOT
from tests.data.files import make_dataset

PRESETS = ["none", "flip", "paper", "multiscale", "lsj", "strong"]
COLORS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [0, 255, 255]], np.uint8)
"""Of the objects of a painted image, by label."""

PLAIN = {"color": 0.0, "blur": 0.0, "noise": 0.0, "jpeg": 0.0}
"""Options that leave the colours alone."""


def preset(name: str, **options: Any) -> Augmentation:
    values = yaml.safe_load(Path(ROOT, f"configs/augment/{name}.yaml").read_text()) | options
    return AUGMENTATIONS.build(Plug(values.pop("name"), values))


def painted(seed: int, size: tuple[int, int] | None = None, count: int = 4) -> Sample:
    """A grey image with rectangles side by side, each in the colour of its label."""
    rng = np.random.default_rng(seed)
    height, width = size or rng.integers(60, 120, 2).tolist()
    image = np.full((height, width, 3), 128, np.uint8)
    boxes, labels = [], []
    for i in range(count):
        left = round(i * width / count) + 2
        right = round((i + 1) * width / count) - 2
        top = int(rng.integers(0, height // 3))
        bottom = int(rng.integers(2 * height // 3, height + 1))
        label = int(rng.integers(len(COLORS)))
        image[top:bottom, left:right] = COLORS[label]
        boxes.append([left, top, right, bottom])
        labels.append(label)
    return Sample(
        image,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(labels, np.int64),
        np.zeros(count, np.bool_),
        np.ones(2, np.float32),
    )


def chaotic(rng: np.random.Generator, count: int) -> Sample:
    """An image of noise of 1 to 90 px with boxes many of which lie partly or wholly outside."""
    height, width = rng.integers(1, 90, 2).tolist()
    corner = rng.uniform(-0.3, 0.9, (count, 2)) * [width, height]
    boxes = np.concatenate([corner, corner + rng.exponential(15, (count, 2))], 1)
    return Sample(
        rng.integers(0, 256, (height, width, 3), np.uint8),
        boxes.astype(np.float32),
        np.arange(count) + 7,
        rng.random(count) < 0.1,
        np.ones(2, np.float32),
    )


def require_sound(result: Sample) -> None:
    height, width = result.image.shape[:2]
    x1, y1, x2, y2 = result.boxes.T
    assert bool(((x1 >= 0) & (x1 < x2) & (x2 <= width)).all())
    assert bool(((y1 >= 0) & (y1 < y2) & (y2 <= height)).all())
    assert len(result.boxes) == len(result.labels) == len(result.crowd)
    assert (result.boxes.dtype, result.labels.dtype) == (np.float32, np.int64)
    assert (result.crowd.dtype, result.image.dtype) == (np.bool_, np.uint8)


@pytest.mark.parametrize("name", PRESETS)
def test_a_thousand_random_boxes_stay_inside_and_are_never_inverted(name: str) -> None:
    small = {"min_size": 60, "max_size": 100} if name == "paper" else {}
    options = {"mosaic": 0.7, "mixup": 0.5, "copy_paste": 0.7} if name == "strong" else {}
    augment = preset(name, **small, **options)
    rng = np.random.default_rng(0)
    others = [chaotic(rng, 20) for _ in range(50)]
    seen = 0
    for key, sample in enumerate(others):
        result = augment.train_among(sample, key, others, 0.0)
        require_sound(result)
        require_sound(augment.train_among(sample, key, others, 1.0))
        require_sound(augment.evaluate(sample))
        seen += len(result.boxes)
    assert seen > 200  # of 1,000, many of which lie outside or are slivers


def dominant(image: NDArray[np.uint8], box: Sequence[float]) -> int:
    """The colour at the most pixels of the inner half of a box."""
    x1, y1, x2, y2 = box
    dx, dy = (x2 - x1) / 4, (y2 - y1) / 4
    inner = image[int(y1 + dy) : int(y2 - dy) + 1, int(x1 + dx) : int(x2 - dx) + 1]
    distance = np.abs(inner[:, :, None].astype(int) - COLORS).sum(-1)
    return int(np.bincount(distance.argmin(-1).flatten(), minlength=len(COLORS)).argmax())


@pytest.mark.parametrize(
    "options",
    [{"mosaic": 1.0, "copy_paste": 0.0}, {"mosaic": 0.0, "copy_paste": 1.0},
     {"mosaic": 1.0, "copy_paste": 1.0}],
    ids=["mosaic", "paste", "both"],
)  # fmt: skip
def test_a_box_shows_the_object_of_its_label(options: dict[str, float]) -> None:
    augment = Mixing(**PLAIN, **options, mixup=0.0, scale_jitter=(0.7, 1.5))
    others = [painted(seed) for seed in range(12)]
    counted = wrong = 0
    for key in range(80):
        result = augment.train_among(others[key % 12], key, others, 0.0)
        for box, label in zip(result.boxes.tolist(), result.labels.tolist(), strict=True):
            if min(box[2] - box[0], box[3] - box[1]) >= 4:  # not the rim that resizing blurs
                counted += 1
                wrong += dominant(result.image, box) != label
    assert counted > 250
    # Only what several pasted objects hide together, each of them up to 30 %, may look otherwise.
    assert wrong <= (0.01 * counted if options["copy_paste"] else 0)


def test_a_mosaic_is_four_windows_that_meet_in_its_middle() -> None:
    parts = [painted(seed, (100, 120)) for seed in range(4)]
    parts = [Sample(np.full_like(p.image, 10 * i), p.boxes, p.labels, p.crowd, p.scale)
             for i, p in enumerate(parts)]  # fmt: skip
    result = mosaic(parts, (100, 120), np.random.default_rng(3), 0.25)
    values = result.image[..., 0]
    assert [values[0, 0], values[0, -1], values[-1, 0], values[-1, -1]] == [0, 10, 20, 30]
    y, x = int((values[:, 0] == 0).sum()), int((values[0] == 0).sum())
    assert 30 <= y <= 70
    assert 36 <= x <= 84
    assert np.array_equal(values, np.where(np.arange(100)[:, None] < y, 0, 20)
                          + np.where(np.arange(120) < x, 0, 10))  # fmt: skip
    for left, top, right, bottom in result.boxes.tolist():  # none reaches over a seam
        assert right <= x or left >= x
        assert bottom <= y or top >= y


def test_an_object_of_which_a_window_shows_too_little_is_dropped() -> None:
    sample = painted(0, (40, 100), count=1)
    sample = Sample(sample.image, np.array([[10, 0, 50, 40]], np.float32), sample.labels,
                    sample.crowd, sample.scale)  # fmt: skip
    # Windows of 20 px from 0 or 79: they show 10 of 40 px, or nothing.
    left, right = (window(sample, (40, 20), np.array([0.0, d]), 0.25) for d in (0.0, 0.99))
    assert left.boxes.tolist() == [[10, 0, 20, 40]]
    assert visible(left.boxes, sample.boxes).tolist() == [0.25]
    assert len(right.boxes) == 0
    assert len(window(sample, (40, 20), np.zeros(2), 0.26).boxes) == 0


def test_a_window_of_a_small_image_is_filled_up() -> None:
    sample = painted(0, (10, 12), count=1)
    seen = window(sample, (14, 15), np.zeros(2), 0.25)
    assert np.array_equal(seen.image[:10, :12], sample.image)
    assert seen.image[10, 0].tolist() == seen.image[0, 12].tolist() == [124, 116, 104]
    assert np.array_equal(seen.boxes, sample.boxes)


def test_a_pasted_object_is_the_content_of_its_box_and_hides_little() -> None:
    source = painted(5, (60, 60), count=2)
    source = Sample(source.image, source.boxes + np.float32(0.25), source.labels,
                    np.array([False, True]), source.scale)  # fmt: skip
    empty = painted(1, (80, 90), count=0)
    pasted = 0
    for seed in range(30):
        result = paste(empty, source, np.random.default_rng(seed))
        assert result.labels.tolist() in ([], [int(source.labels[0])])  # never the crowd
        for box in result.boxes:
            pasted += 1
            sides = source.boxes[0, 2:] - source.boxes[0, :2]
            np.testing.assert_array_equal(box[2:] - box[:2], sides)  # quarters are exact
            assert (box % 1).tolist() == [0.25] * 4
            y, x = int(box[1]), int(box[0])
            top, left = int(source.boxes[0, 1]), int(source.boxes[0, 0])
            h, w = (int(np.ceil(s)) for s in sides[::-1])
            expected = source.image[top : top + h, left : left + w]
            assert np.array_equal(result.image[y : y + h, x : x + w], expected)
    assert 5 < pasted < 25  # about half of the tries
    assert not empty.labels.size
    covered = painted(2, (62, 62), count=1)
    covered = Sample(covered.image, np.array([[0, 0, 62, 62]], np.float32), covered.labels,
                     covered.crowd, covered.scale)  # fmt: skip
    large = Sample(source.image, np.array([[0, 0, 50, 50]], np.float32), source.labels[:1],
                   np.array([False]), source.scale)  # fmt: skip
    for seed in range(10):  # 2500 of 3844 pixels would be hidden
        assert len(paste(covered, large, np.random.default_rng(seed)).boxes) == 1


def test_a_blend_is_the_weighted_mean_and_has_the_objects_of_both() -> None:
    first, second = painted(1, (60, 70)), painted(2, (60, 70))
    result = blend(first, second, np.random.default_rng(0), 0.25)
    draws = np.random.default_rng(0)
    draws.random(2)
    weight = draws.beta(32, 32)
    expected = weight * first.image + (1 - weight) * second.image.astype(float)
    assert np.abs(result.image - expected).max() <= 0.5 + 1e-4  # rounded, from float32
    assert np.array_equal(result.boxes, np.concatenate([first.boxes, second.boxes]))
    assert np.array_equal(result.labels, np.concatenate([first.labels, second.labels]))


def test_nothing_is_mixed_at_the_end_of_a_run_or_without_other_images() -> None:
    augment = Mixing(mosaic=1.0, mixup=1.0, copy_paste=1.0, mix_until=0.9)
    others = [painted(seed) for seed in range(5)]
    sample = others[2]
    alone = augment.train(sample, 9)
    assert np.array_equal(augment.train_among(sample, 9, others, 0.9).image, alone.image)
    assert np.array_equal(augment.train_among(sample, 9, others[:1], 0.0).image, alone.image)
    mixed = augment.train_among(sample, 9, others, 0.89)
    assert mixed.image.shape != alone.image.shape or not np.array_equal(mixed.image, alone.image)


def test_blur_noise_and_jpeg_change_pixels_and_no_box() -> None:
    sample = painted(3)
    for option in ("blur", "noise", "jpeg"):
        options = {**PLAIN, option: 1.0, "scale_jitter": (1.0, 1.0), "horizontal_flip": 0.0}
        result = Mixing(**options).train(sample, 4)
        assert np.array_equal(result.boxes, sample.boxes)
        difference = np.abs(result.image.astype(int) - sample.image)
        assert 0 < difference.mean() < 40, option


def load(name: str, num_workers: int, start: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    dataset = make_dataset([(64, 70), (40, 90), (55, 55), (80, 33), (64, 64)], [4, 0, 2, 5, 1])
    options: dict[str, Any] = {"min_size": 48, "max_size": 80} if name == "paper" else {}
    if name == "strong":
        options = {"mosaic": 0.6, "copy_paste": 0.6, "mixup": 0.4, "blur": 0.4, "noise": 0.4,
                   "jpeg": 0.4, "mix_until": 0.7}  # fmt: skip
    batches = train_batches(
        dataset, preset(name, **options), seed=4, batch_size=4, micro_batch=2, start_step=start,
        stop_step=8, num_workers=num_workers,
    )  # fmt: skip
    return [(batch.images, targets.boxes) for batch, targets in batches]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more than there are processors
@pytest.mark.parametrize("name", PRESETS)
def test_batches_are_equal_to_the_bit_with_any_workers_and_after_a_resume(name: str) -> None:
    alone = load(name, 0)
    others = [(load(name, workers), 0) for workers in (2, 4)]
    others.append((load(name, 0, start=5), 10))
    for other, first in others:
        assert len(other) == 16 - first
        for (images, boxes), (theirs, their_boxes) in zip(alone[first:], other, strict=True):
            assert torch.equal(images, theirs)
            assert torch.equal(boxes, their_boxes)


def test_different_keys_give_different_images() -> None:
    augment = preset("strong")
    others = [painted(seed) for seed in range(5)]
    images = {augment.train_among(others[0], k, others, 0).image.tobytes() for k in range(40)}
    assert len(images) == 40


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mosaic": 1.5}, "mosaic: 1.5 given, 0 to 1 is allowed"),
        ({"mix_until": -1.0}, "mix_until: -1.0 given, 0 to 1 is allowed"),
        (
            {"interpolation": "torch"},
            "interpolation: torch gives fractions of pixels, which are not mixed; take another",
        ),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        AUGMENTATIONS.build(Plug("mixing", options))
    assert str(error.value) == f"augment.{words}"
