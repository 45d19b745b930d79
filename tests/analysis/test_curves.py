"""Precision, recall and AP: pycocotools' own, also where it has no number of its own."""

from __future__ import annotations

import numpy as np
import pytest

from detector.analysis import curves
from detector.analysis.matching import COCO_THRESHOLDS, match, overlapping
from detector.analysis.packing import pack
from detector.evaluation import coco
from detector.evaluation.evaluators import get_evaluator
from tests.evaluation.cases import make_truth, random_case


@pytest.mark.parametrize("seed", range(6))
def test_curves_equal_those_of_pycocotools(seed: int) -> None:
    truth, rows = random_case(seed, [1, 2, 5])
    numbered = [
        {**row, "id": i + 1, "iscrowd": 0, "area": row["bbox"][2] * row["bbox"][3]}
        for i, row in enumerate(rows)
    ]
    scoring = get_evaluator("pycocotools").run(truth, {**truth, "annotations": numbered})
    packed = pack(truth, rows)
    pairs = overlapping(packed)
    parts = [curves.draw_matching(packed, match(packed, COCO_THRESHOLDS, pairs=pairs))]
    parts += curves.by_size(packed, pairs).values()
    for area, part in enumerate(parts):
        for name in ("precision", "scores"):
            expected = scoring.eval[name][:, :, :, area, -1].transpose(2, 0, 1)
            assert np.array_equal(np.nan_to_num(getattr(part, name), nan=-1), expected), name
        expected = scoring.eval["recall"][:, :, area, -1].T
        assert np.array_equal(np.nan_to_num(part.recall, nan=-1), expected)


@pytest.mark.parametrize("seed", range(3))
def test_ap_by_crowding_is_that_of_the_images_alone(seed: int) -> None:
    truth, rows = random_case(seed, [1, 2, 5])
    packed = pack(truth, rows)
    groups = curves.by_crowding(packed, match(packed, COCO_THRESHOLDS), least=(1, 2, 4))
    assert list(groups) == ["1", "2-3", "4+"]
    single = [row["image_id"] for row in truth["annotations"] if not row["iscrowd"]]
    counts = {row["id"]: single.count(row["id"]) for row in truth["images"]}
    bounds = {"1": (1, 2), "2-3": (2, 4), "4+": (4, 99)}
    for name, (images, part) in groups.items():
        low, high = bounds[name]
        mine = [image for image, count in counts.items() if low <= count < high]
        alone = {key: [r for r in truth[key] if r["image_id"] in mine] for key in ("annotations",)}
        alone |= {"images": [r for r in truth["images"] if r["id"] in mine]}
        alone |= {"categories": truth["categories"]}
        expected = coco.evaluate(alone, [row for row in rows if row["image_id"] in mine])
        assert images == len(mine) > 0
        # A mean over classes of means rounds otherwise than one mean over everything.
        assert curves.mean(part.ap()) == pytest.approx(expected["AP"], abs=1e-12)
        assert curves.mean(part.ar()) == pytest.approx(expected["AR100"], abs=1e-12)


def test_a_curve_worked_by_hand() -> None:
    """Right, wrong, right, of three objects: recalls 1/3 and 2/3 at precision 1 and 2/3."""
    drawn = curves.draw(
        np.zeros(3, dtype=int),
        np.array([0.9, 0.8, 0.7]),
        np.array([[True, False, True]]),
        np.zeros((1, 3), dtype=bool),
        np.array([3]),
    )
    expected = np.zeros(101)
    expected[:34], expected[34:67] = 1.0, 2 / 3
    # The evaluator divides by a sum that is greater by 2e-16.
    assert drawn.precision[0, 0] == pytest.approx(expected, abs=1e-15)
    assert drawn.scores[0, 0, [0, 33, 34, 66, 67]].tolist() == [0.9, 0.9, 0.7, 0.7, 0.0]
    assert drawn.recall.tolist() == [[2 / 3]]
    assert drawn.ap()[0] == pytest.approx((34 + 33 * 2 / 3) / 101, abs=1e-15)


def test_ignored_detections_change_nothing() -> None:
    rng = np.random.default_rng(0)
    scores, hits = rng.random(20), rng.random((2, 20)) < 0.5
    labels, ignored = np.zeros(20, dtype=int), np.tile(rng.random(20) < 0.4, (2, 1))
    keep = ~ignored[0]
    whole = curves.draw(labels, scores, hits, ignored, np.array([15]))
    part = curves.draw(labels[keep], scores[keep], hits[:, keep], ignored[:, keep], np.array([15]))
    assert np.array_equal(whole.precision, part.precision)
    assert np.array_equal(whole.recall, part.recall)


def test_a_class_without_objects_has_no_curve_and_one_without_detections_a_flat_one() -> None:
    truth = make_truth({1: [(2, [0.0, 0.0, 40.0, 40.0])]}, [1, 2])
    packed = pack(truth, [])
    drawn = curves.draw_matching(packed, match(packed, [0.5]))
    assert np.isnan(drawn.ap()).tolist() == [True, False]
    assert (drawn.ap()[1], drawn.ar()[1]) == (0, 0)
    assert curves.mean(drawn.ap()) == 0
    assert curves.mean(np.array([np.nan])) is None
    assert list(curves.points(drawn, packed.classes)) == ["class 2"]
