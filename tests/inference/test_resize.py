"""numpy's resize beside OpenCV's: the same pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest

from detector.data.resizing import Interpolation, Size
from detector.data.transforms import resize_image
from detector.inference.resize import resize

WHOLE: tuple[Interpolation, ...] = ("area", "linear", "pillow")


def noise(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return rng.integers(0, 256, (height, width, 3), np.uint8)


def photo(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Slopes and edges with a little noise, as cameras give them, and not noise alone."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x * a + y * b) for a, b in rng.uniform(-0.3, 0.3, (3, 2))]
    image = 128 + 90 * np.stack(waves, -1) + 60 * (x > width / 2)[..., None]
    return (image + rng.normal(0, 3, image.shape)).clip(0, 255).astype(np.uint8)


def sizes(seed: int, count: int, longest: int) -> Iterator[tuple[Size, Size]]:
    """Sizes before and after: any, one side alone, of one shape, whole ratios, single pixels."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        limits = rng.choice([4, 40, longest, longest], 4)
        height, width, new_height, new_width = (int(rng.integers(1, k)) for k in limits)
        kind = number % 5
        if kind == 1:
            new_width = width
        elif kind == 2:
            new_height = height
        elif kind == 3:
            scale = rng.uniform(0.2, 4)
            new_height, new_width = (max(1, round(s * scale)) for s in (height, width))
        elif kind == 4:
            rows, columns = rng.integers(1, 7, 2)
            new_height, new_width = min(new_height, 60), min(new_width, 60)
            height, width = new_height * int(rows), new_width * int(columns)
        yield (height, width), (new_height, new_width)


@pytest.mark.parametrize("interpolation", WHOLE)
@pytest.mark.parametrize("image", [noise, photo])
def test_whole_pixels_are_those_of_training_to_the_bit(
    interpolation: Interpolation, image: Callable[..., np.ndarray]
) -> None:
    rng = np.random.default_rng(0)
    for before, after in sizes(1, 400, 160):
        pixels = image(rng, *before)
        ours, theirs = (f(pixels, after, interpolation) for f in (resize, resize_image))
        assert ours.dtype == theirs.dtype == np.uint8
        assert np.array_equal(ours, theirs), (before, after)


@pytest.mark.parametrize("interpolation", WHOLE)
@pytest.mark.parametrize(
    ("before", "after"),
    [((480, 640), (800, 1067)), ((1200, 1600), (800, 1067)), ((1024, 2048), (256, 512))],
)
def test_whole_pixels_of_large_images_are_those_of_training_to_the_bit(
    interpolation: Interpolation, before: Size, after: Size
) -> None:
    pixels = photo(np.random.default_rng(2), *before)
    theirs = resize_image(pixels, after, interpolation)
    assert np.array_equal(resize(pixels, after, interpolation), theirs)


def test_pixels_with_fractions_are_those_of_training_but_for_the_last_bit_of_a_few() -> None:
    """Intel's library adds a product without rounding it first, where the processor can (AVX2).

    Its loops leave that out for some numbers, others in other versions, so that the last bit may
    differ: 2^-16 from 128 on. Without AVX2 every product is rounded, three for a pixel.
    """
    is_fused = any(name in cv2.ipp.getIppVersion() for name in ("AVX2", "AVX-512"))
    last_bits = 2.0**-16 * (1 if is_fused else 3)
    differing = total = 0
    for before, after in sizes(3, 500, 160):
        pixels = noise(np.random.default_rng(4), *before)
        ours, theirs = (f(pixels, after, "torch") for f in (resize, resize_image_or_same))
        assert ours.dtype == theirs.dtype
        allowed = last_bits if cv2.ipp.useIPP() else without_ipp(before)
        assert np.abs(ours - theirs).max() <= allowed, (before, after)
        differing, total = differing + int((ours != theirs).sum()), total + ours.size
    if is_fused and cv2.ipp.useIPP():
        assert differing <= total / 100  # more at small sizes, which have more of edges


def test_opencv_without_intels_library_differs_by_its_rounding_of_positions() -> None:
    uses_ipp = cv2.ipp.useIPP()
    cv2.ipp.setUseIPP(False)
    try:
        for before, after in sizes(5, 200, 160):
            pixels = noise(np.random.default_rng(6), *before)
            ours, theirs = (f(pixels, after, "torch") for f in (resize, resize_image_or_same))
            assert np.abs(ours - theirs).max() <= without_ipp(before)
            for interpolation in WHOLE:  # these do not use it
                ours, theirs = (f(pixels, after, interpolation) for f in (resize, resize_image))
                assert np.array_equal(ours, theirs), (before, after)
    finally:
        cv2.ipp.setUseIPP(uses_ipp)


def resize_image_or_same(image: np.ndarray, size: Size, interpolation: Interpolation) -> np.ndarray:
    """What `detector.data.transforms.resize` does: an image of the size wanted stays uint8."""
    return image if image.shape[:2] == size else resize_image(image, size, interpolation)


def without_ipp(before: Size) -> float:
    """How far OpenCV's positions in float32 take it: half of their last bit at the end of an axis,
    times a slope of 255, for two axes; and four roundings of numbers below 256.
    """
    return 255 * 2.0**-23 * max(before) + 4 * 2.0**-16


def test_a_row_by_hand() -> None:
    """Centres at -0.25, 0.25, 0.75 and 1.25 pixels: 10, 10 + 20 / 4, 30 - 20 / 4 and 30."""
    row = np.array([10, 30], np.uint8)[None, :, None].repeat(3, 2)
    for interpolation in ("area", "linear", "torch"):
        assert resize(row, (1, 4), interpolation)[0, :, 0].tolist() == [10, 15, 25, 30]


def test_areas_by_hand() -> None:
    """Of three columns 0, 90 and 210 each half covers one and a half: 45 / 1.5 and 255 / 1.5."""
    row = np.array([0, 90, 210], np.uint8)[None, :, None].repeat(3, 2)
    assert resize(row, (1, 2), "area")[0, :, 0].tolist() == [30, 170]


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ([[0, 0], [1, 1]], 1),  # 0.5 is rounded up in blocks of 2 x 2
        ([[2, 3]], 2),  # 2.5 is rounded to the even number in others
        ([[3, 4]], 4),
    ],
)
def test_means_of_blocks_are_rounded_as_opencv_does(block: list[list[int]], expected: int) -> None:
    pixels = np.array(block, np.uint8)[..., None].repeat(3, 2)
    assert resize(pixels, (1, 1), "area").ravel().tolist() == [expected] * 3


@pytest.mark.parametrize("interpolation", ["area", "linear", "torch", "pillow"])
@pytest.mark.parametrize("value", [0, 1, 127, 255])
def test_one_colour_stays_that_colour(interpolation: Interpolation, value: int) -> None:
    image = np.full((37, 53, 3), value, np.uint8)
    for after in ((19, 80), (80, 19), (11, 13), (90, 120), (1, 1)):
        assert (resize(image, after, interpolation) == value).all(), after


@pytest.mark.parametrize("interpolation", ["area", "linear", "torch", "pillow"])
def test_an_image_of_the_size_wanted_is_the_same_object(interpolation: Interpolation) -> None:
    image = noise(np.random.default_rng(0), 5, 7)
    assert resize(image, (5, 7), interpolation) is image


@pytest.mark.parametrize("interpolation", ["area", "linear", "torch", "pillow"])
def test_pixels_need_not_be_neighbours_in_memory(interpolation: Interpolation) -> None:
    image = noise(np.random.default_rng(0), 30, 40)
    for view in (image[:, :, ::-1], image[::-1], image[3:20, 5:30], image.transpose(1, 0, 2)):
        plain = np.ascontiguousarray(view)
        expected = resize(plain, (20, 25), interpolation)
        assert np.array_equal(resize(view, (20, 25), interpolation), expected)
