"""The number by which losses are compared, against COCO's evaluator and loops over thresholds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detector.analysis.matching import match
from detector.analysis.packing import pack
from detector.errors import ConfigError
from detector.evaluation import coco
from detector.laboratory.compare.collect import metric_of
from detector.laboratory.compare.metric import NAMES, parse
from tests.evaluation.cases import random_case

Row = dict[str, Any]


@pytest.fixture(scope="module")
def made() -> tuple[dict[str, list[Row]], list[Row]]:
    return random_case(3, [2, 5, 9])  # crowds, all sizes, equal scores, 9 has no object


def test_cocos_numbers_are_those_of_the_evaluator(made: Any) -> None:
    truth, rows = made
    expected = coco.evaluate(truth, rows)
    packed = pack(truth, rows)
    for name in NAMES:
        value = metric_of(parse(name).of(packed))
        # Sums in another order: the last digits of a mean over ten thresholds.
        assert value == pytest.approx(expected[name], rel=1e-9), name
    for name, ap in expected["per_class"].items():
        if ap is None:
            assert metric_of(parse(f"class:{name}").of(packed)) is None
            continue
        assert metric_of(parse(f"class:{name}").of(packed)) == pytest.approx(ap, rel=1e-9)


def by_loop(truth: Any, rows: list[Row], category: int, allowed: Any) -> float:
    """The greatest recall of a class over the thresholds at which `allowed(right, wrong)`."""
    mine = [row for row in truth["annotations"] if row["category_id"] == category]
    objects = [row for row in mine if not row["iscrowd"]]
    packed = pack(truth, rows)
    matching = match(packed, (0.5,))
    k = [row["id"] for row in truth["categories"]].index(category)
    mine = (packed.found.labels == k) & ~matching.ignored[0]
    best = 0.0
    for threshold in np.unique(packed.found.scores[mine]):
        kept = mine & (packed.found.scores >= threshold)
        right = int((matching.hits[0] & kept).sum())
        if allowed(right, int(kept.sum()) - right):
            best = max(best, right / len(objects))
    return best


@pytest.mark.parametrize("level", [0.5, 0.9, 1.0])
def test_recall_at_a_precision_is_the_best_of_all_thresholds_per_class(
    made: Any, level: float
) -> None:
    truth, rows = made
    found = metric_of(parse(f"recall@precision={level}").of(pack(truth, rows)))
    wanted = [
        by_loop(truth, rows, row["id"], lambda right, wrong: right >= level * (right + wrong))
        for row in truth["categories"][:-1]
    ]
    assert found == pytest.approx(np.mean(wanted))


@pytest.mark.parametrize("level", [0.1, 1.0, 10.0])
def test_recall_at_false_alarms_is_the_best_of_all_thresholds_per_class(
    made: Any, level: float
) -> None:
    truth, rows = made
    most = level * len(truth["images"])
    found = metric_of(parse(f"recall@fppi={level}").of(pack(truth, rows)))
    wanted = [
        by_loop(truth, rows, row["id"], lambda right, wrong: wrong <= most)
        for row in truth["categories"][:-1]
    ]
    assert found == pytest.approx(np.mean(wanted))


@pytest.mark.parametrize("name", ["AP50", "recall@precision=0.5", "recall@fppi=1"])
def test_images_drawn_twice_change_nothing(made: Any, name: str) -> None:
    """Twice as many objects, false alarms and images: every ratio stays."""
    found = parse(name).of(pack(*made))
    weights = np.stack([np.ones(found.num_images), np.full(found.num_images, 2.0)])
    once, twice = found.ap(weights)
    assert once == pytest.approx(twice)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("AP60", "metric: 'AP60' given, allowed: AP, AP50"),
        ("APS", "metric: 'APS' given, allowed: AP, AP50"),
        ("class:", "metric: 'class:' given"),
        ("recall@fppi", "metric: 'recall@fppi' given"),
        ("recall@precision=1.5", "above 0 \\(a precision up to 1\\)"),
        ("recall@fppi=0", "above 0"),
    ],
)
def test_what_is_no_metric_is_answered_with_what_is(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(text)
