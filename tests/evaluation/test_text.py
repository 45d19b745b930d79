from __future__ import annotations

from detector.evaluation.text import aligned, digits


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert aligned([("a", "value", ""), ("longer", "1", "x")]) == [
        "a       value",
        "longer      1  x",
    ]


def test_a_number_that_is_not_defined_is_a_dash() -> None:
    assert (digits(None), digits(0.12345), digits(1, 1)) == ("-", "0.123", "1.0")
