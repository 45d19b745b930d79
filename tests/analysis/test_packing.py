"""COCO dicts as arrays: the order, the limit, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from detector.analysis.packing import pack, pairs_of, ranks
from detector.errors import DataError
from tests.evaluation.cases import TWO, Row, make_truth, perfect


def found_at(image: int, category: int, score: float, place: float = 0.0) -> Row:
    return {
        "image_id": image,
        "category_id": category,
        "bbox": [place, 0.0, 10.0, 20.0],
        "score": score,
    }


def test_detections_lie_by_image_class_and_falling_score_equal_ones_as_given() -> None:
    truth = make_truth({7: [], 3: [(90, [1.0, 2.0, 3.0, 4.0])]}, [90, 4])
    rows = [
        found_at(7, 90, 0.5, 1),
        found_at(3, 90, 0.2, 2),
        found_at(7, 4, 0.1, 3),
        found_at(7, 90, 0.9, 4),
        found_at(7, 90, 0.5, 5),
    ]
    packed = pack(truth, rows)
    assert packed.image_ids.tolist() == [3, 7]
    assert (packed.classes, packed.category_ids.tolist()) == (("class 4", "class 90"), [4, 90])
    assert packed.found.rows.tolist() == [1, 2, 3, 0, 4]
    assert packed.found.images.tolist() == [0, 1, 1, 1, 1]
    assert packed.found.labels.tolist() == [1, 0, 1, 1, 1]
    assert packed.found.boxes[:, 0].tolist() == [2, 3, 4, 1, 5]
    assert packed.found.areas.tolist() == [200.0] * 5
    assert packed.objects.boxes.tolist() == [[1, 2, 3, 4]]


def test_of_an_image_and_class_only_the_best_scores_are_kept() -> None:
    truth = make_truth(TWO, [1, 2])
    rows = [found_at(1, 1, 0.1), found_at(1, 1, 0.3), found_at(1, 1, 0.3), found_at(1, 2, 0.05)]
    packed = pack(truth, rows, max_detections=2)
    assert packed.found.rows.tolist() == [1, 2, 3]


def test_an_object_without_area_has_that_of_its_box() -> None:
    truth = make_truth(TWO, [1, 2])
    del truth["annotations"][0]["area"]
    truth["annotations"][1]["area"] = 7.0
    del truth["annotations"][1]["iscrowd"]
    packed = pack(truth, [])
    assert packed.objects.areas.tolist() == [1200.0, 7.0]
    assert packed.objects.crowd.tolist() == [False, False]
    assert len(packed.found) == 0


def test_crowds_are_not_counted_as_objects_of_an_image() -> None:
    truth = make_truth({1: [(1, [0.0, 0, 5, 5])] * 3, 2: []}, [1])
    truth["annotations"][1]["iscrowd"] = 1
    assert pack(truth, []).count_objects().tolist() == [2, 0]


def test_what_the_evaluator_refuses_is_refused() -> None:
    truth = make_truth(TWO, [1, 2])
    with pytest.raises(DataError, match=r"detections\[0\]: image_id 8 is none of the 2 images"):
        pack(truth, [found_at(8, 1, 0.5)])
    with pytest.raises(DataError, match=r"detections\[1\] \(image 1\): score nan"):
        pack(truth, [*perfect(truth)[:1], found_at(1, 1, float("nan"))])


def test_ranks_count_equal_keys_before() -> None:
    assert ranks(np.array([0, 0, 3, 3, 3, 9])).tolist() == [0, 1, 0, 1, 2, 0]
    assert ranks(np.array([], dtype=int)).tolist() == []


@pytest.mark.parametrize("at_most", [1, 3, 1000])
def test_pairs_are_all_of_one_key_whatever_the_portion(at_most: int) -> None:
    rng = np.random.default_rng(0)
    found, objects = np.sort(rng.integers(0, 9, 40)), np.sort(rng.integers(0, 9, 20))
    expected = [(f, o) for f in range(40) for o in range(20) if found[f] == objects[o]]
    portions = list(pairs_of(found, objects, at_most=at_most))
    assert [pair for f, o in portions for pair in zip(f, o, strict=True)] == expected
    # A portion ends with the detection that fills it: 20 objects at the most.
    assert max(len(f) for f, _ in portions) < at_most + 20
    assert [len(f) for f, _ in pairs_of(found[:0], objects)] == [0]
