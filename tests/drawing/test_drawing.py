"""Boxes and names on images."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image

from detector.drawing.drawing import (
    BLACK,
    PAPER,
    WHITE,
    Mark,
    _place,
    captioned,
    color,
    draw,
    grid,
    readable_on,
)

GREY = np.full((60, 80, 3), 128, np.uint8)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image)


def where(image: Image.Image, wanted: tuple[int, int, int]) -> np.ndarray:
    """(H, W) bool: the pixels of a colour."""
    return (pixels(image) == wanted).all(-1)


def test_the_lines_follow_the_box_and_leave_its_inside_alone() -> None:
    image = draw(GREY, [Mark((20, 10, 50, 40), 3)])
    rows, columns = where(image, color(3)).nonzero()
    # Two pixels wide, with an edge of one on both sides; the box's last pixels are 39 and 49.
    assert (rows.min(), rows.max()) == (7, 42)
    assert (columns.min(), columns.max()) == (17, 52)
    changed = (pixels(image) != 128).any(-1)
    assert not changed[10:40, 20:50].any()
    assert (GREY == 128).all()


@pytest.mark.parametrize("is_dashed", [False, True])
def test_a_box_as_large_as_its_image_shows_on_all_sides(is_dashed: bool) -> None:
    shown = where(draw(GREY, [Mark((0, 0, 80, 60), 0, is_dashed=is_dashed)]), color(0))
    assert all(side.any() for side in (shown[:3], shown[-3:], shown[:, :3], shown[:, -3:]))


def test_a_crowd_is_dashed() -> None:
    image = draw(GREY, [Mark((20, 10, 70, 50), 3, is_dashed=True)])
    line = pixels(image)[9, 20:70]
    assert (line == 128).all(-1).any()
    assert not (line == 128).all()


def test_an_anchor_is_a_thin_line_below_the_objects() -> None:
    box = (20, 10, 50, 40)
    alone = draw(GREY, [Mark(box, 3, is_thin=True)])
    assert (pixels(alone) != 128).any(-1).sum() == 2 * 30 + 2 * 28
    frame = (17, 7, 53, 43)  # where the lines of the object's box are
    below = draw(GREY, [Mark(box, 0), Mark(frame, 3, is_thin=True)])
    assert np.array_equal(pixels(below), pixels(draw(GREY, [Mark(box, 0)])))


def test_the_first_mark_is_on_top() -> None:
    box = (20, 10, 50, 40)
    image = draw(GREY, [Mark(box, 0), Mark(box, 1)])
    assert where(image, color(0)).any()
    assert not where(image, color(1)).any()


def test_an_enlarged_image_has_its_boxes_in_the_same_places() -> None:
    ramp = np.arange(60 * 80 * 3, dtype=np.uint8).reshape(60, 80, 3)
    assert np.array_equal(pixels(draw(ramp, [], 3)), ramp.repeat(3, 0).repeat(3, 1))
    rows, columns = where(draw(GREY, [Mark((20, 10, 50, 40), 3)], 3), color(3)).nonzero()
    assert (rows.min(), columns.max()) == (3 * 10 - 3, 3 * 50 + 2)


@pytest.mark.parametrize(
    "box",
    [(0.4, 0.4, 0.6, 0.6), (79.6, 59.6, 80, 60), (-50, -50, -10, -10), (200, 90, 300, 99)],
)
@pytest.mark.parametrize("text", ["", "cat 0.5", "a name\nof two lines", "ß é 猫", "x" * 500])
def test_whatever_the_box_and_the_name_the_size_stays(
    box: tuple[float, float, float, float], text: str
) -> None:
    for is_dashed in (False, True):
        assert draw(GREY, [Mark(box, 5, text, is_dashed)]).size == (80, 60)


def test_a_name_has_the_colour_of_its_class_behind_it() -> None:
    image = np.full((200, 300, 3), 128, np.uint8)
    plain, named = (draw(image, [Mark((50, 60, 200, 150), 2, text)]) for text in ("", "cat"))
    added = where(named, color(2)) & ~where(plain, color(2))
    rows, _ = added.nonzero()
    assert added.sum() > 100
    assert rows.max() < 60  # above the box, where there is room
    assert where(named, readable_on(color(2)))[:60].any()


class TestPlace:
    SIZE = (640, 480)

    def test_names_of_one_box_do_not_cover_one_another(self) -> None:
        places: list[tuple[float, float, float, float]] = []
        for _ in range(6):
            places.append(_place((100, 100, 400, 300), 2, (80, 20), self.SIZE, places))
        for a, b in itertools.combinations(places, 2):
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], (a, b)

    @pytest.mark.parametrize(
        "box",
        [(0, 0, 9, 9), (630, 0, 640, 9), (0, 470, 9, 480), (630, 470, 640, 480), (0, 0, 640, 480)],
    )
    def test_a_name_lies_in_the_image(self, box: tuple[float, float, float, float]) -> None:
        x1, y1, x2, y2 = _place(box, 2, (80, 20), self.SIZE, [])
        assert 0 <= x1 < x2 <= 640
        assert 0 <= y1 < y2 <= 480
        assert (x2 - x1, y2 - y1) == (80, 20)


def test_the_colours_of_many_classes_differ() -> None:
    colors = [np.array(color(k)) for k in range(40)]
    # Largest difference in a channel; one below 20 can hardly be seen.
    assert min(np.abs(a - b).max() for a, b in itertools.combinations(colors, 2)) >= 20


@pytest.mark.parametrize(
    ("background", "letters"),
    [((255, 255, 0), BLACK), ((0, 0, 160), WHITE), (WHITE, BLACK), (BLACK, WHITE)],
)
def test_letters_stand_out(background: tuple[int, int, int], letters: tuple[int, int, int]) -> None:
    assert readable_on(background) == letters


def test_letters_stand_out_by_3_to_1_on_every_class() -> None:
    """The least that WCAG 2.1 asks of graphics and large letters: (l1 + 0.05) / (l2 + 0.05)."""
    for k in range(80):
        light = [0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in (
            [(value / 255) ** 2.2 for value in c] for c in (color(k), readable_on(color(k)))
        )]  # fmt: skip
        assert (max(light) + 0.05) / (min(light) + 0.05) >= 3, k


def test_a_caption_is_cut_to_the_image_which_is_below_it() -> None:
    image = captioned(Image.fromarray(GREY), "a" * 200)
    assert image.size == (80, 80)
    assert np.array_equal(pixels(image)[20:], GREY)
    assert (pixels(image)[:20] != PAPER).any()


def test_a_grid_has_each_image_in_its_cell() -> None:
    small = Image.new("RGB", (10, 30), (1, 2, 3))
    image = grid([Image.fromarray(GREY), small, small], columns=2, gap=4)
    assert image.size == (2 * 84 + 4, 2 * 64 + 4)
    assert np.array_equal(pixels(image)[4:64, 4:84], GREY)
    assert where(image, (1, 2, 3)).sum() == 2 * 300
    assert where(image, (1, 2, 3))[4:34, 88:98].all()
    assert where(image, (1, 2, 3))[68:98, 4:14].all()
