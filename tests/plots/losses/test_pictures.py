"""Which pictures are drawn, and what can be read in them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
from matplotlib.figure import Figure

from detector.config.registry import LOSSES
from detector.config.schema import Plug
from detector.errors import ConfigError
from detector.plots.losses.curves import subject
from detector.plots.losses.panels import PANELS, merge
from detector.plots.losses.pictures import draw_all, subjects_of
from detector.plots.losses.posterior import best_score
from detector.plots.style import styled


@pytest.fixture(autouse=True)
def in_style() -> Iterator[None]:
    with styled():
        yield


def pictures(losses: Any, figure: str = "curves", each: bool = False) -> dict[str, Figure]:
    subjects = subjects_of(losses)
    return dict(draw_all(subjects, figure, each=each, panels=PANELS, width=None, points=16))


def texts(figure: Figure) -> set[str]:
    return {t.get_text().replace("\n", " ") for axis in figure.axes for t in axis.texts}


def test_all_losses_are_drawn_together_and_each_by_itself() -> None:
    assert list(pictures("all")) == ["losses"]
    assert list(pictures("all", each=True)) == LOSSES.names


def test_the_factors_of_focal_are_written_at_its_curve() -> None:
    (figure,) = pictures(["cross_entropy", {"name": "focal", "alpha": None}]).values()
    assert {"CE / 4", "CE / 100"} <= texts(figure)


def test_losses_that_are_equal_share_a_line() -> None:
    lines = merge(subjects_of(["ssd", "focal", "cross_entropy"]))
    assert [line.label for line in lines] == ["ssd =\u00a0cross entropy", "focal"]


def test_a_loss_with_two_options_has_two_files() -> None:
    named = pictures([{"name": "focal", "gamma": g} for g in (0.5, 1)], each=True)
    assert list(named) == ["focal", "focal_2"]


@pytest.mark.parametrize(
    ("figure", "lines", "limits"),
    [("focal_1", 5, (0, 1)), ("focal_5", 4, (-5, 5)), ("focal_6", 4, (-10, 10))],
)
def test_a_figure_of_the_paper_has_its_lines_and_range(
    figure: str, lines: int, limits: tuple[float, float]
) -> None:
    ((stem, drawn),) = draw_all([], figure, each=False, panels=PANELS, width=None, points=33)
    assert stem == figure
    (axis,) = drawn.axes
    assert len(axis.lines) == lines
    assert axis.get_xlim() == limits


def test_figure_1_has_the_values_of_the_paper_at_one_half() -> None:
    ((_, drawn),) = draw_all([], "focal_1", each=False, panels=PANELS, width=None, points=33)
    for line, gamma in zip(drawn.axes[0].lines, (0, 0.5, 1, 2, 5), strict=True):
        middle = line.get_xydata()[16].tolist()  # type: ignore[union-attr]
        assert middle == pytest.approx([0.5, 0.5**gamma * math.log(2)])


def test_figure_6_slopes_reach_from_minus_one_to_nothing() -> None:
    ((_, drawn),) = draw_all([], "focal_6", each=False, panels=PANELS, width=None, points=33)
    for line in drawn.axes[0].lines:
        slopes = line.get_ydata()
        # Focal loss dips a little below -1; -x e^-2x is what is left of it at the far left.
        assert slopes[0] == pytest.approx(-1, abs=0.002)
        assert slopes[-1] == pytest.approx(0, abs=1e-4)


def test_focal_says_040_where_the_posterior_is_one_half_and_060_where_it_is_09() -> None:
    """The least expected loss by brute force over a grid of scores."""
    one = subject(Plug("focal", {}))
    grid = [i / 100_000 for i in range(1, 100_000)]
    for eta in (0.5, 0.9):

        def risk(p: float, eta: float = eta) -> float:
            yes = -0.25 * (1 - p) ** 2 * math.log(p)
            no = -0.75 * p**2 * math.log(1 - p)
            return eta * yes + (1 - eta) * no

        assert best_score(one, eta) == pytest.approx(min(grid, key=risk), abs=1e-5)


def test_a_posterior_is_drawn_for_the_losses_that_know_it() -> None:
    (figure,) = pictures(["cross_entropy", "focal", "ssd"], "posterior").values()
    assert {"cross entropy", "focal", "0.40", "0.60"} <= texts(figure)
    assert "ssd" not in texts(figure)
    with pytest.raises(ConfigError, match="losses: ssd given, one with a posterior"):
        pictures(["ssd"], "posterior")


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ([], "losses: [] given, all or a list of names is needed"),
        (None, "losses: None given, all or a list of names is needed"),
        ([3], "losses[0]: 3 given, a name or {name: focal, gamma: 1} is needed"),
        ([{"gamma": 1}], "losses[0]: a part with a `name` is needed, {'gamma': 1} given"),
        (["focall"], "loss=focall: unknown (did you mean 'focal'?); allowed: "),
    ],
)
def test_what_is_no_loss_is_answered(losses: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        subjects_of(losses)
    assert str(caught.value).startswith(message)
