"""Ground truth and detections in COCO's form."""

from __future__ import annotations

from typing import Any

import numpy as np

from detector.evaluation import coco

Row = dict[str, Any]
Truth = dict[str, list[dict[str, Any]]]

TWO = {1: [(1, [10.0, 10.0, 30.0, 40.0])], 2: [(2, [50.0, 60.0, 20.0, 20.0])]}


def make_truth(boxes: dict[int, list[tuple[int, list[float]]]], categories: list[int]) -> Truth:
    """{image id: [(category id, xywh)]} as a COCO dict."""
    rows = [(image, c, box) for image, objects in boxes.items() for c, box in objects]
    return {
        "images": [{"id": image, "height": 200, "width": 200} for image in boxes],
        "categories": [{"id": c, "name": f"class {c}"} for c in categories],
        "annotations": [
            {
                "id": i + 1,
                "image_id": image,
                "category_id": category,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
            for i, (image, category, box) in enumerate(rows)
        ],
    }


def perfect(truth: Truth, score: float = 0.9) -> list[dict[str, Any]]:
    keys = ("image_id", "category_id", "bbox")
    return [{key: row[key] for key in keys} | {"score": score} for row in truth["annotations"]]


def random_case(
    seed: int, categories: list[int], num_images: int = 30
) -> tuple[Truth, list[dict[str, Any]]]:
    """Images with crowds, all sizes, a class without objects and many equal scores."""
    rng = np.random.default_rng(seed)
    boxes: dict[int, list[tuple[int, list[float]]]] = {}
    for image in range(1, num_images + 1):
        count = int(rng.integers(0, 6))
        sides = rng.choice([12.0, 50.0, 110.0], size=(count, 1)) * rng.uniform(0.8, 1.2, (count, 2))
        table = np.concatenate([rng.uniform(0, 80, (count, 2)), sides], 1)
        # The last category has no object at all.
        boxes[image] = [(int(rng.choice(categories[:-1])), box.tolist()) for box in table]
    truth = make_truth(boxes, categories)
    for row in truth["annotations"]:
        row["iscrowd"] = int(rng.random() < 0.15)
    rows = []
    for row in truth["annotations"] * 2:
        if rng.random() < 0.7:
            box = (np.array(row["bbox"]) * rng.uniform(0.85, 1.15, 4)).tolist()
            category = row["category_id"] if rng.random() < 0.85 else int(rng.choice(categories))
            score = round(float(rng.random()), 1)
            rows.append(
                {"image_id": row["image_id"], "category_id": category, "bbox": box, "score": score}
            )
    return truth, coco.sort_results(rows)
