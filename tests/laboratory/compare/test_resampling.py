"""AP of images drawn anew, against COCO's evaluator on a set in which they do stand so often."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from detector.analysis.packing import pack
from detector.evaluation import coco
from detector.laboratory.compare.resampling import Resampled

Rows = list[dict[str, Any]]


def made_up(seed: int, *, crowds: bool = False) -> tuple[dict[str, Rows], Rows]:
    """Twelve images of two classes: objects, detections near them, and false ones."""
    rng = np.random.default_rng(seed)
    images = [{"id": i, "width": 100, "height": 100} for i in range(12)]
    objects: Rows = []
    found: Rows = []
    for image in range(12):
        for _ in range(int(rng.integers(0, 4))):
            box = [*rng.uniform(0, 60, 2), *rng.uniform(10, 35, 2)]
            category = int(rng.integers(1, 3))
            is_crowd = int(crowds and rng.random() < 0.3)
            objects.append(
                {
                    "id": len(objects) + 1,
                    "image_id": image,
                    "category_id": category,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": is_crowd,
                }
            )
            near = (np.array(box) + rng.normal(0, 2.5, 4)).tolist()
            found.append(detection(image, category, near, rng))
        false = [*rng.uniform(0, 60, 2), *rng.uniform(10, 35, 2)]
        found.append(detection(image, int(rng.integers(1, 3)), false, rng))
    categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    return {"images": images, "annotations": objects, "categories": categories}, found


def detection(image: int, category: int, box: list[float], rng: np.random.Generator) -> Any:
    score = float(rng.random())
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


def repeated(
    truth: dict[str, Rows], found: Rows, weights: list[int]
) -> tuple[dict[str, Rows], Rows]:
    """The set in which each image stands as often as its weight says, under an id of its own."""
    images: Rows = []
    objects: Rows = []
    rows: Rows = []
    for image, weight in enumerate(weights):
        for _ in range(weight):
            new = len(images)
            images.append({**truth["images"][image], "id": new})
            mine = [o for o in truth["annotations"] if o["image_id"] == image]
            objects += [
                {**o, "image_id": new, "id": len(objects) + i + 1} for i, o in enumerate(mine)
            ]
            rows += [{**d, "image_id": new} for d in copy.deepcopy(found) if d["image_id"] == image]
    return {**truth, "images": images, "annotations": objects}, rows


@pytest.mark.parametrize("crowds", [False, True])
def test_with_every_image_once_it_is_cocos_ap(crowds: bool) -> None:
    truth, found = made_up(0, crowds=crowds)
    ap = Resampled.of(pack(truth, found)).ap(np.ones((1, 12)))
    # 1e-12: sums of doubles in another order.
    assert ap[0] == pytest.approx(coco.evaluate(truth, found)["AP"], abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("crowds", [False, True])
def test_a_drawn_image_counts_as_often_as_it_was_drawn(seed: int, crowds: bool) -> None:
    truth, found = made_up(seed, crowds=crowds)
    weights = np.random.default_rng(seed).multinomial(12, np.full(12, 1 / 12), size=3)
    aps = Resampled.of(pack(truth, found)).ap(weights.astype(np.float64))
    for ap, row in zip(aps, weights.tolist(), strict=True):
        expected = coco.evaluate(*repeated(truth, found, row))["AP"]
        # Copies of an image tie in score, and COCO takes precision between two of them as well:
        # the best at a recall is never before the last copy, so only recalls between differ.
        assert ap == pytest.approx(expected, abs=0.02)


def test_a_draw_without_any_object_has_no_ap() -> None:
    truth, found = made_up(0)
    with_objects = {row["image_id"] for row in truth["annotations"]}
    empty = next(i for i in range(12) if i not in with_objects)
    weights = np.zeros((1, 12))
    weights[0, empty] = 12
    assert np.isnan(Resampled.of(pack(truth, found)).ap(weights)[0])


def test_without_any_detection_it_is_0() -> None:
    truth, _ = made_up(0)
    assert Resampled.of(pack(truth, [])).ap(np.ones((2, 12))).tolist() == [0.0, 0.0]


def test_by_hand() -> None:
    """Two images, an object each, found in the first alone: precision 1 up to recall 1/2."""
    box = [10.0, 10.0, 20.0, 20.0]
    truth: dict[str, Rows] = {
        "images": [{"id": i, "width": 50, "height": 50} for i in (0, 1)],
        "annotations": [
            {"id": i + 1, "image_id": i, "category_id": 1, "bbox": box, "area": 400, "iscrowd": 0}
            for i in (0, 1)
        ],
        "categories": [{"id": 1, "name": "a"}],
    }
    found = [{"image_id": 0, "category_id": 1, "bbox": box, "score": 0.9}]
    weights = np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 2.0], [3.0, 1.0]])
    # Of 101 recalls those from 0 to the share of the objects found: 51, 101, 1 (recall 0), 76.
    # In the third draw the image with the detection is not there, so not even recall 0 has one.
    expected = [51 / 101, 1.0, 0.0, 76 / 101]
    assert Resampled.of(pack(truth, found)).ap(weights).tolist() == pytest.approx(expected)
