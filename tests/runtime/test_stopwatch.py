"""Where the time of a step goes."""

from __future__ import annotations

import time

import pytest
import torch

from detector.runtime.stopwatch import PARTS, Stopwatch

CPU = torch.device("cpu")


def test_a_part_is_the_mean_of_the_steps_since_the_last_line() -> None:
    clock = Stopwatch(CPU, enabled=True)
    for _ in range(2):
        with clock("data"):
            time.sleep(0.02)
        with clock("forward"):
            time.sleep(0.04)
    means = clock.take()
    assert set(means) == {"seconds_data", "seconds_forward"}
    assert means["seconds_data"] >= 0.02  # sleep never returns early; how late has no bound
    assert means["seconds_forward"] >= 0.04
    assert clock.take() == {}


def test_only_the_wait_for_data_is_timed_unless_asked_for_more() -> None:
    clock = Stopwatch(CPU, enabled=False)
    for part in PARTS:
        with clock(part):
            pass
    assert set(clock.take()) == {"seconds_data"}
    assert clock.table() == ""


def test_the_table_has_every_part_and_its_share() -> None:
    clock = Stopwatch(CPU, enabled=True)
    for part in PARTS:
        with clock(part):
            time.sleep(0.001)
    clock.take()
    rows = [line.split() for line in clock.table().splitlines()[1:]]
    assert [row[0] for row in rows] == list(PARTS)
    # Six shares, each rounded to a tenth of a percent.
    assert sum(float(row[2].rstrip("%")) for row in rows) == pytest.approx(100, abs=0.3)
