"""Matches equal pycocotools' own, except that boxes which do not touch never match."""

from __future__ import annotations

import contextlib
import copy
import io
from typing import Any

import numpy as np
import pytest
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.analysis.matching import (
    AREAS,
    COCO_THRESHOLDS,
    EVERY_AREA,
    match,
    outcomes,
    overlapping,
    overlaps,
)
from detector.analysis.packing import Packed, pack
from tests.evaluation.cases import Row, Truth, make_truth, perfect, random_case

RANGES = [EVERY_AREA, *AREAS.values()]


def tied_case(seed: int) -> tuple[Truth, list[Row]]:
    """Boxes on a coarse grid: equal boxes, equal IoUs, equal scores, crowds, many per image."""
    rng = np.random.default_rng(seed)

    def boxes(number: int) -> list[tuple[int, list[float]]]:
        table = np.concatenate(
            [rng.integers(0, 4, (number, 2)) * 20, rng.integers(1, 4, (number, 2)) * 20], 1
        )
        return [(int(rng.integers(1, 4)), box) for box in table.astype(float).tolist()]

    truth = make_truth({image: boxes(rng.integers(0, 9)) for image in range(1, 9)}, [1, 2, 3])
    for row in truth["annotations"]:
        row["iscrowd"] = int(rng.random() < 0.2)
    rows = [
        {"image_id": image, "category_id": c, "bbox": box, "score": int(rng.integers(0, 6)) / 5}
        for image in range(1, 9)
        for c, box in boxes(rng.integers(0, 30))
    ]
    return truth, rows


def pycocotools(
    truth: Truth, rows: list[Row], thresholds: list[float], limit: int = 100
) -> dict[tuple[int, int], list[tuple[Any, ...]]]:
    """{(area range, detection's row): per threshold (annotation id or 0, ignored)}."""
    data, found = COCO(), COCO()
    data.dataset = copy.deepcopy(truth)
    found.dataset = {**copy.deepcopy(truth), "annotations": []}
    for i, row in enumerate(rows):
        area = row["bbox"][2] * row["bbox"][3]
        found.dataset["annotations"].append({**row, "id": i + 1, "area": area, "iscrowd": 0})
    with contextlib.redirect_stdout(io.StringIO()):
        data.createIndex()
        found.createIndex()
        scoring = COCOeval(data, found, "bbox")
        scoring.params.iouThrs = np.array(thresholds)
        scoring.params.areaRng = [list(area) for area in RANGES]
        scoring.params.maxDets = [limit]
        scoring.evaluate()
    result = {}
    for image in scoring.evalImgs:
        if image is not None:
            area = RANGES.index(tuple(image["aRng"]))
            for i, detection in enumerate(image["dtIds"]):
                pairs = zip(image["dtMatches"][:, i], image["dtIgnore"][:, i], strict=True)
                result[area, detection - 1] = [(int(m), bool(ignored)) for m, ignored in pairs]
    return result


def ours(packed: Packed, thresholds: list[float]) -> dict[tuple[int, int], list[tuple[Any, ...]]]:
    ids = np.append(packed.objects.rows + 1, 0)
    result = {}
    for area, limits in enumerate(RANGES):
        matching = match(packed, thresholds, area=limits)
        for i, row in enumerate(packed.found.rows):
            pairs = zip(ids[matching.objects[:, i]], matching.ignored[:, i], strict=True)
            result[area, int(row)] = [(int(m), bool(ignored)) for m, ignored in pairs]
    return result


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("make", ["tied", "random"])
def test_matches_equal_those_of_pycocotools_for_every_size(make: str, seed: int) -> None:
    case = tied_case(seed) if make == "tied" else random_case(seed, [1, 2, 5])
    thresholds = [1e-9, 0.1, 1 / 3, *COCO_THRESHOLDS, 1.0]
    expected = pycocotools(*case, thresholds)
    assert ours(pack(*case), thresholds) == expected
    matched = [pair for pairs in expected.values() for pair in pairs]
    assert {bool(m) for m, _ in matched} == {ignored for _, ignored in matched} == {True, False}


def test_matches_equal_those_of_pycocotools_where_detections_are_cut_off() -> None:
    truth, rows = tied_case(0)
    expected = pycocotools(truth, rows, [0.5], limit=2)
    assert ours(pack(truth, rows, max_detections=2), [0.5]) == expected
    assert len(expected) < len(RANGES) * len(rows)


def test_overlaps_equal_those_of_pycocotools_to_the_last_digit() -> None:
    rng = np.random.default_rng(0)
    found, objects = rng.uniform(0, 50, (2, 300, 4))
    found[:3] = [[0, 0, 0, 5], [0, 0, 10, 10], [3, 3, 0, 0]]
    objects[:3] = [[0, 0, 10, 10], [10, 0, 10, 10], [3, 3, 0, 0]]
    crowd = rng.random(300) < 0.3
    expected = [
        mask.iou([f], [o], [int(c)])[0, 0] for f, o, c in zip(found, objects, crowd, strict=True)
    ]
    values = overlaps(found, objects, crowd)
    assert values.tolist() == expected
    assert values[:3].tolist() == [0, 0, 0]


def test_a_detection_beside_an_object_does_not_take_it_at_a_threshold_of_zero() -> None:
    truth = make_truth({1: [(1, [0.0, 0.0, 40.0, 40.0])]}, [1])
    beside = dict(perfect(truth)[0], bbox=[100.0, 100.0, 40.0, 40.0], score=0.95)
    rows = [beside, perfect(truth, 0.9)[0]]
    # pycocotools gives the object to the first: its test lets an IoU of 0 pass.
    assert pycocotools(truth, rows, [0.0])[0, 0] == [(1, False)]
    matching = match(pack(truth, rows), [0.0])
    assert matching.objects.tolist() == [[-1, 0]]
    assert matching.ious.tolist() == [[0.0, 1.0]]


def test_only_pairs_of_one_image_and_class_that_overlap_are_listed() -> None:
    box = [0.0, 0.0, 10.0, 10.0]
    truth = make_truth({1: [(1, box), (2, box)], 2: [(1, [10.0, 0.0, 5.0, 5.0])]}, [1, 2])
    rows = [
        {"image_id": 1, "category_id": 2, "bbox": [0.0, 0.0, 10.0, 5.0], "score": 0.5},
        {"image_id": 2, "category_id": 1, "bbox": box, "score": 0.5},
    ]
    packed = pack(truth, rows)
    pairs = overlapping(packed)
    assert (pairs.found.tolist(), pairs.objects.tolist()) == ([0], [1])
    assert pairs.ious.tolist() == [0.5]
    assert overlapping(packed, same_class=False).objects.tolist() == [0, 1]
    assert len(overlapping(packed, above=0.5).ious) == 0


def test_without_detections_or_objects_nothing_is_matched() -> None:
    truth = make_truth({1: [(1, [0.0, 0.0, 40.0, 40.0])]}, [1])
    assert match(pack(truth, []), [0.5]).objects.shape == (1, 0)
    empty = make_truth({1: []}, [1])
    assert match(pack(empty, perfect(truth)), [0.5]).objects.tolist() == [[-1]]


def test_outcomes_leave_out_crowds_and_what_was_found_on_them() -> None:
    truth = make_truth({1: [(1, [0.0, 0, 40, 40]), (1, [100.0, 100, 80, 80])], 2: []}, [1])
    truth["annotations"][1]["iscrowd"] = 1
    hit = dict(perfect(truth)[0], bbox=[0.0, 0.0, 40.0, 30.0], score=0.6)
    on_crowd = dict(hit, bbox=[110.0, 110.0, 20.0, 20.0], score=0.9)
    elsewhere = dict(hit, image_id=2, score=0.8)
    packed = pack(truth, [on_crowd, hit, elsewhere])
    found = outcomes(packed, match(packed, [0.5]))
    assert found.scores.tolist() == [0.6, 0.8]
    assert found.images.tolist() == [0, 1]
    assert found.hits.tolist() == [True, False]
    assert found.ious.tolist() == [0.75, 0.0]
    assert found.count_objects().tolist() == [1]
    assert found.object_found.tolist() == [0]


def test_leaving_out_low_scores_equals_matching_what_is_left() -> None:
    truth, rows = tied_case(3)
    packed = pack(truth, rows)
    whole = outcomes(packed, match(packed, [0.5]))
    part = whole.select(whole.scores >= 0.6)
    left = pack(truth, [row for row in rows if row["score"] >= 0.6])
    expected = outcomes(left, match(left, [0.5]))
    for name in ("scores", "labels", "images", "hits", "ious", "object_found", "object_images"):
        assert getattr(part, name).tolist() == getattr(expected, name).tolist(), name
    assert (part.object_found < 0).sum() > (whole.object_found < 0).sum()


def test_outcomes_on_some_images_equal_those_of_these_images_alone() -> None:
    truth, rows = tied_case(4)
    packed = pack(truth, rows)
    chosen = np.isin(packed.image_ids, [2, 5, 8])
    part = outcomes(packed, match(packed, [0.5])).on_images(chosen)
    alone = {
        **truth,
        "images": [row for row in truth["images"] if row["id"] in (2, 5, 8)],
        "annotations": [row for row in truth["annotations"] if row["image_id"] in (2, 5, 8)],
    }
    left = pack(alone, [row for row in rows if row["image_id"] in (2, 5, 8)])
    expected = outcomes(left, match(left, [0.5]))
    assert part.num_images == expected.num_images == 3
    for name in ("scores", "images", "hits", "object_found", "object_images", "object_labels"):
        assert getattr(part, name).tolist() == getattr(expected, name).tolist(), name
