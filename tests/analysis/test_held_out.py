"""Halves of the images: what is learnt on one and measured on the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import expit, logit

from detector.analysis import calibration, calibrators, held_out
from detector.analysis.analysis import Costs, counted
from detector.analysis.packing import pack
from detector.evaluation import coco
from tests.analysis.made import drawn_set


def too_sure(p: np.ndarray) -> np.ndarray:
    return expit(logit(p) + 1)


def halves_of(seed: int, distortion: Any = too_sure) -> held_out.Halves:
    return held_out.halve(*drawn_set(seed, distortion), seed=3)


def test_the_halves_share_no_image_and_miss_none() -> None:
    truth, rows = drawn_set(0, too_sure)
    halves = held_out.halve(truth, rows, seed=3)
    number = len(truth["images"])
    assert halves.chosen.sum() == number // 2
    assert halves.fit[0.5].num_images == number // 2
    assert halves.test[0.5].num_images == number - number // 2
    whole = counted(pack(truth, rows))
    for tau in calibration.TAUS:
        parts = np.concatenate([halves.fit[tau].scores, halves.test[tau].scores])
        np.testing.assert_array_equal(np.sort(parts), np.sort(whole[tau].scores))


def test_the_same_seed_draws_the_same_halves_whatever_was_found() -> None:
    truth, rows = drawn_set(0, too_sure)
    one, other = (held_out.halve(truth, part, seed=3).chosen for part in (rows, rows[:50]))
    np.testing.assert_array_equal(one, other)
    assert (held_out.halve(truth, rows, seed=4).chosen != one).any()


def test_a_calibrator_from_one_half_mends_the_other() -> None:
    halves = halves_of(0)
    platt = held_out.fit(halves, "platt", link=None, target="hit", min_detections=50)
    before, after = (
        held_out.measured([halves], [own], draws=100, seed=0)["all"]["D-ECE"]
        for own in (None, platt)
    )
    assert before["low"] > 0.1
    assert after["low"] == 0
    assert after["detections"] == before["detections"] == len(halves.test[0.5])


def test_what_is_shown_is_chosen_on_the_half_to_learn_from_and_stays_the_same() -> None:
    halves = halves_of(0)
    platt = held_out.fit(halves, "platt", link=None, target="hit", min_detections=50)
    limits = np.array(halves.shown.thresholds, dtype=np.float64)
    test = halves.test[0.5]
    number = int((test.scores >= limits[test.labels]).sum())
    assert 0 < number < len(test)
    for own in (None, platt):
        shown = held_out.measured([halves], [own], draws=0, seed=0)["shown"]["D-ECE"]
        assert shown["detections"] == number


def test_the_mean_over_sets_is_the_mean_and_its_interval_that_of_the_same_images() -> None:
    sets = [halves_of(seed) for seed in (0, 1)]
    alone = [held_out.measured([own], [None], draws=200, seed=0)["all"] for own in sets]
    both = held_out.measured(sets, [None, None], draws=200, seed=0)["all"]
    for name in ("D-ECE", "LaECE_0", "Brier"):
        values = [part[name]["value"] for part in alone]
        assert both[name]["value"] == pytest.approx(np.mean(values), rel=1e-12)
        assert both[name]["low"] < both[name]["value"] < both[name]["high"]
    # Twice the same set is no more than once: the images are drawn, not the sets.
    twice = held_out.measured([sets[0]] * 2, [None] * 2, draws=200, seed=0)["all"]["D-ECE"]
    for end in ("value", "low", "high", "floor"):
        assert twice[end] == pytest.approx(alone[0]["D-ECE"][end], rel=1e-12)


def test_the_change_is_the_difference_and_its_interval_that_of_the_same_images() -> None:
    sets = [halves_of(seed) for seed in (0, 1)]
    fitted = [
        held_out.fit(own, "platt", link=None, target="hit", min_detections=50) for own in sets
    ]
    before, after = (
        held_out.measured(sets, own, draws=200, seed=0)["all"] for own in ([None] * 2, fitted)
    )
    for name in ("D-ECE", "Brier", "NLL"):
        change = after[name]["change"]
        gap = after[name]["value"] - before[name]["value"]
        assert change["value"] == pytest.approx(gap, rel=1e-9)
        assert change["low"] < change["value"] < change["high"] < 0
        assert before[name]["change"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    # What both have in common cancels out.
    brier = after["Brier"]
    change = brier["change"]
    assert change["high"] - change["low"] < brier["high"] - brier["low"]


def test_a_change_for_the_worse_is_above_0() -> None:
    """Scores that were right, made too sure."""
    halves = halves_of(0, lambda p: p)
    found = held_out.measured([halves], [calibrators.link_inverse(too_sure)], draws=100, seed=0)
    assert found["all"]["D-ECE"]["change"]["low"] > 0.1


def test_rescored_rows_are_copies_in_the_same_order_with_the_scores_of_their_class() -> None:
    truth, rows = drawn_set(0, too_sure)
    halves = held_out.halve(truth, rows, seed=3)
    platt = held_out.fit(halves, "platt", link=None, target="hit", min_detections=50)
    assert platt is not None
    ids = [row["id"] for row in truth["categories"]]
    before = [dict(row) for row in rows]
    found = held_out.rescored(rows, platt, ids)
    assert rows == before
    for old, new in list(zip(rows, found, strict=True))[:20]:
        label = np.array([sorted(ids).index(old["category_id"])])
        assert new == {**old, "score": pytest.approx(platt(np.array([old["score"]]), label)[0])}


def test_ap_is_that_of_the_images_to_measure_on() -> None:
    truth, rows = drawn_set(0, too_sure)
    halves = held_out.halve(truth, rows, seed=3)
    ids = set(halves.packed.image_ids[~halves.chosen].tolist())
    part = {
        **truth,
        "images": [row for row in truth["images"] if row["id"] in ids],
        "annotations": [row for row in truth["annotations"] if row["image_id"] in ids],
    }
    expected = coco.evaluate(part, [row for row in rows if row["image_id"] in ids])["AP"]
    assert held_out.average_precision(truth, rows, halves, None) == expected
    assert coco.evaluate(truth, rows)["AP"] != expected


def test_what_thresholds_reach_counts_wrong_and_missed_of_all_classes() -> None:
    test = halves_of(0).test[0.5]
    points = held_out.choose_points(test, Costs(miss=3.0, false_alarm=1.0))
    assert set(points) == {"lrp", "f1", "cost", "fppi"}
    found = held_out.reached(test, points["cost"])
    limits = [np.inf if limit is None else limit for limit in points["cost"].thresholds]
    kept = test.scores >= np.array(limits)[test.labels]
    assert found["wrong"] == int((kept & ~test.hits).sum())
    assert found["missed"] == len(test.object_labels) - int((kept & test.hits).sum())
    for other in ("lrp", "f1"):
        rival = held_out.reached(test, points[other])
        assert 3 * found["missed"] + found["wrong"] <= 3 * rival["missed"] + rival["wrong"]


def test_a_loss_without_a_link_has_the_other_methods() -> None:
    assert "link_inverse" not in held_out.methods_for(None)
    assert held_out.methods_for(lambda scores: scores) == held_out.METHODS
