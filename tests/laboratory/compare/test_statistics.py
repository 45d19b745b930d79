"""Intervals that hold what they promise, and ranges that promise nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detector.laboratory.compare.resampling import OfClass, Resampled
from detector.laboratory.compare.statistics import comparisons, half_width, mean_of, spread, summary


def drawn(by_seed: list[float], noise: float, draws: int = 400, seed: int = 0) -> np.ndarray:
    """(n, R) differences by seed, moved together by the images that are drawn."""
    shift = np.random.default_rng(seed).normal(0, noise, draws)
    return np.array(by_seed)[:, None] + shift


def test_a_clear_difference_is_shown_with_five_seeds() -> None:
    values = [0.10, 0.11, 0.09, 0.10, 0.10]
    found = spread(values, drawn(values, 0.01))
    assert (found["kind"], found["verdict"]) == ("interval", "above")
    assert found["low"] < 0.10 < found["high"]
    assert found["mean"] == pytest.approx(0.10)
    other_way = spread([-v for v in values], drawn([-v for v in values], 0.01))
    assert other_way["verdict"] == "below"


def test_no_difference_is_shown_where_the_seeds_disagree() -> None:
    values = [0.05, -0.04, 0.03, -0.05, 0.02]
    assert spread(values, drawn(values, 0.001))["verdict"] == "no difference shown"


def test_no_difference_is_shown_where_other_images_would_turn_it_around() -> None:
    """All seeds agree, but on few val images: what a test over seeds alone would miss."""
    values = [0.010, 0.011, 0.009, 0.010, 0.010]
    assert spread(values, drawn(values, 0.02))["verdict"] == "no difference shown"


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_below_five_seeds_there_is_a_range_and_no_interval(number: int) -> None:
    values = [0.1, 0.3, 0.2, 0.25][:number]
    found = spread(values, drawn(values, 0.01))
    assert found["kind"] == "range"
    assert (found["low"], found["high"]) == (min(values), max(values))
    assert found["verdict"] == "above"


def test_seeds_of_a_range_that_disagree_show_no_difference() -> None:
    assert spread([0.1, -0.01, 0.2], None)["verdict"] == "no difference shown"
    assert spread([0.1, 0.0, 0.2], None)["verdict"] == "no difference shown"


def test_nothing_in_common_is_no_comparison() -> None:
    assert spread([], None) == {
        "kind": "none",
        "mean": None,
        "low": None,
        "high": None,
        "verdict": None,
    }


def test_the_half_width_without_noise_of_images_is_that_of_students_t() -> None:
    """Seeds alone: t(4, .975) s / sqrt(n), as the drawn variance is s^2 (n - 1) / n^2."""
    values = np.array([0.1, 0.2, 0.3, 0.25, 0.15])
    expected = 2.7764451052 * values.std(ddof=1) / np.sqrt(5)
    found = half_width(np.repeat(values[:, None], 40_000, axis=1))
    # 1 %: the standard error from 40,000 draws is known to 1 / sqrt(80,000) = 0.35 %.
    assert found == pytest.approx(expected, rel=0.01)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Seeds and images as independent noise; 95 % promised, and rather more than less."""
    rng = np.random.default_rng(0)
    hits, repeats, number, images = 0, 300, 5, 60
    for repeat in range(repeats):
        of_seeds = rng.normal(0, 0.02, number)
        of_images = rng.normal(0, 0.1, images)
        noise = rng.normal(0, 0.1, (number, images))
        table = 0.05 + of_seeds[:, None] + of_images + noise
        weights = rng.multinomial(images, np.full(images, 1 / images), size=200) / images
        found = spread(table.mean(axis=1).tolist(), table @ weights.T, seed=repeat)
        hits += found["low"] <= 0.05 <= found["high"]
    # Of 300 at 95 %: below 274 falls 1 of 1000.
    assert hits >= 274


def run(loss: str, seed: int, ap: float | None, state: str = "done") -> dict[str, Any]:
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl", "seconds", "images_per_second", "memory_gb")
    return {
        "loss": loss,
        "seed": seed,
        "state": state,
        **dict.fromkeys(names, ap),
        "optimal_lrp": {"value": 0.5},
        "calibration": {"raw": {"D-ECE": 0.1}, "link_inverse": None},
        "per_class": {"a": ap, "b": None},
    }


def perfect(share: float) -> Resampled:
    """100 images with an object each, found in the first `share` of them."""
    found = np.arange(round(100 * share))
    hits = np.ones((10, len(found)), dtype=bool)
    scores = np.linspace(1, 0, len(found))
    return Resampled(100, (OfClass(scores, found, hits, hits, np.ones(100, dtype=np.int64)),))


def test_only_seeds_that_both_have_finished_are_compared() -> None:
    runs = [run("a", 0, 0.5), run("a", 1, 0.6), run("b", 0, 0.4), run("b", 1, None, "failed")]
    (found,) = comparisons(runs, {}, ["a", "b"], draws=100)
    assert found["seeds"] == [0]
    assert found["differences"] == [pytest.approx(0.1)]


def test_five_seeds_are_compared_on_the_same_drawn_images() -> None:
    """The two losses find the same images but for ten: what both share must cancel."""
    runs = [run(loss, seed, ap) for loss, ap in (("a", 0.6), ("b", 0.5)) for seed in range(5)]
    resampled = {("a", s): perfect(0.6) for s in range(5)}
    resampled |= {("b", s): perfect(0.5) for s in range(5)}
    (found,) = comparisons(runs, resampled, ["a", "b"], draws=400)
    assert (found["kind"], found["verdict"]) == ("interval", "above")
    # The gap is a count of 10 drawn images: standard error sqrt(.1 x .9 / 100) = .03; times t(4)
    # and sqrt(5 / 4) that is .093. Unpaired it would be sqrt(.24 + .25) / 10 = .07, so .22.
    assert found["high"] - found["mean"] == pytest.approx(0.093, abs=0.015)


def test_the_same_runs_give_the_same_interval() -> None:
    runs = [run(loss, seed, ap) for loss, ap in (("a", 0.6), ("b", 0.5)) for seed in range(5)]
    resampled = {(loss, s): perfect(ap) for loss, ap in (("a", 0.6), ("b", 0.5)) for s in range(5)}
    first, second = (comparisons(runs, resampled, ["a", "b"], draws=100) for _ in range(2))
    assert first == second


def test_the_summary_is_over_what_has_ended() -> None:
    runs = [run("a", 0, 0.5), run("a", 1, 0.7), run("b", 0, None, "diverged")]
    first, second = summary(runs, ["a", "b"])
    assert (first["AP"], first["AP_low"], first["AP_high"]) == (pytest.approx(0.6), 0.5, 0.7)
    assert first["seeds_done"] == 2
    assert first["calibration"] == {"raw": {"D-ECE": pytest.approx(0.1)}, "link_inverse": {}}
    assert first["per_class"] == {"a": pytest.approx(0.6), "b": None}
    assert (second["AP"], second["seeds_done"], second["AP_low"]) == (None, 0, None)


def test_the_mean_is_of_the_numbers_there_are() -> None:
    assert mean_of([1.0, None, 3.0]) == 2.0
    assert mean_of([None]) is None
