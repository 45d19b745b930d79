from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from detector.boxes import iou
from detector.config.registry import DATASETS
from detector.config.schema import Plug
from detector.data.annotations import Annotations
from detector.data.readers import generated
from detector.data.readers.generated import (
    COLOURS,
    MAX_CLASSES,
    SHAPES,
    GeneratedDataset,
    GeneratedReader,
    class_pairs,
    distractor_pairs,
    mask,
    plan,
)
from detector.errors import ConfigError


def read(split: Any = "train", **options: Any) -> GeneratedDataset:
    dataset = GeneratedReader(**({"num_train": 60, "num_val": 20} | options)).read(split)
    assert isinstance(dataset, GeneratedDataset)
    return dataset


def plans(dataset: GeneratedDataset) -> list[list[generated.Shape]]:
    return [plan(dataset.options, dataset.split, i) for i in range(len(dataset))]


def test_an_image_is_a_function_of_seed_split_and_index() -> None:
    short, long = read(), read(num_train=200)
    for index in (59, 0, 7):
        assert np.array_equal(short.image(index), long.image(index))
        assert short.annotations.boxes(index).tolist() == long.annotations.boxes(index).tolist()
    others = [read(seed=1).image(0), read("val").image(0), short.image(1)]
    assert not any(np.array_equal(short.image(0), other) for other in others)


def test_no_two_streams_of_an_image_are_alike() -> None:
    """Otherwise, say, whether a label is missing would depend on where the object lies."""
    draws = {generated.stream(0, "train", 0, p).random() for p in range(4)}
    assert len(draws) == len({generated.LAYOUT, generated.PAINT, generated.LABELS}) + 1 == 4


def test_images_are_as_large_as_asked() -> None:
    image = read(image_size=100).image(0)
    assert (image.shape, image.dtype) == ((100, 100, 3), np.uint8)


@pytest.mark.parametrize("options", [{}, {"min_size": 12.0, "max_size": 90.0, "max_objects": 6}])
def test_shapes_lie_inside_and_hardly_overlap(options: dict[str, Any]) -> None:
    for shapes in plans(read(**options)):
        boxes = torch.tensor([s.box for s in shapes], dtype=torch.float64)
        boxes[:, 2:] += boxes[:, :2]
        assert bool((boxes[:, :2] >= 0).all())
        assert bool((boxes[:, 2:] <= 256).all())
        overlaps = iou(boxes[:, None], boxes).fill_diagonal_(0)
        assert float(overlaps.max()) <= 0.1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("width", "height"), [(8, 8), (9, 12), (16, 13), (31, 47), (72, 60)])
def test_a_shape_reaches_all_four_sides_of_its_box(shape: str, width: int, height: int) -> None:
    """A sixth of a pixel or more in each outermost row and column: visible above the grain."""
    covered = mask(shape, width, height)
    assert covered.shape == (height, width)
    assert float(covered.min()) >= 0
    assert float(covered.max()) <= 1 + 1e-6  # an average of ones, rounded
    for edge in (covered[0], covered[-1], covered[:, 0], covered[:, -1]):
        assert float(edge.max()) > 1 / 6


def test_only_the_pixels_of_a_box_are_painted() -> None:
    canvas = np.full((64, 64, 3), 128, np.uint8)
    shape = generated.Shape("circle", "red", (10, 20, 17, 13), 0)
    generated.draw(canvas, shape, np.random.default_rng(0))
    rows, columns = np.nonzero((canvas != 128).any(2))
    assert (columns.min(), columns.max() + 1) == (10, 10 + 17)
    assert (rows.min(), rows.max() + 1) == (20, 20 + 13)


@pytest.mark.parametrize("num_classes", [1, 2, 4, 7, MAX_CLASSES])
def test_a_distractor_shares_shape_and_colour_with_classes_but_is_none(num_classes: int) -> None:
    classes = class_pairs(num_classes)
    assert len(set(classes)) == num_classes
    others = distractor_pairs(num_classes)
    assert others
    assert not set(others) & set(classes)
    for shape, colour in others:
        assert shape in {s for s, _ in classes}
        assert num_classes == 1 or colour in {c for _, c in classes}
    for shapes in plans(read(num_classes=num_classes)):
        for s in shapes:
            known = classes[s.label] if s.label >= 0 else None
            assert (s.shape, s.colour) == known if known else (s.shape, s.colour) in others


def test_neither_shape_nor_colour_alone_tells_an_object() -> None:
    """Each shape and each colour of the default's classes occurs in a distractor."""
    others = distractor_pairs(4)
    assert {s for s, _ in others} == {s for s, _ in class_pairs(4)}
    assert {c for _, c in others} == {c for _, c in class_pairs(4)}


def test_colours_and_names_are_those_of_the_classes() -> None:
    annotations = read().annotations
    assert annotations.classes == ("red circle", "green square", "blue triangle", "yellow cross")
    assert annotations.category_ids == (1, 2, 3, 4)
    assert len(COLOURS) * len(SHAPES) == 2 * MAX_CLASSES


def test_there_are_as_many_distractors_as_asked_for() -> None:
    for rate in (0.0, 0.5, 2.0):
        labels = np.array(
            [s.label for p in plans(read(distractors=rate, num_train=300)) for s in p]
        )
        ratio = (labels < 0).sum() / (labels >= 0).sum()
        # 450 objects: a few distractors find no place, halves are drawn.
        assert abs(ratio - rate) <= 0.1 * rate + 1e-9


@pytest.mark.parametrize(("low", "high"), [(1, 2), (0, 3), (5, 5)])
def test_images_have_between_least_and_most_objects(low: int, high: int) -> None:
    annotations = read(min_objects=low, max_objects=high, num_train=100).annotations
    assert sorted(set(np.diff(annotations.starts).tolist())) == list(range(low, high + 1))


def test_sides_are_between_least_and_most() -> None:
    xywh = read(min_size=20.0, max_size=60.0, num_train=300).annotations.xywh
    sides = np.sqrt(xywh[:, 2] * xywh[:, 3])
    assert sides.min() > 19
    assert sides.max() < 61
    # The logarithm is even: half below sqrt(20 * 60) = 34.6; 450 draws, four deviations.
    assert abs((sides < 34.6).mean() - 0.5) < 0.1


def test_the_default_has_mostly_small_objects() -> None:
    annotations = read(num_train=500).annotations
    assert (annotations.areas < 32**2).mean() >= 0.5


def labels_of(annotations: Annotations) -> list[list[int]]:
    return [annotations.labels[annotations.objects(i)].tolist() for i in range(len(annotations))]


def test_label_noise_gives_another_class_to_its_share_of_train_only() -> None:
    clean, noisy = (read(num_train=400, label_noise=rate).annotations for rate in (0.0, 0.3))
    assert noisy.xywh.tolist() == clean.xywh.tolist()
    changed = noisy.labels != clean.labels
    assert abs(changed.mean() - 0.3) < 0.08  # 600 draws, four deviations
    assert set(noisy.labels[changed].tolist()) == {0, 1, 2, 3}
    every = read(label_noise=1.0).annotations.labels
    assert bool((every != read().annotations.labels).all())
    val, noisy_val = read("val").annotations, read("val", label_noise=0.3).annotations
    assert noisy_val.fingerprint == val.fingerprint


def test_missing_labels_leave_out_their_share_of_train_only() -> None:
    whole, part = (read(num_train=400, missing_labels=rate).annotations for rate in (0.0, 0.25))
    assert abs(len(part.labels) / len(whole.labels) - 0.75) < 0.08
    for index in range(len(whole)):
        boxes = whole.boxes(index).tolist()
        assert all(box in boxes for box in part.boxes(index).tolist())
    assert len(read(missing_labels=1.0).annotations.labels) == 0
    val = read("val", missing_labels=0.25).annotations
    assert val.fingerprint == read("val").annotations.fingerprint


def test_what_is_said_does_not_change_what_is_seen() -> None:
    spoilt = read(label_noise=0.5, missing_labels=0.5)
    assert all(np.array_equal(spoilt.image(i), read().image(i)) for i in range(5))


def test_more_noise_keeps_the_noise_there_was() -> None:
    """Nested: what is wrong at 10 % is wrong in the same way at 40 %."""
    clean, some, more = (read(num_train=300, label_noise=r).annotations for r in (0.0, 0.1, 0.4))
    wrong = some.labels != clean.labels
    assert wrong.any()
    assert more.labels[wrong].tolist() == some.labels[wrong].tolist()


def test_one_class_cannot_be_mistaken_for_another() -> None:
    assert set(read(num_classes=1, label_noise=1.0).annotations.labels.tolist()) == {0}


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"seed": -1}, "seed"),
        ({"num_train": 0}, "num_train"),
        ({"num_val": 0}, "num_val"),
        ({"num_classes": 0}, "num_classes"),
        ({"num_classes": MAX_CLASSES + 1}, "num_classes"),
        ({"min_objects": -1}, "min_objects"),
        ({"min_objects": 3, "max_objects": 2}, "max_objects"),
        ({"min_size": 4.0}, "min_size"),
        ({"min_size": 30.0, "max_size": 20.0}, "max_size"),
        ({"image_size": 32}, "image_size"),
        ({"distractors": -1.0}, "distractors"),
        ({"label_noise": 1.5}, "label_noise"),
        ({"missing_labels": -0.1}, "missing_labels"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=rf"data\.{key}: .* given"):
        DATASETS.build(Plug("generated", options))
