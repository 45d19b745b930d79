"""The normalised Wasserstein distance: values by hand, and what its constant means."""

from __future__ import annotations

import math

import pytest
import torch

from detector.box_losses.wasserstein import NWDLoss
from detector.config.registry import BOX_LOSSES
from detector.config.schema import Plug
from detector.errors import ConfigError
from tests.box_losses.cases import Corners, scaled, scattered, slopes, total, value
from tests.by_hand import match, predict


def test_centres_count_in_pixels_and_sides_by_half() -> None:
    # Centres (3, 4) apart; then concentric, sides 6 and 8 apart: both are 5 px.
    expected = 1 - math.exp(-5 / 12.8)
    assert value("nwd", {}, (0, 0, 2, 2), (3, 4, 5, 6)) == pytest.approx(expected, abs=1e-12)
    assert value("nwd", {}, (0, 0, 8, 10), (3, 4, 5, 6)) == pytest.approx(expected, abs=1e-12)


def test_the_slope_of_the_centre_by_hand() -> None:
    found = slopes("nwd", {"constant": 10.0}, (0, 0, 2, 2), (3, 4, 5, 6)).tolist()
    # d loss / d x = exp(-W / C) / C x dx / W, and x moves by the anchor's side, 2.
    outer = math.exp(-0.5) / 10 * 2
    assert found == pytest.approx([-outer * 3 / 5, -outer * 4 / 5, 0, 0], abs=1e-12)


def test_the_constant_is_the_scale() -> None:
    predictions, matches = scattered()
    larger = scaled(predictions, matches, 4.0)
    before = total("nwd", {"constant": 20.0}, predictions, matches)
    torch.testing.assert_close(total("nwd", {"constant": 80.0}, *larger), before)
    assert not torch.allclose(total("nwd", {"constant": 20.0}, *larger), before)


def test_a_tiny_box_off_by_a_pixel_is_still_told_from_one_off_by_three() -> None:
    """4 px boxes: both miss nothing of the distance, though the IoU falls from 0.6 to 0.14."""
    near, far = (value("nwd", {}, (0, 0, 4, 4), (x, 0, x + 4, 4)) for x in (1.0, 3.0))
    assert near == pytest.approx(1 - math.exp(-1 / 12.8), abs=1e-12)
    assert far == pytest.approx(1 - math.exp(-3 / 12.8), abs=1e-12)


def test_the_default_constant_gives_no_gradient_to_large_boxes_that_are_far_off() -> None:
    far: tuple[Corners, Corners] = ((0, 0, 300, 300), (300, 300, 600, 600))
    assert slopes("nwd", {}, *far).abs().max() < 1e-10
    assert slopes("nwd", {"constant": 300.0}, *far).abs().max() > 0.1


def test_a_small_distance_keeps_its_digits_in_float32() -> None:
    predictions = predict(torch.zeros(1, 1, 1))
    matches = match(predictions, [[0]], boxes={(0, 0): (2**-14, 0.0, 32 + 2**-14, 32.0)})
    loss = NWDLoss(constant=2**12)(predictions, matches)["box"].item()
    assert loss == pytest.approx(2**-26, rel=1e-6)  # 1 - exp(-2^-26) is 0


def test_a_constant_of_0_is_refused() -> None:
    with pytest.raises(ConfigError) as error:
        BOX_LOSSES.build(Plug("nwd", {"constant": 0.0}))
    assert str(error.value) == "box_loss.constant: 0.0 given, above 0 is needed"
