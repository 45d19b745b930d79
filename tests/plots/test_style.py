"""Labels that do not touch, and files that are the same for the same picture."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.errors import ConfigError
from detector.plots.style import grid, require_matplotlib, save, shorten, spread, styled


def test_labels_that_have_room_stay_and_others_share_the_shift() -> None:
    assert spread([0.0, 5.0, 5.0, 9.0], [1.0] * 4) == [0.0, 4.5, 5.5, 9.0]


def test_a_tall_label_takes_its_own_height() -> None:
    assert spread([0.0, 0.0], [1.0, 3.0]) == [-1.5, 0.5]


@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(0.1, 3)), max_size=8))
def test_labels_never_touch_and_keep_their_order(labels: list[tuple[float, float]]) -> None:
    wanted, heights = [w for w, _ in labels], [h for _, h in labels]
    centres = spread(wanted, heights)
    order = sorted(range(len(labels)), key=lambda i: wanted[i])
    for a, b in pairwise(order):
        # Sums of up to eight floats of size 10: rounding only.
        assert centres[b] - centres[a] >= (heights[a] + heights[b]) / 2 - 1e-9


def test_an_svg_is_rounded_in_its_tags_and_not_in_its_words() -> None:
    svg = '<g>\n   <path d="M 1.23456 -7.5"/>\n   <text>0.0798236</text></g>'
    assert shorten(svg) == '<g>\n<path d="M 1.23 -7.5"/>\n<text>0.0798236</text></g>'


def test_the_same_picture_is_the_same_file(tmp_path: Path) -> None:
    written = []
    for name in ("a", "b"):
        with styled():
            figure, (axis,) = grid(1, 3.0, 2.0)
            axis.plot([0, 1], [0, 1])
            paths = save(figure, tmp_path / name, "line", ["png", "svg"])
        assert [path.name for path in paths] == ["line.png", "line.svg"]
        written.append([path.read_bytes() for path in paths])
    assert written[0] == written[1]


def test_without_matplotlib_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError) as caught:
        require_matplotlib()
    assert str(caught.value).endswith("not installed; pip install matplotlib")
