"""What the pictures and tables of the page are made of, against numbers made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector.analysis.matching import Outcomes
from detector.laboratory.report import records as report_records
from detector.laboratory.report.figures_images import shown
from detector.laboratory.report.scores import pooled, score_counts
from detector.laboratory.report.tables import Cell, Column, table
from detector.plots.studies.curves import mean_and_range
from detector.plots.studies.images import highest, iou

ROOT = Path(__file__).parents[3]


def outcomes(scores: list[float], hits: list[bool]) -> Outcomes:
    number = len(scores)
    zeros = np.zeros(number, dtype=int)
    return Outcomes(
        threshold=0.5,
        scores=np.array(scores),
        labels=zeros,
        images=zeros,
        areas=np.ones(number),
        hits=np.array(hits),
        ious=np.ones(number),
        object_images=zeros[:0],
        object_labels=zeros[:0],
        object_found=zeros[:0],
        num_images=1,
        classes=("cat",),
    )


def test_a_score_on_an_edge_belongs_to_the_bin_below_it() -> None:
    counts = score_counts(outcomes([0.0, 0.5, 0.75, 1.0], [False, True, True, False]), bins=2)
    assert counts["right"] == [1, 1]
    assert counts["wrong"] == [1, 1]
    assert counts["score_sums"] == [0.5, 1.75]
    assert counts["edges"] == [0.0, 0.5, 1.0]


def test_counts_of_runs_add_up() -> None:
    one = score_counts(outcomes([0.25, 1.0], [True, True]), bins=2)
    other = score_counts(outcomes([0.5], [False]), bins=2)
    assert pooled([one, other]) == {
        **{"iou": 0.5, "edges": [0.0, 0.5, 1.0]},
        **{"right": [1, 1], "wrong": [1, 0], "score_sums": [0.75, 1.0]},
    }


def test_the_cumulative_loss_begins_with_the_easiest_anchors() -> None:
    # Of 8 anchors 2 have a loss of 3 each and 6 of 1 each: 6 / 8 of them have 6 / 12 of it.
    losses = {"0": [6.0, 0.0, 6.0], "0.5": [0.0] * 3, "1": [6.0, 0.0, 6.0], "2": [0.0, 0.0, 6.0]}
    part = {"edges": [0, 0.3, 0.6, 1], "counts": [2, 0, 6], "losses": losses}
    curves = report_records.cumulative([{"background": part}], "background")
    assert curves is not None
    assert list(curves) == ["0", "1", "2"]  # without any loss there are no shares of it
    x, y = curves["0"]
    assert x.tolist() == [0.0, 0.75, 1.0]
    assert y.tolist() == [0.0, 0.5, 1.0]
    # Here the first bin has no loss at all, so it is the easiest.
    assert [values.tolist() for values in curves["2"]] == [[0, 0.25, 1], [0, 0, 1]]


def test_histograms_of_seeds_add_up_at_their_first_and_last_record() -> None:
    def line(value: int) -> dict[str, Any]:
        return {"p_t": {"edges": [0, 1], "foreground": [value], "background": [10 * value]}}

    found = report_records.first_and_last([[line(1), line(5), line(2)], [line(3)]], "p_t")
    assert found is not None
    assert found["first"]["foreground"].tolist() == [4]
    assert found["last"]["background"].tolist() == [50]
    assert report_records.first_and_last([[{"step": 1}]], "p_t") is None


def test_records_that_are_torn_absent_or_of_failed_runs_are_left_out(tmp_path: Path) -> None:
    for name, text in (("a", '{"step": 1}\n'), ("b", '{"step": 1}\n{"st'), ("c", '{"step": 1}\n')):
        (tmp_path / name / "probe").mkdir(parents=True)
        (tmp_path / name / "probe" / "steps.jsonl").write_text(text)
    states = {"a": "done", "b": "done", "c": "diverged", "d": "done"}
    runs = [{"loss": name, "folder": name, "state": states[name]} for name in states]
    found = report_records.read(tmp_path, runs)
    assert found.steps == {"a": [[{"step": 1}]]}
    assert (found.final, found.images) == ({}, {})


def test_values_that_are_none_have_no_place_on_a_curve() -> None:
    steps = {"ssd": [[{"step": 1, "v": 2.0}, {"step": 2, "v": None}]], "yolo": [[{"step": 1}]]}
    found = report_records.over_training(steps, lambda row: row.get("v"))
    assert found == {"ssd": [[(1, 2.0)]]}


def test_bands_are_over_the_steps_that_all_seeds_have() -> None:
    steps, mean, low, high = mean_and_range([[(1, 2.0), (2, 4.0), (3, 9.0)], [(1, 4.0), (2, 0.0)]])
    assert steps.tolist() == [1, 2]
    assert (mean.tolist(), low.tolist(), high.tolist()) == ([3, 2], [2, 0], [4, 4])
    assert mean_and_range([])[0].size == 0


def test_a_seed_without_a_value_at_a_step_does_not_take_the_step_from_the_others() -> None:
    # The second seed has nothing at steps 2 and 3, and lies between 0 and 6 there.
    steps, mean, low, high = mean_and_range(
        [[(1, 2.0), (2, 4.0), (3, 9.0)], [(0, 5.0), (1, 0.0), (4, 6.0)]]
    )
    assert steps.tolist() == [1, 2, 3]
    assert mean.tolist() == [1.0, 3.0, 6.5]
    assert (low.tolist(), high.tolist()) == ([0.0, 2.0, 4.0], [2.0, 4.0, 9.0])
    assert mean_and_range([[(1, 1.0)], [(2, 1.0)]])[0].size == 0


def row(category: int, bbox: list[float], score: float = 0.0) -> dict[str, Any]:
    return {"image_id": 1, "category_id": category, "bbox": bbox, "score": score}


def test_as_many_detections_are_shown_as_there_are_objects_each_found_once() -> None:
    truth = [row(1, [0, 0, 10, 10]), row(2, [50, 50, 10, 10]), row(1, [80, 0, 10, 10])]
    detections = [
        row(1, [80, 0, 10, 10], 0.1),  # right, but three score more
        row(1, [0, 0, 10, 9], 0.9),  # right
        row(1, [0, 0, 10, 10], 0.8),  # the same object again
        row(1, [50, 50, 10, 10], 0.7),  # of another class
    ]
    found = highest(detections, truth)
    assert found.right.tolist() == [True, False, False]
    assert found.boxes.tolist() == [[0, 0, 10, 9], [0, 0, 10, 10], [50, 50, 10, 10]]
    assert found.objects == 3


def test_overlap_of_two_boxes() -> None:
    # 5 x 10 in common of 100 + 100 - 50.
    assert iou([0, 0, 10, 10], [5, 0, 10, 10]) == pytest.approx(1 / 3, rel=1e-12)  # rounding
    assert iou([0, 0, 10, 10], [10, 0, 10, 10]) == 0
    assert iou([0, 0, 0, 0], [0, 0, 0, 0]) == 0


def test_a_study_whose_pictures_are_gone_shows_none(tmp_path: Path) -> None:
    content = {"image_ids": [3], "truth": [], "sizes": {"3": [4, 4]}, "start": {"step": 0}}
    assert shown(tmp_path, content) is None


def content_of(values: dict[str, list[float | None]]) -> dict[str, Any]:
    means = {loss: [v for v in known if v is not None] for loss, known in values.items()}
    return {
        "summary": [
            {"loss": loss, "AP": sum(known) / len(known) if known else None}
            for loss, known in means.items()
        ],
        "runs": [
            {"loss": loss, "state": "done" if v is not None else "killed", "AP": v}
            for loss, known in values.items()
            for v in known
        ],
    }


def test_a_table_has_the_best_first_and_marked_and_unfinished_losses_last() -> None:
    content = content_of({"yolo": [None], "ssd": [0.25, 0.5], "focal": [0.5, None]})
    found = table(content, [Column("AP", lambda run: run["AP"])])
    assert found.rows == [
        ("focal", 1, [Cell("0.500", "", True)]),
        ("ssd", 2, [Cell("0.375", "0.250\u20130.500")]),
        ("yolo", 0, [Cell("-")]),
    ]


def test_nothing_is_marked_where_all_are_equal_and_the_least_where_less_is_better() -> None:
    equal = table(content_of({"a": [0.5], "b": [0.5]}), [Column("AP", lambda run: run["AP"])])
    assert not any(cell.best for _, _, cells in equal.rows for cell in cells)
    less = table(content_of({"a": [0.5], "b": [0.25]}), [Column("", lambda run: run["AP"], -1)])
    assert [cells[0].best for _, _, cells in less.rows] == [False, True]


def test_lines_that_hold_no_json_are_no_record(tmp_path: Path) -> None:
    path = tmp_path / "final.json"
    assert report_records.read_json(path) is None
    path.write_text("{")
    assert report_records.read_json(path) is None
    path.write_text(json.dumps({"a": 1}))
    assert report_records.read_json(path) == {"a": 1}
