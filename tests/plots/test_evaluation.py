"""Reliability diagrams and precision-recall curves: what they show is what they were given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from detector.plots.precision_recall import draw_precision_recall
from detector.plots.reliability import draw_reliability
from detector.plots.style import save, styled

DIAGRAM = {
    "edges": [0.0, 0.5, 1.0],
    "counts": [1200, 0],
    "right": [300, 0],
    "scores": [0.4, None],
    "targets": [0.25, None],
}


def test_a_bar_is_the_share_that_is_right_the_dot_the_mean_score_and_each_has_its_count() -> None:
    with styled():
        figure = draw_reliability({"cat": DIAGRAM})
    (axis,) = figure.axes
    (bar,) = axis.patches
    assert bar.get_height() == 0.25  # type: ignore[attr-defined]
    assert np.asarray(axis.collections[0].get_offsets()).tolist() == [[0.4, 0.4]]
    assert [text.get_text() for text in axis.texts] == ["1,200"]
    assert axis.get_title() == "cat (1,200 detections)"


def test_each_diagram_has_a_panel_and_an_empty_one_stays_empty() -> None:
    empty = {**DIAGRAM, "counts": [0, 0], "scores": [None] * 2, "targets": [None] * 2}
    with styled():
        figure = draw_reliability({"cat": DIAGRAM, "dog": empty})
    first, second = figure.axes
    assert (len(first.patches), len(second.patches)) == (1, 0)
    assert second.get_title() == "dog (0 detections)"


def test_a_curve_is_labelled_with_its_area_and_a_class_without_objects_says_so() -> None:
    classes = {"cat": {"precision": [1.0, 0.5, 0.0]}, "dog": None}
    with styled():
        figure = draw_precision_recall([0.0, 0.5, 1.0], classes, iou=0.5)
    (axis,) = figure.axes
    legend = axis.get_legend()
    assert legend is not None
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["cat: AP 0.500", "dog: no objects"]
    assert np.asarray(axis.lines[0].get_ydata()).tolist() == [1.0, 0.5, 0.0]
    assert axis.get_title() == "IoU 0.5"


NAMES = (r"$\frac{1}$", "$", "a$b$c", r"\$x$", "_private", "two\nlines", "^_{", "a\x1b[2J", "猫")


@pytest.mark.filterwarnings("ignore:Glyph")  # a font need not have every letter
def test_names_that_look_like_formulae_are_drawn_letter_by_letter(tmp_path: Path) -> None:
    curve = {"precision": [1.0, 0.5]}
    with styled():
        curves = draw_precision_recall([0.0, 1.0], dict.fromkeys(NAMES, curve), iou=0.5)
        diagrams = draw_reliability(dict.fromkeys(NAMES, DIAGRAM))
        for stem, figure in {"curves": curves, "diagrams": diagrams}.items():
            assert save(figure, tmp_path, stem, ["png"])[0].stat().st_size > 0
    legend = curves.axes[0].get_legend()
    assert legend is not None
    assert len(legend.get_texts()) == len(NAMES)
    for text in (*legend.get_texts(), *(axis.title for axis in diagrams.axes)):
        _, is_formula = text._preprocess_math(text.get_text())  # type: ignore[attr-defined]
        assert not is_formula, text.get_text()
        assert "\n" not in text.get_text()
