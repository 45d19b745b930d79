from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

from detector.data.loader import collate, evaluation_batches, read_sample, train_batches
from detector.data.sampler import sample_key, step_samples
from detector.data.transforms import Albumentations, Augmentation, Sample
from detector.errors import DataError
from detector.structures import BACKGROUND, Batch, Targets
from tests.data.files import ArrayDataset, assert_same_batches, make_dataset

SIZES = [(20, 30), (33, 10), (40, 64), (8, 8), (31, 65), (16, 16), (50, 20)]
COUNTS = [2, 0, 4, 1, 3, 0, 2]
PLAIN = Albumentations(horizontal_flip=0.0)
RANDOM = Albumentations(scale_jitter=(0.5, 1.5), color=0.5)


@pytest.fixture
def dataset() -> ArrayDataset:
    return make_dataset(SIZES, COUNTS)


def train(dataset: ArrayDataset, augment: Augmentation = RANDOM, **changes: Any) -> list[Any]:
    options: dict[str, Any] = {"seed": 1, "batch_size": 4, "micro_batch": 2, "stop_step": 5}
    with warnings.catch_warnings():
        # torch advises against more workers than processors; here they are the point.
        warnings.filterwarnings("ignore", "This DataLoader will create")
        return list(train_batches(dataset, augment, **(options | changes)))


def evaluation(dataset: ArrayDataset, **changes: Any) -> list[tuple[Batch, Targets]]:
    return list(evaluation_batches(dataset, PLAIN, **({"images_per_group": 2} | changes)))


def test_a_batch_is_padded_right_and_bottom_to_multiples_of_32() -> None:
    dataset = make_dataset([(20, 30), (33, 10)], [2, 0])
    batch, targets = collate([(read_sample(dataset, i), 100 + i, 50 + i) for i in range(2)])
    assert batch.images.shape == (2, 3, 64, 32)
    assert batch.images.dtype == torch.uint8
    assert batch.sizes.tolist() == [[20, 30], [33, 10]]
    assert batch.sizes.dtype == torch.int64
    assert batch.image_ids == targets.image_ids == (100, 101)
    assert batch.images[1, :, :33, :10].flatten(1).unique(dim=1).T.tolist() == [[1, 1, 2]]
    assert int(batch.images[0].sum()) == 20 * 30 * (0 + 1 + 2)
    assert targets.keys.tolist() == [50, 51]


def test_an_image_of_fitting_size_is_not_padded() -> None:
    dataset = make_dataset([(32, 64)], [0])
    batch, _ = collate([(read_sample(dataset, 0), 0, 0)])
    assert batch.images.shape == (1, 3, 32, 64)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_loading_draws_no_global_random_numbers(dataset: ArrayDataset, num_workers: int) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    train(dataset, num_workers=num_workers)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002


def test_targets_are_padded_with_background() -> None:
    dataset = make_dataset([(20, 30), (33, 10)], [3, 1])
    _, targets = collate([(read_sample(dataset, i), i, i) for i in range(2)])
    assert targets.labels.tolist() == [[0, 1, 2], [0, BACKGROUND, BACKGROUND]]
    assert targets.crowd.tolist() == [[False, False, True], [False, False, False]]
    assert targets.boxes[0].tolist() == [[0, 2, 4, 7], [1, 2, 5, 7], [2, 2, 6, 7]]
    assert targets.boxes[1, 1:].tolist() == [[0, 0, 0, 0]] * 2
    assert targets.boxes.dtype == torch.float32


def test_a_batch_without_any_object_has_empty_targets() -> None:
    dataset = make_dataset([(20, 30), (33, 10)], [0, 0])
    _, targets = collate([(read_sample(dataset, i), i, i) for i in range(2)])
    assert targets.boxes.shape == (2, 0, 4)
    assert targets.labels.shape == targets.crowd.shape == (2, 0)


def test_scales_are_those_of_the_samples(dataset: ArrayDataset) -> None:
    batches = evaluation_batches(dataset, Albumentations(max_size=50), images_per_group=1)
    scales = [batch.scales[0].tolist() for batch, _ in batches]
    np.testing.assert_allclose(scales[0], [33 / 20, 50 / 30], rtol=1e-6)


def test_a_step_has_the_images_and_keys_of_the_sampler(dataset: ArrayDataset) -> None:
    batches = train(dataset)
    assert len(batches) == 10
    for step in range(5):
        samples = step_samples(1, step, 4, len(dataset))
        mine = batches[2 * step : 2 * step + 2]
        ids = [i for batch, _ in mine for i in batch.image_ids]
        assert ids == [100 + index for _, index in samples]
        keys = [k for _, targets in mine for k in targets.keys.tolist()]
        assert keys == [sample_key(1, epoch, index) for epoch, index in samples]


@pytest.mark.parametrize("num_workers", [2, 4])
def test_the_number_of_workers_changes_nothing(dataset: ArrayDataset, num_workers: int) -> None:
    assert_same_batches(train(dataset), train(dataset, num_workers=num_workers, timeout=60))
    assert_same_batches(evaluation(dataset), evaluation(dataset, num_workers=2, timeout=60))


def test_starting_in_the_middle_gives_the_rest(dataset: ArrayDataset) -> None:
    assert_same_batches(train(dataset)[6:], train(dataset, start_step=3))


def test_ranks_and_micro_batches_take_slices_of_the_same_step(dataset: ArrayDataset) -> None:
    whole = train(dataset, PLAIN, micro_batch=4)
    first, second = (
        train(dataset, PLAIN, micro_batch=1, rank=rank, world_size=2) for rank in (0, 1)
    )
    for step, (batch, _) in enumerate(whole):
        parts = first[2 * step : 2 * step + 2] + second[2 * step : 2 * step + 2]
        assert batch.image_ids == tuple(i for part, _ in parts for i in part.image_ids)


def test_draws_differ_between_images_and_epochs() -> None:
    """Eight copies of an image, two epochs, four workers: no two sizes but by a chance tie."""
    dataset = make_dataset([(500, 500)] * 8, [0] * 8)
    jitter = Albumentations(scale_jitter=(0.01, 1.0), horizontal_flip=0.0)
    batches = train(dataset, jitter, batch_size=8, micro_batch=1, stop_step=2, num_workers=4)
    assert len({float(batch.scales[0, 0]) for batch, _ in batches}) >= 15


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_evaluation_has_each_image_once_in_groups_that_ranks_do_not_change(
    dataset: ArrayDataset, world_size: int
) -> None:
    whole = evaluation(dataset)
    parts = [evaluation(dataset, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert_same_batches(whole, [batch for part in parts for batch in part])
    assert [batch.image_ids for batch, _ in whole] == [(100, 101), (102, 103), (104, 105), (106,)]


def test_evaluation_stops_at_the_limit(dataset: ArrayDataset) -> None:
    ids = [i for batch, _ in evaluation(dataset, limit=3) for i in batch.image_ids]
    assert ids == [100, 101, 102]
    assert len(evaluation(dataset, limit=99)) == 4


def test_evaluation_keeps_crowds_and_images_without_objects(dataset: ArrayDataset) -> None:
    batches = evaluation(dataset)
    assert sum(int(t.crowd.sum()) for _, t in batches) == 2
    assert sum(int((t.labels >= 0).sum()) for _, t in batches) == sum(COUNTS)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_data_error_in_a_worker_arrives_as_it_is(num_workers: int) -> None:
    dataset = make_dataset(SIZES, COUNTS, broken=frozenset({4}))
    with pytest.raises(DataError) as caught:
        train(dataset, num_workers=num_workers)
    message = "/images/4.png: cannot be read as an image; data.on_corrupt=drop takes another image"
    assert str(caught.value) == f"{message} in its place"


@pytest.mark.parametrize("num_workers", [0, 2])
def test_another_image_takes_the_place_of_a_damaged_one_where_that_is_asked_for(
    num_workers: int,
) -> None:
    """The same one in every process and whatever the split, and it is told which was damaged."""
    dataset = make_dataset(SIZES, COUNTS, broken=frozenset({4}), on_corrupt="drop")
    whole = train(dataset, num_workers=num_workers)
    damaged = [line for batch, _ in whole for line in batch.damaged]
    assert set(damaged) == {"/images/4.png: cannot be read as an image"}
    ids = [i for batch, _ in whole for i in batch.image_ids]
    clean = [i for b, _ in train(make_dataset(SIZES, COUNTS)) for i in b.image_ids]
    lost = int(dataset.annotations.image_ids[4])
    changed = [(a, b) for a, b in zip(clean, ids, strict=True) if a != b]
    # The draw may hit the damaged one again, and draws once more.
    assert len(damaged) >= len(changed) == clean.count(lost)
    assert {a for a, _ in changed} == {lost}
    assert lost not in ids
    assert_same_batches(whole, train(dataset))


def test_where_every_file_is_damaged_it_is_told() -> None:
    everything = frozenset(range(len(SIZES)))
    with pytest.raises(DataError, match="cannot be read as an image"):
        train(make_dataset(SIZES, COUNTS, broken=everything, on_corrupt="drop"))


class Faulty(Augmentation):
    """A bug."""

    def train(self, sample: Sample, key: int) -> Sample:
        raise KeyError("a bug")

    def evaluate(self, sample: Sample) -> Sample:
        raise KeyError("a bug")


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_bug_in_a_worker_keeps_its_type(dataset: ArrayDataset, num_workers: int) -> None:
    with pytest.raises(KeyError, match="a bug"):
        train(dataset, Faulty(), num_workers=num_workers)
