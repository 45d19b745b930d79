"""The report without figures: what it says, and that it shows text as text."""

from __future__ import annotations

import csv

from detector.laboratory.compare.tables import as_csv, escape, escaped_markdown, pairs

HOSTILE = "<script>alert(1)</script>"


def test_a_class_named_like_a_tag_is_shown_as_text() -> None:
    text = escaped_markdown([["loss", HOSTILE], ["focal", "0.1"]])
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert escape("a|b & c") == "a\\|b &amp; c"


def test_csv_has_a_row_for_every_run_also_for_one_that_failed() -> None:
    done = {
        "loss": "focal",
        "seed": 0,
        "state": "done",
        "AP": 0.5,
        "optimal_lrp": {"value": 0.7},
        "calibration": {"raw": {"D-ECE": 0.25}, "link_inverse": None},
        "per_class": {HOSTILE: 0.5, "a,b": None},
    }
    failed = {"loss": "ssd", "seed": 0, "state": "failed"}
    rows = list(csv.DictReader(as_csv([failed, done]).splitlines()))
    assert [row["state"] for row in rows] == ["failed", "done"]
    assert (rows[1]["optimal_lrp"], rows[1]["D-ECE raw"]) == ("0.7", "0.25")
    assert (rows[1][f"AP {HOSTILE}"], rows[1]["AP a,b"]) == ("0.5", "")
    assert rows[0]["AP"] == ""


def test_a_range_of_seeds_is_not_called_an_interval() -> None:
    row = {"loss": "a", "against": "b", "mean": 0.1, "low": 0.0, "high": 0.2, "verdict": "above"}
    ranged = pairs([{**row, "kind": "range", "differences": [0.0, 0.1, 0.2]}])
    assert ranged[1][5] == "range of 3 seeds"
    assert pairs([{**row, "kind": "interval", "differences": [0.1] * 5}])[1][5] == "95 % interval"
    assert pairs([{**row, "kind": "range", "differences": [0.1]}])[1][5] == "range of 1 seed"
    missing = {**row, "kind": "none", "mean": None, "low": None, "high": None, "verdict": None}
    assert pairs([{**missing, "differences": []}])[1][2:] == ["-", "-", "-", "-", "-"]


def test_a_table_without_rows_says_so() -> None:
    assert escaped_markdown([["loss"]]) == "No run has ended."
