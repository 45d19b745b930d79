"""Sizes of resized and of padded images, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detector.data.resizing import (
    averages,
    padded_size,
    require_sizes,
    resize_by_pillow,
    target_size,
)
from detector.errors import ConfigError


@pytest.mark.parametrize(
    ("size", "min_size", "max_size", "size_rounding", "expected"),
    [
        ((60, 80), None, None, "nearest", (60, 80)),
        ((480, 640), 800, 1333, "nearest", (800, 1067)),  # 1066.67
        ((480, 640), 800, 1333, "floor", (800, 1066)),
        ((100, 1000), 800, 1333, "nearest", (133, 1333)),  # 8000 would exceed 1333; 133.3
        ((480, 640), None, 320, "nearest", (240, 320)),
        ((2, 3), 3, None, "nearest", (3, 5)),  # 4.5 is rounded up
        ((2, 3), 3, None, "floor", (3, 4)),
        ((1, 100), None, 10, "floor", (1, 10)),  # 0.1, but no side vanishes
    ],
)
def test_sizes_by_hand(
    size: tuple[int, int],
    min_size: int | None,
    max_size: int | None,
    size_rounding: Any,
    expected: tuple[int, int],
) -> None:
    options: dict[str, Any] = {
        "min_size": min_size,
        "max_size": max_size,
        "size_rounding": size_rounding,
    }
    assert target_size(*size, **options) == expected
    assert target_size(*size[::-1], **options) == expected[::-1]


def test_a_factor_counts_before_sides_are_rounded() -> None:
    """3 x 5 becomes 4 x 6.67, half of which is 2 x 3.33; half of the rounded 7 would be 3.5."""
    options: dict[str, Any] = {"min_size": 4, "max_size": None, "size_rounding": "nearest"}
    assert target_size(3, 5, **options) == (4, 7)
    assert target_size(3, 5, **options, factor=0.5) == (2, 3)


def test_a_batch_is_as_large_as_its_largest_sides_up_to_a_multiple_of_32() -> None:
    assert padded_size([(1, 1)]) == (32, 32)
    assert padded_size([(32, 64)]) == (32, 64)
    assert padded_size([(33, 20), (10, 65)]) == (64, 96)


def test_areas_are_averaged_only_where_an_image_becomes_smaller() -> None:
    assert averages((4, 6), (3, 7), "area")  # 24 pixels become 21
    assert not averages((4, 6), (4, 6), "area")
    assert not averages((4, 6), (5, 6), "area")
    assert not averages((4, 6), (2, 3), "linear")


def test_pillow_gives_pixels_that_can_be_written() -> None:
    image = resize_by_pillow(np.full((4, 6, 3), 7, np.uint8), (2, 5))
    assert (image.shape, image.dtype) == ((2, 5, 3), np.uint8)
    image[0] = 1
    assert (image[1] == 7).all()


@pytest.mark.parametrize(
    ("min_size", "max_size", "message"),
    [
        (0, None, "min_size: 0 given, above 0 or null is allowed"),
        (None, -3, "max_size: -3 given, above 0 or null is allowed"),
        (9, 8, "max_size: 8 given, at least min_size = 9 is needed"),
    ],
)
def test_sizes_that_no_image_can_get_are_refused(
    min_size: int | None, max_size: int | None, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        require_sizes(min_size, max_size)
    assert str(caught.value) == message
    require_sizes(8, 8)
    require_sizes(None, None)
