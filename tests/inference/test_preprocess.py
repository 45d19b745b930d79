"""What the model takes, from numpy alone: beside the loader's and the model's own arithmetic."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from detector.config.schema import build
from detector.data.images import read_pixels
from detector.data.loader import collate
from detector.data.transforms import Albumentations, Sample
from detector.errors import ConfigError, DataError
from detector.inference.preprocess import (
    PreprocessConfig,
    decode,
    decoding_of,
    normalize,
    preprocess,
)
from detector.models.backbones.base import PIXEL_MEAN, PIXEL_STD
from detector.models.detector import Detector
from detector.structures import Batch
from tests.data.files import write_image

SIZES: list[dict[str, Any]] = [
    {},
    {"min_size": 64},
    {"max_size": 50},
    {"min_size": 40, "max_size": 75},
    {"min_size": 150, "max_size": 200},
]
GROUPS = [
    [(60, 80)],
    [(32, 64), (64, 32)],  # multiples of 32 before, and some after
    [(37, 53), (90, 41), (1, 7), (128, 3), (75, 100)],
]


def noise(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *size]).integers(0, 256, (*size, 3), np.uint8)


def in_training(images: list[np.ndarray], options: dict[str, Any]) -> Batch:
    """The batch of evaluation's loader."""
    augment = Albumentations(**options)
    samples = [
        Sample(
            image=image,
            boxes=np.zeros((0, 4), np.float32),
            labels=np.zeros(0, np.int64),
            crowd=np.zeros(0, np.bool_),
            scale=np.ones(2, np.float32),
        )
        for image in images
    ]
    return collate([(augment.evaluate(sample), 0, 0) for sample in samples])[0]


class Normalizing(Detector):
    """The model's normalisation without its layers."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.pixel_mean = torch.tensor(PIXEL_MEAN)[:, None, None]
        self.pixel_std = torch.tensor(PIXEL_STD)[:, None, None]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("group", GROUPS, ids=str)
@pytest.mark.parametrize("rounding", ["nearest", "floor"])
@pytest.mark.parametrize("interpolation", ["area", "linear", "torch", "pillow"])
def test_a_batch_is_that_of_training(
    sizes: dict[str, Any], group: list[tuple[int, int]], rounding: str, interpolation: str
) -> None:
    options = {**sizes, "size_rounding": rounding, "interpolation": interpolation}
    images = [noise(size) for size in group]
    ours, theirs = preprocess(images, PreprocessConfig(**options)), in_training(images, options)
    for name in ("sizes", "scales", "images"):
        array, tensor = getattr(ours, name), getattr(theirs, name)
        assert torch.from_numpy(array).dtype == tensor.dtype, name
        assert array.shape == tuple(tensor.shape), name
    assert np.array_equal(ours.sizes, theirs.sizes.numpy())
    assert np.array_equal(ours.scales, theirs.scales.numpy())
    # Fractions differ in their last bits by processor, and more where OpenCV has no IPP: see
    # tests/inference/test_resize.py, where this is 3 roundings, and 255 * 2^-23 * 128 px.
    last_bits = 3 * 2.0**-16 if cv2.ipp.useIPP() else 0.004
    np.testing.assert_allclose(
        ours.images, theirs.images, rtol=0, atol=last_bits if interpolation == "torch" else 0
    )


@pytest.mark.parametrize("is_whole", [True, False])
def test_normalised_pixels_are_the_models_to_the_bit(is_whole: bool) -> None:
    group = [noise(size) for size in GROUPS[2]]
    config = PreprocessConfig(max_size=90, interpolation="area" if is_whole else "torch")
    batch = preprocess(group, config)
    assert (batch.images.dtype == np.uint8) is is_whole
    ours = normalize(batch.images, batch.sizes, PIXEL_MEAN, PIXEL_STD)
    images, sizes = torch.from_numpy(batch.images), torch.from_numpy(batch.sizes)
    theirs = Normalizing().normalize(images, sizes)
    assert ours.dtype == np.float32
    assert torch.equal(torch.from_numpy(ours), theirs)


def test_normalised_pixels_by_hand() -> None:
    """(20 - 10) / 4, (20 - 30) / 5, 20 / 8; the second column is padding."""
    images = np.full((1, 3, 1, 2), 20, np.uint8)
    pixels = normalize(images, np.array([[1, 1]]), (10, 30, 0), (4, 5, 8))
    assert pixels.tolist() == [[[[2.5, 0]], [[-2, 0]], [[2.5, 0]]]]


def test_normalising_leaves_its_input_alone() -> None:
    images = np.full((1, 3, 4, 4), 9, np.float32)
    normalize(images, np.array([[2, 2]]), PIXEL_MEAN, PIXEL_STD)
    assert (images == 9).all()


def test_an_image_among_fractions_keeps_its_whole_numbers() -> None:
    """The first has the size wanted, so that it is not resized; the batch is float32 for both."""
    images = [noise((32, 32)), noise((20, 20))]
    batch = preprocess(images, PreprocessConfig(max_size=32, interpolation="torch"))
    assert batch.images.dtype == np.float32
    assert np.array_equal(batch.images[0], images[0].transpose(2, 0, 1))


def test_no_image_is_refused() -> None:
    with pytest.raises(DataError, match="images: none given, at least one is needed"):
        preprocess([], PreprocessConfig())


def test_the_options_have_the_names_and_defaults_of_trainings() -> None:
    names = ("min_size", "max_size", "interpolation", "size_rounding")
    augment, config = Albumentations(), PreprocessConfig()
    assert [getattr(augment, name) for name in names] == [getattr(config, name) for name in names]
    built = build(PreprocessConfig, {"min_size": 8, "interpolation": "pillow"})
    assert built == PreprocessConfig(min_size=8, interpolation="pillow")
    assert built.target_size(16, 23) == (8, 12)  # 11.5
    with pytest.raises(ConfigError, match="max_size: 8 given, at least min_size = 9 is needed"):
        PreprocessConfig(min_size=9, max_size=8)


class TestDecode:
    @pytest.mark.parametrize("mode", ["RGB", "L", "LA", "P", "RGBA", "CMYK", "1"])
    def test_path_text_and_image_give_the_pixels_of_training(
        self, tmp_path: Path, mode: str
    ) -> None:
        path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
        Image.fromarray(noise((20, 30))).convert("L").convert("RGB").convert(mode).save(path)
        expected = read_pixels(path, 1)
        with Image.open(path) as image:
            for source in (path, str(path), image):
                assert np.array_equal(decode(source), expected)
        assert expected.shape == (20, 30, 3)

    def test_an_array_is_returned_as_it_is(self) -> None:
        pixels = noise((5, 7))
        assert decode(pixels) is pixels

    @pytest.mark.parametrize("orientation", [3, 6])
    def test_a_rotation_in_exif_is_not_applied_as_in_training(
        self, tmp_path: Path, orientation: int
    ) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / "a.jpg"
        Image.fromarray(noise((16, 24))).save(path, exif=exif)
        with Image.open(path) as image:
            for source in (path, image):
                assert np.array_equal(decode(source), read_pixels(path, 1))

    def test_what_exceeds_the_limit_is_refused_with_its_key(self, tmp_path: Path) -> None:
        path = tmp_path / "a.png"
        write_image(path, 100, 200)
        with Image.open(path) as image:
            for source in (path, image):
                with pytest.raises(DataError) as caught:
                    decode(source, max_megapixels=0.01)
                assert str(caught.value) == (
                    f"{path}: 200 x 100 pixels, max_megapixels=0.01 are allowed; "
                    "max_megapixels=1 reads it"
                )
        with pytest.raises(DataError, match=r"image: 200 x 100 pixels, limit=0\.01 are "):
            decode(Image.new("L", (200, 100)), max_megapixels=0.01, key="limit")

    @pytest.mark.parametrize("dtype", [np.uint16, np.float32])
    def test_pixels_of_more_than_8_bits_are_refused(self, tmp_path: Path, dtype: type) -> None:
        image = Image.fromarray(np.full((5, 7), 4000, dtype))
        image.save(tmp_path / "a.tif")
        for source in (image, tmp_path / "a.tif"):
            with pytest.raises(DataError, match="has pixels of more than 8 bits"):
                decode(source)

    def test_a_damaged_file_is_named_whoever_opened_it(self, tmp_path: Path) -> None:
        write_image(tmp_path / "a.png", 64, 64)
        path = tmp_path / "b.png"
        path.write_bytes((tmp_path / "a.png").read_bytes()[:3000])
        with Image.open(path) as image:
            for source in (path, image):
                with pytest.raises(DataError, match=r"b\.png: cannot be read as an image: "):
                    decode(source)

    @pytest.mark.parametrize(
        ("shape", "dtype"),
        [
            ((5, 7), np.uint8),
            ((5, 7, 4), np.uint8),
            ((3, 5, 7), np.uint8),
            ((0, 7, 3), np.uint8),
            ((5, 7, 3), np.float32),
            ((5, 7, 3), np.int64),
        ],
    )
    def test_an_array_of_another_shape_or_type_is_refused(
        self, shape: tuple[int, ...], dtype: type
    ) -> None:
        with pytest.raises(DataError) as caught:
            decode(np.zeros(shape, dtype))
        assert str(caught.value) == (
            f"image: array of shape {shape} and type {np.dtype(dtype)} given; (H, W, 3) uint8 in "
            "the order R, G, B is needed"
        )

    def test_what_is_no_image_is_refused(self) -> None:
        for value, name in ((None, "NoneType"), (torch.zeros(5, 7, 3), "Tensor"), ([], "list")):
            with pytest.raises(DataError, match=f"image: {name} given; the path of a file"):
                decode(value)  # type: ignore[arg-type]


def test_random_images_and_settings_are_those_of_training() -> None:
    """Whatever the sizes, with all that can be whole numbers."""
    rng = np.random.default_rng(7)
    for seed in range(60):
        group = [noise(tuple(rng.integers(1, 200, 2)), seed) for _ in range(rng.integers(1, 4))]
        low = int(rng.integers(1, 150))
        choices = itertools.product((None, low), (None, low + int(rng.integers(0, 150))))
        options: dict[str, Any] = dict(
            zip(("min_size", "max_size"), list(choices)[rng.integers(4)], strict=True)
        )
        options["interpolation"] = ("area", "linear", "pillow")[rng.integers(3)]
        options["size_rounding"] = ("nearest", "floor")[rng.integers(2)]
        ours, theirs = preprocess(group, PreprocessConfig(**options)), in_training(group, options)
        assert np.array_equal(ours.images, theirs.images.numpy()), options
        assert np.array_equal(ours.sizes, theirs.sizes.numpy()), options
        assert np.array_equal(ours.scales, theirs.scales.numpy()), options


def test_an_image_that_exif_turns_is_taken_as_the_training_took_it(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    shown = np.rot90(stored, -1)  # EXIF 2.3: 6 is to be turned by 90 degrees, clockwise
    for options, expected in (
        ({}, shown),
        ({"exif": "error"}, shown),
        ({"exif": "upright"}, shown),
        ({"exif": "stored"}, stored),
    ):
        found = decode(tmp_path / "a.png", how=decoding_of(options))
        assert np.array_equal(found, expected)


def test_pixels_of_16_bits_are_scaled_as_in_training(tmp_path: Path) -> None:
    Image.fromarray(np.full((5, 7), 3000, np.uint16)).save(tmp_path / "a.png")
    found = decode(tmp_path / "a.png", how=decoding_of({"depth": [2000, 4000]}))
    assert found.shape == (5, 7, 3)
    assert np.unique(found).tolist() == [128]
