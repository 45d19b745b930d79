"""Anchors against numbers by hand."""

from __future__ import annotations

import math

import pytest
import torch

from detector.config.model import AnchorConfig
from detector.errors import ConfigError
from detector.models.anchors import MAX_CACHED, AnchorGenerator

CPU = torch.device("cpu")
ONE = AnchorConfig(scales=(1.0,), ratios=(1.0,))


def test_cells_go_row_by_row_and_anchors_are_centred() -> None:
    anchors = AnchorGenerator(ONE, (8,))([(2, 2)], CPU)
    # Side 4 * 8 around (4, 4), (12, 4), (4, 12), (12, 12).
    wanted = [[-12, -12, 20, 20], [-4, -12, 28, 20], [-12, -4, 20, 28], [-4, -4, 28, 28]]
    assert anchors.boxes.tolist() == wanted


def test_scales_are_outer_and_ratios_of_height_to_width_inner() -> None:
    config = AnchorConfig(size=2.0, scales=(1.0, 2.0), ratios=(0.25, 4.0))
    generator = AnchorGenerator(config, (8,))
    assert generator.num_per_cell == 4
    # Areas 16^2 and 32^2 around (4, 4): 32 x 8, 8 x 32, 64 x 16, 16 x 64.
    wanted = [[-12, 0, 20, 8], [0, -12, 8, 20], [-28, -4, 36, 12], [-4, -28, 12, 36]]
    assert generator([(1, 1)], CPU).boxes.tolist() == wanted


def test_levels_follow_one_another_from_the_finest() -> None:
    anchors = AnchorGenerator(ONE, (8, 16))([(1, 2), (1, 1)], CPU)
    assert anchors.level_sizes == (2, 1)
    assert anchors.strides.tolist() == [8, 8, 16]
    assert anchors.boxes[2].tolist() == [-24, -24, 40, 40]


def test_offset_0_centres_anchors_on_corners_of_cells() -> None:
    config = AnchorConfig(scales=(1.0,), ratios=(1.0,), offset=0.0)
    anchors = AnchorGenerator(config, (8,))([(1, 2)], CPU)
    assert anchors.boxes.tolist() == [[-16, -16, 16, 16], [-8, -16, 24, 16]]


def test_the_default_has_nine_shapes_of_exact_area_and_ratio() -> None:
    boxes = AnchorGenerator(AnchorConfig())([(1, 1)] * 5, CPU).boxes.double()
    sides = boxes[:, 2:] - boxes[:, :2]
    wanted = [
        ((stride * 4 * 2 ** (octave / 3)) ** 2, ratio)
        for stride in (8, 16, 32, 64, 128)
        for octave in range(3)
        for ratio in (0.5, 1.0, 2.0)
    ]
    # Nothing is rounded but to float32.
    for (area, ratio), (width, height) in zip(wanted, sides.tolist(), strict=True):
        assert math.isclose(width * height, area, rel_tol=1e-6)
        assert math.isclose(height / width, ratio, rel_tol=1e-6)


def test_an_image_of_256_has_12276_anchors_with_the_default() -> None:
    anchors = AnchorGenerator(AnchorConfig())([(n, n) for n in (32, 16, 8, 4, 2)], CPU)
    assert len(anchors.boxes) == 9 * (1024 + 256 + 64 + 16 + 4) == 12276
    assert sum(anchors.level_sizes) == 12276
    assert anchors.boxes.dtype == anchors.strides.dtype == torch.float32


def test_the_same_sizes_give_the_same_object_and_others_do_not_fill_the_memory() -> None:
    generator = AnchorGenerator(ONE, (8,))
    first = generator([(3, 3)], CPU)
    assert generator([(3, 3)], CPU) is first
    for n in range(1, 2 * MAX_CACHED):
        assert len(generator([(n, 5)], CPU).boxes) == n * 5
    assert len(generator._cache) == MAX_CACHED


@pytest.mark.parametrize(
    ("config", "key"),
    [
        (AnchorConfig(size=0.0), "model.anchors.size"),
        (AnchorConfig(scales=()), "model.anchors.scales"),
        (AnchorConfig(ratios=(1.0, -1.0)), "model.anchors.ratios"),
    ],
)
def test_values_without_a_meaning_name_their_key(config: AnchorConfig, key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        AnchorGenerator(config)
