"""COCO's metrics: numpy arrays and dicts in, numbers and a table out.

pycocotools is the reference; this wrapper closes what it leaves open. It reads annotation id 0 as
"not matched" and keeps one of two annotations with the same id, so ids are renumbered from 1; it
breaks without detections; it takes nan for a score, ignores unknown categories and keeps one of two
images with the same id, all of which are errors here; and it leaves the order of equal scores to
the caller (`sort_results`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from detector.data.annotations import Annotations
from detector.errors import DataError
from detector.evaluation.evaluators import get_evaluator

Row = dict[str, Any]


class Metric(NamedTuple):
    """What one of COCO's twelve numbers measures."""

    name: str
    iou: str
    area: str
    max_detections: int


MAX_DETECTIONS = 100
"""Of an image and class, in COCO's own score."""

METRICS = (
    Metric("AP", "0.50:0.95", "all", 100),
    Metric("AP50", "0.50", "all", 100),
    Metric("AP75", "0.75", "all", 100),
    Metric("APs", "0.50:0.95", "small", 100),
    Metric("APm", "0.50:0.95", "medium", 100),
    Metric("APl", "0.50:0.95", "large", 100),
    Metric("AR1", "0.50:0.95", "all", 1),
    Metric("AR10", "0.50:0.95", "all", 10),
    Metric("AR100", "0.50:0.95", "all", 100),
    Metric("ARs", "0.50:0.95", "small", 100),
    Metric("ARm", "0.50:0.95", "medium", 100),
    Metric("ARl", "0.50:0.95", "large", 100),
)
"""In the order of `COCOeval.stats`. Small is below 32^2 square pixels, large from 96^2."""


def ground_truth(annotations: Annotations) -> dict[str, list[Row]]:
    """A COCO dict: images, categories and annotations, these renumbered from 1.

    Image ids, category ids, boxes, areas and crowds are as in the file, crowds included.
    """
    ids = [int(image_id) for image_id in annotations.image_ids]
    categories = [int(category) for category in annotations.category_ids]
    owners = np.repeat(ids, np.diff(annotations.starts))
    labels = annotations.labels
    return {
        "images": [
            {"id": image_id, "height": int(height), "width": int(width)}
            for image_id, (height, width) in zip(ids, annotations.sizes, strict=True)
        ],
        "categories": [
            {"id": category, "name": str(name)}
            for category, name in zip(categories, annotations.classes, strict=True)
        ],
        "annotations": [
            {
                "id": i + 1,
                "image_id": int(owners[i]),
                "category_id": categories[int(labels[i])],
                "bbox": [float(value) for value in annotations.xywh[i]],
                "area": float(annotations.areas[i]),
                "iscrowd": int(annotations.crowd[i]),
            }
            for i in range(len(labels))
        ],
    }


def results(
    image_id: int,
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    category_ids: Sequence[int],
) -> list[Row]:
    """Rows of COCO's results format for the detections of one image.

    boxes (S, 4) xyxy in pixels of the original file, scores (S,), labels (S,) in [0, K);
    category_ids: the K ids of the file. Values are plain Python numbers, which JSON keeps exactly.
    """
    corners = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    xywh = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    return [
        {
            "image_id": int(image_id),
            "category_id": int(category_ids[int(label)]),
            "bbox": box,
            "score": float(score),
        }
        for box, score, label in zip(xywh.tolist(), scores, labels, strict=True)
    ]


def sort_results(rows: Iterable[Row]) -> list[Row]:
    """Rows by image id, then falling score, then the order given.

    As long as the rows of an image come in one order, the numbers do not depend on which process
    detected what.
    """
    return sorted(rows, key=lambda row: (row["image_id"], -row["score"]))


def evaluate(
    ground_truth: Mapping[str, list[Row]],
    detections: list[Row],
    *,
    evaluator: str = "pycocotools",
    max_detections: int = 100,
) -> dict[str, Any]:
    """COCO's twelve numbers in [0, 1] with `per_class` ({name: AP}), `evaluator` and `images`.

    max_detections: of an image and class that count, the best by score; stated in the result where
    it is not COCO's 100. `AR100` is at that limit then.

    A number is None where there is nothing to find (no object of that size, or of that class, that
    is no crowd): pycocotools' -1. Such classes do not count in the means. No detections are 0.
    Neither argument is changed. The numbers are those of the evaluator called by hand on the
    renumbered ground truth and these detections, to the last digit.

    Raises DataError for ids that are not in the ground truth or are there twice, and for scores
    and boxes that are not finite; ConfigError for an evaluator that is not known or not installed.
    """
    check_ground_truth(ground_truth)
    check_detections(ground_truth, detections)
    backend = get_evaluator(evaluator)
    scoring = backend.run(
        {**ground_truth, "annotations": _renumbered(ground_truth["annotations"])},
        {**ground_truth, "annotations": _renumbered(detections)},
        max_detections,
    )
    numbers = {metric.name: _known(scoring.stats[i]) for i, metric in enumerate(METRICS)}
    limit = {} if max_detections == 100 else {"max_detections": max_detections}
    return {
        **numbers,
        **limit,
        "per_class": _per_class(scoring, ground_truth["categories"]),
        "evaluator": {"name": evaluator, "version": backend.version},
        "images": len(ground_truth["images"]),
    }


def table(metrics: Mapping[str, Any]) -> str:
    """The twelve numbers and the AP of every class as aligned text; "-" where there is none."""
    head = ("", "IoU", "area", "detections", "value")
    limit = metrics.get("max_detections", 100)
    lines = [
        (
            m.name if m.name != "AR100" else f"AR{limit}",
            m.iou,
            m.area,
            str(m.max_detections if m.max_detections < 100 else limit),
            _digits(metrics[m.name]),
        )
        for m in METRICS
    ]
    classes = [(name, _digits(ap)) for name, ap in metrics["per_class"].items()]
    return "\n\n".join([_aligned([head, *lines]), _aligned([("class", "AP"), *classes])])


def beyond_the_limit(
    ground_truth: Mapping[str, list[Row]], max_detections: int, evaluator: str = "pycocotools"
) -> str | None:
    """A warning where images have more objects of a class than detections count: then not even
    perfect detections reach an AP of 1. None where there is none."""
    objects = Counter(
        (row["image_id"], row["category_id"])
        for row in ground_truth["annotations"]
        if not row.get("iscrowd")
    )
    images = {image for (image, _), number in objects.items() if number > max_detections}
    if not images:
        return None
    most = max(objects.values())
    perfect = [
        {key: row[key] for key in ("image_id", "category_id", "bbox")} | {"score": 1.0}
        for row in ground_truth["annotations"]
        if not row.get("iscrowd")
    ]
    best = evaluate(ground_truth, perfect, evaluator=evaluator, max_detections=max_detections)
    return (
        f"{len(images)} images have more than {max_detections} objects of a class: AP can reach "
        f"{best['AP']:.2f} only; evaluation.max_detections={most} counts them all (max_detections="
        f"{most} for tools/evaluate.py)"
    )


def check_ground_truth(ground_truth: Mapping[str, list[Row]]) -> None:
    """Raises DataError for an id listed twice, or an annotation whose image or category is not."""
    for group, key in (("images", "id"), ("categories", "id"), ("categories", "name")):
        seen = set()
        for row in ground_truth[group]:
            if row[key] in seen:
                raise DataError(f"{group}: {key} {row[key]!r} is listed twice")
            seen.add(row[key])
    _check_known(ground_truth, ground_truth["annotations"], "annotations")


def check_detections(ground_truth: Mapping[str, list[Row]], detections: Sequence[Row]) -> None:
    """Raises DataError for unknown ids and for numbers that are not finite."""
    _check_known(ground_truth, detections, "detections")
    for i, row in enumerate(detections):
        if not math.isfinite(row["score"]) or not all(map(math.isfinite, row["bbox"])):
            raise DataError(
                f"detections[{i}] (image {row['image_id']}): score {row['score']} and box "
                f"{row['bbox']} given, finite numbers are needed"
            )


def _check_known(ground_truth: Mapping[str, list[Row]], rows: Sequence[Row], what: str) -> None:
    images = {row["id"] for row in ground_truth["images"]}
    categories = {row["id"] for row in ground_truth["categories"]}
    for i, row in enumerate(rows):
        if row["image_id"] not in images:
            raise DataError(
                f"{what}[{i}]: image_id {row['image_id']} is none of the {len(images)} images"
            )
        if row["category_id"] not in categories:
            raise DataError(
                f"{what}[{i}] (image {row['image_id']}): category_id {row['category_id']} is none "
                f"of the categories; allowed: {', '.join(map(str, sorted(categories)))}"
            )


def _renumbered(rows: Iterable[Row]) -> list[Row]:
    """Copies (evaluators write into what they are given) with ids from 1 and all that is read.

    A detection's area, by which it counts as small or large, is that of its box.
    """
    return [
        {"iscrowd": 0, "area": row["bbox"][2] * row["bbox"][3], **row, "id": i + 1}
        for i, row in enumerate(rows)
    ]


def _per_class(scoring: Any, categories: Sequence[Row]) -> dict[str, float | None]:
    """{name: AP} by rising category id; precision is (IoU, recall, class, area, detections)."""
    precision = scoring.eval["precision"][:, :, :, 0, -1]
    ordered = sorted(categories, key=lambda row: row["id"])
    values = {}
    for k, row in enumerate(ordered):
        cells = precision[:, :, k]
        cells = cells[cells > -1]
        values[str(row["name"])] = float(cells.mean()) if cells.size else None
    return values


def _known(number: float) -> float | None:
    return None if number == -1 else float(number)


def _digits(number: float | None) -> str:
    return "-" if number is None else f"{number:.3f}"


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows of cells as columns, the last to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        lines.append("  ".join([*cells, row[-1].rjust(widths[-1])]))
    return "\n".join(lines)
