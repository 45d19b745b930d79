"""Thresholds by optimal LRP, by F1 and by costs."""

from __future__ import annotations

import json

import numpy as np
import pytest

from detector.analysis import lrp
from detector.analysis.operating_points import OperatingPoints, choose
from detector.analysis.sweeps import sweep
from detector.errors import ConfigError
from tests.analysis.made import make_outcomes, random_outcomes

# By falling score: right, wrong, right, wrong, wrong, right; one object missed.
FOUND = make_outcomes([0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [0.9, 0, 0.9, 0, 0, 0.9], missed=[(0, 0)])


def test_the_greatest_f1_by_hand() -> None:
    # 2 right / (kept + 4 objects): 2/5, 2/6, 4/7, 4/8, 4/9, 6/10.
    assert choose(FOUND, "f1").thresholds == (0.4,)
    made = choose(FOUND.select(FOUND.scores > 0.45), "f1")
    assert made.thresholds == (0.7,)
    assert made.precision == (pytest.approx(2 / 3),)
    assert made.recall == (0.5,)


def test_optimal_lrp_is_that_of_its_own_module() -> None:
    found = random_outcomes(0)
    made = choose(found, "lrp")
    assert list(made.thresholds) == [value.threshold for value in lrp.optimal(found)]
    assert made.own == (True, True, True)


@pytest.mark.parametrize(
    ("miss", "false_alarm", "threshold"),
    [
        # Missed and wrong at inf, .9, .8, .7, .6, .5, .4: (4,0) (3,0) (3,1) (2,1) (2,2) (2,3) (1,3)
        (1.0, 10.0, 0.9),
        (3.0, 1.0, 0.4),
        (1.5, 1.0, 0.7),
        # 4, 3, 4, 3, ..: equal at .9 and .7, the fewer are kept.
        (1.0, 1.0, 0.9),
    ],
)
def test_the_least_cost_by_hand(miss: float, false_alarm: float, threshold: float) -> None:
    made = choose(FOUND, "cost", miss=miss, false_alarm=false_alarm)
    assert made.thresholds == (threshold,)
    assert f"{miss:g} a miss, {false_alarm:g} a false alarm" in made.criterion


def test_where_every_detection_costs_more_than_it_saves_none_is_kept() -> None:
    found = make_outcomes([0.9, 0.8], [0.0, 0.9])
    made = choose(found, "cost", miss=1, false_alarm=2)
    assert made.thresholds == (None,)
    assert (made.precision, made.recall) == ((None,), (0.0,))
    assert made.keep(np.array([1.0, 0.5]), np.array([0, 0])).tolist() == [False, False]


@pytest.mark.parametrize(("miss", "false_alarm"), [(1, 1), (4, 1), (1, 4)])
def test_of_calibrated_scores_the_threshold_is_the_ratio_of_costs(
    miss: float, false_alarm: float
) -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(40000)
    found = make_outcomes(scores.tolist(), np.where(rng.random(40000) < scores, 0.9, 0).tolist())
    made = choose(found, "cost", miss=miss, false_alarm=false_alarm)
    # The cost is flat about its minimum: the place of the minimum scatters as N^(-1/3), 0.03.
    assert made.thresholds[0] == pytest.approx(false_alarm / (miss + false_alarm), abs=0.08)


@pytest.mark.parametrize("criterion", ["lrp", "f1", "cost"])
def test_a_class_with_too_few_objects_takes_the_threshold_of_all(criterion: str) -> None:
    found = make_outcomes(
        [0.9, 0.7, 0.6, 0.2, 0.3], [0.9, 0.0, 0.9, 0.9, 0.0], labels=[0, 0, 0, 1, 2], num_classes=3
    )
    made = choose(found, criterion)
    assert made.own == (True, True, False)
    assert made.thresholds[2] == made.pooled
    assert made.thresholds[1] == 0.2
    assert choose(found, criterion, min_objects=2).own == (True, False, False)
    assert made.pooled is not None
    assert made.pooled in sweep(found).thresholds


def test_a_threshold_keeps_the_score_it_names() -> None:
    made = choose(FOUND, "lrp")
    limit = made.thresholds[0]
    assert limit is not None
    scores = np.array([limit, np.nextafter(limit, 0)])
    assert made.keep(scores, np.zeros(2, int)).tolist() == [True, False]


def test_thresholds_survive_json() -> None:
    for found in (random_outcomes(0), make_outcomes([0.9], [0.0])):
        made = choose(found, "cost", miss=1, false_alarm=5)
        text = json.dumps(made.to_dict(), allow_nan=False)
        assert OperatingPoints.from_dict(json.loads(text)) == made


def test_an_unknown_criterion_and_costs_that_are_not_positive_are_refused() -> None:
    with pytest.raises(ConfigError, match="'f2' is not one of lrp, f1, cost"):
        choose(FOUND, "f2")
    with pytest.raises(ConfigError, match=r"costs of a miss 0\.0 and a false alarm 1\.0 given"):
        choose(FOUND, "cost", miss=0.0)
    with pytest.raises(ConfigError, match="finite ones above 0"):
        choose(FOUND, "cost", false_alarm=float("nan"))
