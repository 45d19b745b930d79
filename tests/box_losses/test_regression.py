"""Losses of the four deltas: values by hand, slopes in closed form."""

from __future__ import annotations

import math

import pytest

from detector.box_losses.regression import BalancedL1Loss, L1Loss, SmoothL1Loss
from detector.config.registry import BOX_LOSSES
from detector.config.schema import Plug
from detector.errors import ConfigError
from tests.box_losses.cases import one_positive
from tests.by_hand import gradient

LN2 = math.log(2)

# Centre half a side right and down, twice as high: deltas (0.5, 0.5, 0, ln 2).
SHIFTED = one_positive((0, 0, 10, 10), (5, 0, 15, 20))


def test_l1_is_the_sum_over_the_four_deltas() -> None:
    predictions, matches = SHIFTED
    loss = L1Loss()(predictions, matches)["box"]
    assert loss.tolist() == [[pytest.approx(1 + LN2, abs=1e-9)]]
    assert gradient(loss.sum(), predictions.deltas).tolist() == [[[-1, -1, 0, -1]]]


def test_smooth_l1_is_square_below_beta_and_straight_above() -> None:
    predictions, matches = SHIFTED
    wide = SmoothL1Loss(beta=1.0)(predictions, matches)["box"]
    assert wide.tolist() == [[pytest.approx(0.125 + 0.125 + LN2**2 / 2, abs=1e-9)]]
    narrow = SmoothL1Loss(beta=0.1)(predictions, matches)["box"]
    assert narrow.tolist() == [[pytest.approx(0.45 + 0.45 + LN2 - 0.05, abs=1e-9)]]
    slopes = gradient(wide.sum(), predictions.deltas)[0, 0]
    assert slopes.tolist() == pytest.approx([-0.5, -0.5, 0, -LN2], abs=1e-9)


def balanced(error: float, **options: float) -> tuple[float, float]:
    """Loss and slope at an error of one delta, the others being perfect."""
    predictions, matches = one_positive((0, 0, 1, 1), (0, 0, 1, 1), [error, 0.0, 0.0, 0.0])
    loss = BalancedL1Loss(**options)(predictions, matches)["box"]
    return loss.item(), gradient(loss.sum(), predictions.deltas)[0, 0, 0].item()


B = math.exp(3) - 1
"""Of the default: gamma / alpha = 3."""


def test_balanced_l1_below_at_and_above_one_by_hand() -> None:
    loss, slope = balanced(0.5)
    assert loss == pytest.approx(0.5 * ((0.5 + 1 / B) * math.log(B / 2 + 1) - 0.5), abs=1e-12)
    assert slope == pytest.approx(0.5 * math.log(B / 2 + 1), abs=1e-12)
    for error in (1 - 1e-13, 1.0):  # both sides of the joint
        loss, slope = balanced(error)
        assert loss == pytest.approx(1.5 * (1 + 1 / B) - 0.5, abs=1e-9)
        assert slope == pytest.approx(1.5, abs=1e-9)
    loss, slope = balanced(-3.0)
    assert loss == pytest.approx(1.5 * 3 + 1.5 / B - 0.5, abs=1e-12)
    assert slope == pytest.approx(-1.5, abs=1e-12)


@pytest.mark.parametrize("beta", [0.25, 1.0, 3.0])
@pytest.mark.parametrize("error", [0.1, 0.9, 2.0, 5.0])
def test_balanced_l1_is_the_area_under_its_slope(error: float, beta: float) -> None:
    def slope(x: float) -> float:
        b = math.exp(2.0 / 0.8) - 1
        return 0.8 * math.log(b * x / beta + 1) if x < beta else 2.0

    steps = 20_000
    middle = [slope((i + 0.5) * error / steps) for i in range(steps)]
    found, found_slope = balanced(error, alpha=0.8, gamma=2.0, beta=beta)
    # The middle rule errs by the square of a step, some 1e-8 here.
    assert found == pytest.approx(sum(middle) * error / steps, abs=1e-6)
    assert found_slope == pytest.approx(slope(error), abs=1e-12)


@pytest.mark.parametrize("beta", [0.25, 1.0, 3.0])
def test_balanced_l1_has_no_kink_at_0(beta: float) -> None:
    """The paper's formula with another beta in the log alone has the slope alpha (1 / beta - 1)."""
    _, slope = balanced(1e-9, beta=beta)
    assert slope == pytest.approx(0.0, abs=1e-6)


def test_balanced_l1_raises_small_errors_where_alpha_is_small() -> None:
    assert balanced(0.3, alpha=0.3)[1] > balanced(0.3, alpha=0.5)[1]
    assert balanced(4.0, alpha=0.3)[1] == balanced(4.0, alpha=0.5)[1] == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("plug", "message"),
    [
        (
            Plug("smooth_l1", {"beta": 0.0}),
            "box_loss.beta: 0.0 given, above 0 is needed (for 0 take box_loss=l1)",
        ),
        (Plug("balanced_l1", {"alpha": 0.0}), "box_loss.alpha: 0.0 given, above 0 is needed"),
        (
            Plug("balanced_l1", {"alpha": 0.1, "gamma": 100.0}),
            "box_loss.gamma: 100.0 given, at most 64 alpha = 6.4 is allowed",
        ),
    ],
)
def test_options_out_of_range_are_refused(plug: Plug, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        BOX_LOSSES.build(plug)
    assert str(error.value) == message
