"""Calibrators: what they recover, where they fall back, what they never change."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.special import expit, logit

from detector.analysis import calibrators
from detector.analysis.calibrators import Calibrator, Line, Steps, fit, fit_line, fit_steps
from detector.analysis.matching import match, outcomes
from detector.analysis.packing import pack
from detector.errors import ConfigError, DataError
from detector.evaluation import coco
from tests.analysis.made import make_outcomes, random_outcomes
from tests.evaluation.cases import random_case

SCORES = np.linspace(0.01, 0.99, 197)


def test_a_line_by_hand() -> None:
    # Odds of 3 to 1; squared, 9 to 1; times e.
    assert Line(2.0, 0.0)(np.array([0.75])) == pytest.approx([0.9], abs=1e-15)
    assert Line(1.0, 1.0)(np.array([0.75])) == pytest.approx([3 * np.e / (1 + 3 * np.e)])
    assert Line(0.5, 0.3)(np.array([0.0, 1.0])).tolist() == [0.0, 1.0]


@pytest.mark.parametrize(("slope", "intercept"), [(0.5, 0.0), (2.0, 0.0), (0.7, -1.5), (3.0, 2.0)])
def test_a_line_that_was_applied_is_found_again(slope: float, intercept: float) -> None:
    """With the true probabilities as targets the optimum is exact, whatever the scores."""
    targets = expit(slope * logit(SCORES) + intercept)
    made = fit_line(SCORES, targets, with_intercept=intercept != 0)
    # The optimiser stops when the loss, flat at its optimum, no longer falls in double precision.
    assert (made.slope, made.intercept) == pytest.approx((slope, intercept), abs=1e-5)


def test_a_temperature_has_no_intercept() -> None:
    targets = expit(logit(SCORES) + 1)
    assert fit_line(SCORES, targets, with_intercept=False).intercept == 0


def test_a_line_never_falls_and_is_never_flat() -> None:
    """Where better scores are wrong more often, the slope stops at its bound above 0."""
    made = fit_line(SCORES, 1 - SCORES, with_intercept=True)
    assert made.slope == 0.01
    assert (np.diff(made(SCORES)) > 0).all()


def test_detections_that_one_threshold_separates_give_a_finite_line() -> None:
    made = fit_line(SCORES, (SCORES > 0.5).astype(float), with_intercept=True)
    assert 1 < made.slope <= 100
    assert np.isfinite(made(SCORES)).all()


def test_scores_of_exactly_0_and_1_can_be_fitted() -> None:
    scores = np.array([0.0, 0.0, 0.5, 1.0, 1.0])
    made = fit_line(scores, np.array([0.0, 0.0, 1.0, 1.0, 1.0]), with_intercept=True)
    assert np.isfinite([made.slope, made.intercept]).all()


def test_isotonic_steps_by_hand() -> None:
    scores, targets = np.array([0.4, 0.2, 0.3, 0.1]), np.array([1.0, 1.0, 0.0, 0.0])
    made = fit_steps(scores, targets)
    assert made == Steps((0.1, 0.2, 0.3, 0.4), (0.0, 0.5, 0.5, 1.0))
    queries = np.array([0.0, 0.1, 0.15, 0.25, 0.3, 0.35, 0.9])
    assert made(queries) == pytest.approx([0, 0, 0.25, 0.5, 0.5, 0.75, 1])


def test_equal_scores_count_with_their_number() -> None:
    # .2: three detections, one right; .5: one, wrong. Pooled: 1 of 4.
    made = fit_steps(np.array([0.2, 0.2, 0.5, 0.2]), np.array([1.0, 0.0, 0.0, 0.0]))
    assert made == Steps((0.2, 0.5), (0.25, 0.25))


def test_isotonic_steps_never_turn_an_order_round_but_make_ties() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(300)
    made = fit_steps(scores, (rng.random(300) < scores).astype(float))
    values = made(np.sort(scores))
    assert (np.diff(values) >= 0).all()
    assert 2 < len(np.unique(values)) < 100
    assert len(made.scores) < 100
    # Its mean is that of the targets, block by block and so in all.
    assert ((values >= 0) & (values <= 1)).all()


@pytest.mark.parametrize("kind", ["temperature", "platt", "isotonic"])
def test_a_class_with_too_few_detections_takes_the_map_of_all(kind: str) -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(140)
    ious = np.where(rng.random(140) < scores**2, 0.8, 0.0)
    labels = [0] * 50 + [1] * 49 + [2] * 41
    # All detections of class 2 are wrong: nothing to fit a map of its own to.
    found = make_outcomes(
        scores.tolist(),
        np.where(np.array(labels) == 2, 0, ious).tolist(),
        labels=labels,
        num_classes=4,
    )
    made = fit(kind, found)
    assert made.fallbacks == (1, 2, 3)
    assert made.counts == (50, 49, 41, 0)
    assert made.pooled is not None
    query = np.array([0.2, 0.6])
    for label in (1, 2, 3):
        assert made(query, np.full(2, label)).tolist() == made.pooled(query).tolist()
    assert made(query, np.zeros(2, int)).tolist() != made.pooled(query).tolist()
    assert fit(kind, found, min_detections=41).fallbacks == (2, 3)


def test_the_target_may_be_the_overlap() -> None:
    found = make_outcomes([0.5] * 4, [0.8, 0.6, 0.0, 0.0])
    assert fit("isotonic", found, target="iou")(np.array([0.5]), np.array([0])) == 0.35
    assert fit("isotonic", found, target="hit")(np.array([0.5]), np.array([0])) == 0.5


@pytest.mark.parametrize("kind", ["temperature", "platt", "isotonic"])
def test_what_was_learnt_survives_json(kind: str) -> None:
    found = random_outcomes(0)
    made = fit(kind, found, min_detections=20)
    again = Calibrator.from_dict(json.loads(json.dumps(made.to_dict(), allow_nan=False)))
    assert again == made
    assert again(found.scores, found.labels).tolist() == made(found.scores, found.labels).tolist()


def test_a_link_is_given_anew_when_a_state_is_read() -> None:
    made = calibrators.link_inverse(np.square)
    assert made(np.array([0.5]), np.array([0])).tolist() == [0.25]
    assert made.fallbacks == ()
    state = json.loads(json.dumps(made.to_dict()))
    again = Calibrator.from_dict(state, link=np.square)
    assert again(np.array([0.5]), np.array([0])).tolist() == [0.25]
    with pytest.raises(ConfigError, match="allowed: temperature, platt, isotonic"):
        Calibrator.from_dict(state)


@pytest.mark.parametrize("kind", ["link_inverse", "temperature", "platt"])
@pytest.mark.parametrize("seed", range(4))
def test_a_map_that_rises_strictly_changes_no_ap(kind: str, seed: int) -> None:
    truth, rows = random_case(seed, [1, 2, 5])
    packed = pack(truth, rows)
    found = outcomes(packed, match(packed, [0.5]))
    link = calibrators.link_inverse(lambda s: s**2 / (s**2 + 3 * (1 - s) ** 2))
    made = link if kind == "link_inverse" else fit(kind, found, min_detections=20)
    assert kind == "link_inverse" or 0 not in made.fallbacks
    labels = np.searchsorted(packed.category_ids, [row["category_id"] for row in rows])
    scores = made(np.array([row["score"] for row in rows]), labels)
    moved = [{**row, "score": float(s)} for row, s in zip(rows, scores, strict=True)]
    assert max(abs(a["score"] - b["score"]) for a, b in zip(rows, moved, strict=True)) > 0.02
    assert coco.evaluate(truth, moved) == coco.evaluate(truth, rows)


def test_calibrated_outcomes_keep_their_matches() -> None:
    found = random_outcomes(0)
    made = fit("platt", found, min_detections=10)
    moved = calibrators.apply(found, made)
    assert moved.hits is found.hits
    assert moved.scores.tolist() == made(found.scores, found.labels).tolist()


def test_scores_given_are_not_changed() -> None:
    scores, labels = np.array([0.2, 0.8]), np.array([0, 1])
    fit("platt", random_outcomes(0), min_detections=10)(scores, labels)
    assert scores.tolist() == [0.2, 0.8]


def test_nothing_to_learn_from_is_an_error_in_one_line() -> None:
    message = "0 detections, 0 of them true positives; right and wrong ones are needed to fit"
    with pytest.raises(DataError, match=message):
        fit("platt", make_outcomes([], []))
    with pytest.raises(DataError, match="2 detections, 0 of them"):
        fit("isotonic", make_outcomes([0.1, 0.2], [0.0, 0.0]))


def test_an_unknown_kind_or_target_is_refused() -> None:
    with pytest.raises(ConfigError, match="'plat' is not one of temperature, platt, isotonic"):
        fit("plat", random_outcomes(0))
    with pytest.raises(ConfigError, match="'area' is not one of hit, iou"):
        fit("platt", random_outcomes(0), target="area")
    with pytest.raises(ConfigError, match="'beta' is not one of"):
        Calibrator.from_dict({"kind": "beta"})
