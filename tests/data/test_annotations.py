from __future__ import annotations

import math
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from detector.data.annotations import Annotations, Rows, inside, pack
from detector.data.handling import Handling, OnInvalid
from detector.errors import DataError
from tests.data.files import make_dataset

CATEGORIES = {5: "five", 2: "two"}


def rows(boxes: list[tuple[float, float, float, float]]) -> Rows:
    """Image 20 (30 x 40 px) with all boxes but the last, image 10 with the last."""
    n = len(boxes)
    return Rows(
        image_ids=[20, 10],
        file_names=["b.png", "a.png"],
        sizes=[(30, 40), (30, 40)],
        owners=[0] * (n - 1) + [1],
        xywh=boxes,
        labels=[5] * (n - 1) + [2],
        crowd=[False] * n,
        areas=[1.0] * n,
        ids=list(range(100, 100 + n)),
    )


def packed(
    boxes: list[tuple[float, float, float, float]], on_invalid: OnInvalid = "error"
) -> Annotations:
    handling = Handling(on_invalid=on_invalid)
    return pack(rows(boxes), source="set.json", categories=CATEGORIES, handling=handling)


GOOD = [(1.0, 2.0, 3.0, 4.0), (5.0, 6.0, 7.5, 8.0), (0.0, 0.0, 40.0, 30.0)]


def test_images_are_sorted_by_id_and_keep_their_objects() -> None:
    a = packed(GOOD)
    assert a.image_ids.tolist() == [10, 20]
    assert [a.file_name(i) for i in range(2)] == ["a.png", "b.png"]
    assert a.starts.tolist() == [0, 1, 3]
    assert a.ids.tolist() == [102, 100, 101]
    assert a.boxes(1).tolist() == [[1, 2, 4, 6], [5, 6, 12.5, 14]]
    assert a.boxes(1).dtype == np.float32


def test_objects_follow_their_image_whatever_the_order_of_the_file() -> None:
    """Three images in a cycle: what sorts it and what undoes that are not the same."""
    ids = [20, 30, 10, 40, 50]
    cycle = Rows(ids, [str(i) for i in ids], [(9, 9)] * 5, [3, 0, 2, 3, 4, 1])
    cycle.xywh = [(float(owner), 0.0, 1.0, 1.0) for owner in cycle.owners]
    cycle.labels, cycle.crowd, cycle.areas = [2, 5, 2, 5, 2, 5], [False, True] * 3, [1.0] * 6
    cycle.ids = [ids[owner] for owner in cycle.owners]
    a = pack(cycle, source="", categories=CATEGORIES)
    assert a.image_ids.tolist() == [10, 20, 30, 40, 50]
    for index, image_id in enumerate(a.image_ids):
        assert a.ids[a.objects(index)].tolist() == [image_id] * (2 if image_id == 40 else 1)
    assert a.xywh[:, 0].tolist() == [2, 0, 1, 3, 3, 4]
    assert a.labels.tolist() == [0, 1, 1, 0, 1, 0]
    assert a.crowd.tolist() == [False, True, True, False, True, False]


def test_classes_are_numbered_by_their_sorted_ids() -> None:
    a = packed(GOOD)
    assert (a.category_ids, a.classes) == ((2, 5), ("two", "five"))
    assert a.labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ((1.0, 2.0, 0.0, 4.0), "no area"),
        ((1.0, 2.0, 3.0, -4.0), "no area"),
        ((30.0, 2.0, 1e-9, 4.0), "no area"),
        ((math.nan, 2.0, 3.0, 4.0), "not finite"),
        ((1.0, 2.0, math.inf, 4.0), "not finite"),
        ((1e308, 2.0, 1e308, 4.0), "not finite"),
        ((40.0, 2.0, 3.0, 4.0), "inside its image"),
        ((-9.0, 2.0, 11.0, 4.0), "inside its image"),
    ],
)
def test_an_invalid_box_is_named_with_file_image_and_annotation(box: Any, words: str) -> None:
    with pytest.raises(DataError) as caught:
        packed([*GOOD[:1], box, *GOOD[1:]])
    message = str(caught.value)
    assert "\n" not in message
    for part in ("set.json", "b.png", "id 20", "annotation 101", words):
        assert part in message


def test_all_invalid_boxes_are_listed_at_once() -> None:
    boxes = [(1.0, 1.0, 2.0, 2.0)] * 1000
    for i in (3, 500, 999):
        boxes[i] = (1.0, 1.0, 0.0, 2.0)
    with pytest.raises(DataError) as caught:
        packed(boxes)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("set.json: 3 objects of 1000 cannot be used; data.on_invalid=drop")
    assert len(lines) == 6  # and for each of three kinds its name
    assert all(any(f"annotation {i}:" in line for line in lines) for i in (103, 600, 1099))


def test_dropping_gives_what_the_cleaned_file_gives_and_names_what_it_dropped() -> None:
    bad = (3.0, 3.0, math.nan, 2.0)
    dropped = packed([*GOOD[:2], bad, GOOD[2]], "drop")
    clean = rows(GOOD)
    clean.ids = [100, 101, 103]
    expected = pack(clean, source="set.json", categories=CATEGORIES)
    assert dropped.fingerprint == expected.fingerprint
    assert len(dropped.dropped) == 1
    assert "b.png" in dropped.dropped[0]
    assert any("annotation 102" in line for line in dropped.summary())


def test_a_box_one_pixel_outside_is_kept_as_stated_and_counted() -> None:
    a = packed([*GOOD[:2], (-1.0, 0.0, 10.0, 10.0)])
    assert a.xywh[0].tolist() == [-1, 0, 10, 10]
    assert "1 boxes leave their image and are clipped" in a.summary()
    assert not any("leave" in line for line in packed(GOOD).summary())


def test_inside_is_the_share_of_the_box_that_the_image_has() -> None:
    boxes = np.array([[-5.0, 0, 10, 10], [35, 25, 10, 10], [50, 0, 5, 5], [0, 0, 40, 30]])
    sizes = np.array([[30, 40]] * 4, np.int32)
    assert inside(boxes, sizes).tolist() == [0.5, 0.25, 0.0, 1.0]


def test_images_without_objects_are_kept_and_counted() -> None:
    a = make_dataset([(8, 8)] * 4, [0, 2, 0, 3]).annotations
    assert len(a) == 4
    assert a.boxes(0).shape == (0, 4)
    assert "4 images, 5 objects" in a.summary()[0]
    assert "1 of them crowds" in a.summary()[0]
    assert "2 images without objects" in a.summary()[0]


def test_a_set_without_any_object_is_legal() -> None:
    a = make_dataset([(8, 8)], [0]).annotations
    assert a.starts.tolist() == [0, 0]
    assert a.summary()


def test_a_set_without_images_is_refused() -> None:
    with pytest.raises(DataError, match=r"set\.json: no images"):
        pack(Rows(), source="set.json", categories=CATEGORIES)


def test_a_selection_has_the_objects_of_its_images() -> None:
    whole = make_dataset([(9, 9)] * 4, [1, 0, 3, 2]).annotations
    part = whole.select([3, 1, 2])
    assert part.image_ids.tolist() == [103, 101, 102]
    assert part.starts.tolist() == [0, 2, 2, 5]
    for new, old in enumerate([3, 1, 2]):
        assert part.ids[part.objects(new)].tolist() == whole.ids[whole.objects(old)].tolist()


def test_the_fingerprint_tells_any_difference() -> None:
    a = make_dataset([(9, 9)] * 2, [1, 2]).annotations
    same = make_dataset([(9, 9)] * 2, [1, 2]).annotations
    assert a.fingerprint == same.fingerprint
    moved = a.xywh.copy()
    moved[0, 0] = np.nextafter(moved[0, 0], 1)
    for changed in (
        replace(a, xywh=moved),
        replace(a, classes=("one", "two", "third")),
        replace(a, category_ids=(1, 2, 4)),
        replace(a, crowd=~a.crowd),
        a.select([1, 0]),
    ):
        assert changed.fingerprint != a.fingerprint


def test_objects_are_packed_so_that_workers_share_them() -> None:
    """A few arrays, whatever the number of images: pickled, far below 1 kB an image."""
    a = make_dataset([(9, 9)] * 500, [3] * 500).annotations
    assert len(pickle.dumps(a)) < 500 * 300


def test_half_a_letter_in_a_class_name_is_refused() -> None:
    with pytest.raises(DataError, match=r"set\.json: class name 'a\\ud800' is not valid text"):
        pack(rows(GOOD), source="set.json", categories={2: "a\ud800", 5: "b"})
