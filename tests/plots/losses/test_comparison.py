"""Factors against cross entropy at p_t 0.5 and 0.9, by hand."""

from __future__ import annotations

import math

import pytest

from detector.config.schema import Plug
from detector.plots.losses.comparison import Comparison, compare, markdown, remarks
from detector.plots.losses.curves import subject

LN2, LN10_9 = math.log(2), math.log(10 / 9)

FACTORS = [
    ("cross_entropy", {}, (1.0, 1.0), (1.0, 1.0), (1.0, 1.0)),
    ("balanced_cross_entropy", {}, (0.75, 0.25), (1.0, 1.0), (1.0, 1.0)),
    # 1 / (1 - p_t)^gamma
    ("focal", {"alpha": None}, (1.0, 1.0), (4.0, 100.0), (4.0, 100.0)),
    ("focal", {}, (0.25, 0.75), (4.0, 100.0), (4.0, 100.0)),
    ("focal", {"gamma": 0.5}, (0.25, 0.75), (2**0.5, 10**0.5), (2**0.5, 10**0.5)),
    ("focal", {"gamma": 5.0}, (0.25, 0.75), (32.0, 1e5), (32.0, 1e5)),
    ("quality_focal", {}, (1.0, 1.0), (4.0, 100.0), (4.0, 100.0)),
    ("varifocal", {}, (1.0, 0.75), (1.0, 1.0), (4.0, 100.0)),
    # Squares: ln 2 / 0.25 and ln(10/9) / 0.01, twice that for lambda_noobj 0.5.
    ("yolo", {}, (0.0, 0.0), (4 * LN2, 100 * LN10_9), (8 * LN2, 200 * LN10_9)),
]


@pytest.mark.parametrize(("name", "options", "weights", "yes", "no"), FACTORS)
def test_weight_and_factors_are_those_of_the_formula(
    name: str, options: dict, weights: tuple, yes: tuple, no: tuple
) -> None:
    one = subject(Plug(name, options))
    for probe, weight, factors in ((one.yes, weights[0], yes), (one.no, weights[1], no)):
        assert probe is not None
        result = compare(probe)
        # float64: a logarithm of a sigmoid of a logarithm.
        assert result.weight == pytest.approx(weight, rel=1e-12, abs=1e-12)
        assert result.factors == pytest.approx(factors, rel=1e-10)


def test_marks_read_as_cross_entropy_divided() -> None:
    yes = subject(Plug("focal", {})).yes
    assert yes is not None
    assert [compare(yes).in_words(i) for i in (0, 1)] == ["0.25 CE / 4", "0.25 CE / 100"]
    assert Comparison(1.0, (1.0, 1000.0)).in_words(0) == "CE"
    assert Comparison(1.0, (1.0, 1000.0)).in_words(1) == "CE / 1,000"


def test_the_table_has_a_row_for_each_loss_and_truth() -> None:
    rows = markdown([subject(Plug("focal", {})), subject(Plug("yolo", {}))]).splitlines()
    assert len(rows) == 2 + 4
    assert [cell.strip() for cell in rows[2].split("|")[1:-1]] == [
        "focal",
        "1",
        "0.25",
        "4x",
        "100x",
    ]


def test_a_missing_curve_has_a_row_and_a_remark() -> None:
    one = subject(Plug("ssd", {"negatives_per_positive": 0.0}))
    assert "no curve" in markdown([one]).splitlines()[-1]
    assert remarks([one]) == [f"{one.label}: no curve for y = 0: a single anchor never counts"]
