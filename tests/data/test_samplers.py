"""Images that come more often than others: how often, and that a run can begin anywhere in it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from detector.config.registry import SAMPLERS
from detector.config.schema import Plug
from detector.data.annotations import Annotations
from detector.data.loader import train_batches
from detector.data.sampler import Order, repeated, sample_key, step_samples
from detector.data.samplers import Sampler
from detector.data.transforms import Albumentations
from detector.errors import ConfigError
from tests.data.files import ArrayDataset, make_dataset


def annotated(classes_of_images: list[list[int]], num_classes: int = 3) -> Annotations:
    """Images with objects of these classes."""
    counts = [len(classes) for classes in classes_of_images]
    data = make_dataset([(32, 32)] * len(counts), counts).annotations
    labels = np.array([c for classes in classes_of_images for c in classes], np.int64)
    names = tuple("abcdefgh"[:num_classes])
    return replace_labels(data, labels, names)


def replace_labels(data: Annotations, labels: NDArray, names: tuple[str, ...]) -> Annotations:
    ids = tuple(range(1, len(names) + 1))
    return replace(data, labels=labels, classes=names, category_ids=ids)


def build(name: str, **options: float) -> Sampler:
    return SAMPLERS.build(Plug(name, options))


FEW = annotated([[0], [0, 0, 1], [0], [], [0, 2], [0], [0], [0]])
"""Class 0 in 7 of 8 images, classes 1 and 2 in one each; image 3 is empty."""


def test_a_repeat_factor_is_that_of_the_rarest_class_of_an_image() -> None:
    repeats = build("repeat_factor", threshold=0.5).repeats(FEW)
    rare = math.sqrt(0.5 / (1 / 8))
    assert repeats is not None
    assert repeats.tolist() == pytest.approx([1, rare, 1, 1, rare, 1, 1, 1])


def test_no_class_is_rare_below_the_threshold() -> None:
    repeats = build("repeat_factor", threshold=0.1).repeats(FEW)
    assert repeats is not None
    assert repeats.tolist() == [1.0] * 8


def test_class_balanced_shows_every_class_alike() -> None:
    repeats = build("class_balanced").repeats(FEW)
    assert repeats is not None
    # 1/7 for each image of class 0, and 1 more where a rare one is: 3 in all, over 7 images.
    wanted = [1 / 7, 8 / 7, 1 / 7, None, 8 / 7, 1 / 7, 1 / 7, 1 / 7]
    assert repeats.tolist() == pytest.approx([1 if w is None else w * 7 / 3 for w in wanted])
    assert repeats.sum() == pytest.approx(8)


def test_without_power_an_image_comes_once_for_each_class_it_holds() -> None:
    repeats = build("class_balanced", power=0.0).repeats(FEW)
    assert repeats is not None
    share = 7 / 9  # nine pairs of image and class, seven images
    assert repeats.tolist() == pytest.approx([share, 2 * share, share, 1, 2 * share, *[share] * 3])


@pytest.mark.parametrize("name", ["repeat_factor", "class_balanced"])
def test_a_data_set_without_any_object_is_left_as_it_is(name: str) -> None:
    repeats = build(name).repeats(annotated([[], [], []]))
    assert repeats is not None
    assert repeats.tolist() == [1.0] * 3


def test_shuffle_is_what_training_without_a_sampler_is() -> None:
    assert build("shuffle").repeats(FEW) is None
    order = Order(5, 8)
    for step in range(6):
        draws = order.step(step, 3)
        assert [(d.epoch, d.image) for d in draws] == step_samples(5, step, 3, 8)
        assert {d.repeat for d in draws} == {0}


REPEATS = np.array([1.0, 2.5, 0.3, 1.0, 4.2, 0.1])


def test_an_epoch_has_each_image_as_often_as_is_said_rounded_up_or_down() -> None:
    length = round(REPEATS.sum())
    exact = REPEATS * length / REPEATS.sum()
    totals = np.zeros(6)
    for epoch in range(2000):
        images, _ = repeated(3, epoch, REPEATS, length)
        counts = np.bincount(images, minlength=6)
        assert len(images) == length
        assert bool((np.abs(counts - exact) < 1).all())
        totals += counts
    # A count is one of two numbers, so its deviation is at most a half: five of that of the mean.
    np.testing.assert_allclose(totals / 2000, exact, atol=5 * 0.5 / math.sqrt(2000))


def test_each_time_an_image_comes_again_it_is_counted_and_drawn_anew() -> None:
    images, repeat = repeated(3, 1, REPEATS, 9)
    for image in range(6):
        assert repeat[images == image].tolist() == list(range(int((images == image).sum())))
    keys = {sample_key(0, 1, int(i), int(r)) for i, r in zip(images, repeat, strict=True)}
    assert len(keys) == 9
    assert sample_key(0, 1, 4, 0) == sample_key(0, 1, 4)


def test_a_step_does_not_depend_on_where_the_run_began() -> None:
    whole, late = Order(7, 6, REPEATS), Order(7, 6, REPEATS)
    steps = [whole.step(s, 4, s / 20) for s in range(20)]
    assert [late.step(s, 4, s / 20) for s in range(11, 20)] == steps[11:]
    assert [d.share for d in steps[5]] == [0.25] * 4
    draws = [d for step in steps for d in step]
    assert [d.epoch for d in draws] == [i // whole.length for i in range(80)]


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = {tuple(repeated(s, e, REPEATS, 9)[0]) for s in range(3) for e in range(10)}
    assert len(orders) > 25


class Fixed(Sampler):
    def repeats(self, annotations: Annotations) -> NDArray[np.float64]:
        return np.array([3.0, 1.0, 0.5, 1.5, 2.0])


def load(num_workers: int, start: int = 0) -> list[tuple[torch.Tensor, tuple[int, ...]]]:
    dataset: ArrayDataset = make_dataset([(32, 40)] * 5, [2] * 5)
    augment = Albumentations(scale_jitter=(0.5, 1.5), color=0.5)
    batches = train_batches(
        dataset, augment, seed=2, batch_size=4, micro_batch=2, start_step=start, stop_step=6,
        sampler=Fixed(), num_workers=num_workers,
    )  # fmt: skip
    return [(batch.images, batch.image_ids) for batch, _ in batches]


def test_batches_are_equal_to_the_bit_with_workers_and_after_a_resume() -> None:
    alone = load(0)
    assert len({tuple(ids) for _, ids in alone}) > 3
    for other, first in ((load(2), 0), (load(0, start=4), 8)):
        assert len(other) == 12 - first
        for (images, ids), (others, other_ids) in zip(alone[first:], other, strict=True):
            assert ids == other_ids
            assert torch.equal(images, others)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("repeat_factor", {"threshold": 2.0}, "threshold: 2.0 given, 0 to 1 is allowed"),
        ("class_balanced", {"power": -0.1}, "power: -0.1 given, 0 to 1 is allowed"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    name: str, options: dict[str, float], words: str
) -> None:
    with pytest.raises(ConfigError) as error:
        build(name, **options)
    assert str(error.value) == f"sampler.{words}"
