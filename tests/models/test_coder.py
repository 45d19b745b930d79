"""The coder against numbers by hand and as its own inverse."""

from __future__ import annotations

import math

import pytest
import torch

from detector.errors import ConfigError
from detector.models.coder import BoxCoder

ANCHOR = torch.tensor([8.0, 10.0, 12.0, 30.0])
BOX = torch.tensor([8.0, 10.0, 16.0, 50.0])


def test_weights_multiply_the_deltas() -> None:
    # Unweighted: (0.5, 0.5, log 2, log 2).
    wanted = torch.tensor([5.0, 5.0, 5 * math.log(2), 5 * math.log(2)])
    torch.testing.assert_close(BoxCoder((10.0, 10.0, 5.0, 5.0)).encode(BOX, ANCHOR), wanted)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)])
def test_decode_is_the_inverse_of_encode(weights: tuple[float, ...]) -> None:
    coder = BoxCoder(weights)
    # float32 rounding of coordinates below 64.
    torch.testing.assert_close(
        coder.decode(coder.encode(BOX, ANCHOR), ANCHOR), BOX, rtol=0, atol=2e-5
    )


def test_boxes_of_many_images_share_the_anchors() -> None:
    anchors = ANCHOR.expand(6, 4)
    assert BoxCoder().encode(BOX.expand(3, 6, 4), anchors).shape == (3, 6, 4)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [(torch.bfloat16, torch.float32), (torch.float16, torch.float32), (torch.float64,) * 2],
)
def test_the_result_is_float32_or_better(given: torch.dtype, wanted: torch.dtype) -> None:
    coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
    assert coder.decode(torch.zeros(4, dtype=given), ANCHOR).dtype == wanted
    assert coder.encode(BOX.to(given), ANCHOR).dtype == wanted


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (1.0, 1.0, 1.0, 0.0)])
def test_weights_without_a_meaning_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match=r"model\.coder\.weights"):
        BoxCoder(weights)


def test_the_weights_are_no_part_of_a_checkpoint() -> None:
    assert not BoxCoder().state_dict()
