"""A part of train in the place of val."""

from __future__ import annotations

import numpy as np
import pytest

from detector.config.registry import DATASETS
from detector.config.schema import Plug
from detector.data.readers.held_out import HeldOutReader
from detector.errors import ConfigError

SMALL = {"num_train": 10, "num_val": 3, "image_size": 64, "max_size": 32}


def test_the_two_parts_are_all_of_train_and_share_no_image() -> None:
    reader = HeldOutReader(of=Plug("generated", SMALL))
    train, val = reader.read("train"), reader.read("val")
    kept, held = set(train.annotations.image_ids), set(val.annotations.image_ids)
    whole = DATASETS.build(Plug("generated", SMALL)).read("train")
    assert (len(train), len(val)) == (8, 2)
    assert not kept & held
    assert kept | held == set(whole.annotations.image_ids)


def test_pixels_and_objects_stay_with_their_image() -> None:
    whole = DATASETS.build(Plug("generated", SMALL)).read("train")
    val = HeldOutReader(of=Plug("generated", SMALL)).read("val")
    place = {int(image_id): i for i, image_id in enumerate(whole.annotations.image_ids)}
    for i, image_id in enumerate(val.annotations.image_ids):
        original = place[int(image_id)]
        assert np.array_equal(val.image(i), whole.image(original))
        assert np.array_equal(val.annotations.boxes(i), whole.annotations.boxes(original))


def test_the_seed_draws_other_images() -> None:
    def held(seed: int) -> list[int]:
        reader = HeldOutReader(of=Plug("generated", SMALL), share=0.5, seed=seed)
        return reader.read("val").annotations.image_ids.tolist()

    assert held(0) == held(0)
    assert any(held(0) != held(seed) for seed in (1, 2, 3))


def test_at_least_one_image_is_in_each_part() -> None:
    for share in (0.01, 0.99):
        reader = HeldOutReader(of=Plug("generated", SMALL | {"num_train": 2}), share=share)
        assert (len(reader.read("train")), len(reader.read("val"))) == (1, 1)


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0])
def test_a_share_that_leaves_nothing_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match=r"share: .* given, above 0 and below 1 is allowed"):
        HeldOutReader(share=share)


def test_a_mistake_in_the_set_is_named() -> None:
    with pytest.raises(ConfigError, match=r"data.num_trian: unknown key \(did you mean"):
        HeldOutReader(of=Plug("generated", {"num_trian": 3}))
