"""Golden rates by hand."""

from __future__ import annotations

import pytest

from detector.errors import ConfigError
from detector.optim.schedules import Cosine, FlatCosine, MultiStep


def test_cosine_rises_in_a_line_then_falls_by_half_a_cosine() -> None:
    schedule = Cosine(warmup_share=0.2, warmup_start=0.1, final=0.0)
    factors = [schedule(step, 10) for step in range(10)]
    # 2 steps of warm-up (0.1, 0.55), then (1 + cos(pi k / 8)) / 2 for k = 0 .. 7.
    assert factors[:3] == pytest.approx([0.1, 0.55, 1.0])
    assert factors[6] == pytest.approx(0.5)
    assert factors[9] == pytest.approx((1 - 0.9238795325) / 2)


def test_cosine_ends_above_its_floor() -> None:
    schedule = Cosine(warmup_share=0.0, final=0.25)
    assert schedule(0, 4) == 1.0
    assert schedule(2, 4) == pytest.approx(0.625)
    assert all(schedule(step, 4) >= 0.25 for step in range(4))


def test_multistep_falls_at_shares_of_the_run() -> None:
    schedule = MultiStep(milestones=(2 / 3, 8 / 9), gamma=0.1, warmup_share=0.0)
    steps = [0, 59_999, 60_000, 79_999, 80_000, 89_999]
    expected = [1, 1, 0.1, 0.1, 0.01, 0.01]
    assert [schedule(s, 90_000) for s in steps] == pytest.approx(expected)


def test_multistep_warms_up() -> None:
    schedule = MultiStep(milestones=(), warmup_share=0.1, warmup_start=0.001)
    assert schedule(0, 100) == pytest.approx(0.001)
    assert schedule(5, 100) == pytest.approx(0.5005)
    assert schedule(10, 100) == 1.0


def test_flat_cosine_stays_at_the_full_rate_and_then_falls_by_half_a_cosine() -> None:
    schedule = FlatCosine(flat_until=0.5, warmup_share=0.1, warmup_start=0.2, final=0.1)
    factors = [schedule(step, 20) for step in range(20)]
    # 2 steps of warm-up (0.2, 0.6), 8 at the full rate, then 0.1 + 0.9 (1 + cos(pi k / 10)) / 2.
    assert factors[:2] == pytest.approx([0.2, 0.6])
    assert factors[2:11] == [1.0] * 9
    assert factors[15] == pytest.approx(0.55)
    assert factors[19] == pytest.approx(0.1 + 0.45 * (1 - 0.9510565163))
    assert factors[10:] == sorted(factors[10:], reverse=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cosine(warmup_share=1.0), "warmup_share"),
        (lambda: Cosine(final=2.0), "final"),
        (lambda: MultiStep(milestones=(0.5, 1.5)), "milestones"),
        (lambda: MultiStep(gamma=0.0), "gamma"),
        (lambda: FlatCosine(flat_until=1.0), "flat_until: 1.0"),
        (lambda: FlatCosine(flat_until=0.1, warmup_share=0.2), "flat_until: 0.1"),
    ],
)
def test_a_value_out_of_range_is_named(make: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()  # type: ignore[operator]
