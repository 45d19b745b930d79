from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector.data.readers.base import Dataset
from detector.data.renamed import with_classes
from detector.data.review import images_in_both, review
from detector.data.suspicious import alike, areas_disagree, as_corners, as_shares
from detector.errors import DataError
from tests.data.files import content, write_coco_set, write_image, write_json
from tests.data.readers.test_coco import read


def two_splits(root: Path, change: Any = None) -> tuple[Dataset, Dataset]:
    options = write_coco_set(root)
    value = content()
    if change is not None:
        change(value)
    write_json(root, value, "val.json")
    options["val_annotations"] = "val.json"
    return read(options), read(options, "val")


def reduced(value: dict[str, Any]) -> None:
    """Only the category that occurs, under a number of its own."""
    value["categories"] = [{"id": 0, "name": "dog"}]
    value["annotations"] = [
        {**row, "category_id": 0} for row in value["annotations"] if row["category_id"] == 4
    ]


def test_classes_are_mapped_by_name(tmp_path: Path) -> None:
    train, val = two_splits(tmp_path, reduced)
    known = train.annotations
    mapped = with_classes(val, known.classes, known.category_ids, "train")
    assert mapped.annotations.classes == ("dog", "cat")
    assert mapped.annotations.category_ids == known.category_ids
    assert mapped.annotations.labels.tolist() == [0, 0]
    assert "mapped by name" in " ".join(mapped.annotations.summary())
    assert np.array_equal(mapped.image(0), val.image(0))
    assert mapped.files() == val.files()
    assert with_classes(train, known.classes, known.category_ids, "x") is train


def test_a_class_with_objects_that_train_lacks_is_named_alone(tmp_path: Path) -> None:
    train, val = two_splits(tmp_path, lambda value: value["categories"][0].update(name="cow"))
    known = train.annotations
    with pytest.raises(DataError) as caught:
        with_classes(val, known.classes, known.category_ids, "train.json")
    message = str(caught.value)
    assert "objects of 'cow', no class of train.json, which has 'cat' beside" in message
    assert "dog" not in message


def test_a_class_without_objects_that_train_lacks_is_left_out(tmp_path: Path) -> None:
    def add(value: dict[str, Any]) -> None:
        value["categories"].append({"id": 1, "name": "bird"})

    train, val = two_splits(tmp_path, add)
    known = train.annotations
    mapped = with_classes(val, known.classes, known.category_ids, "train").annotations
    assert mapped.classes == known.classes
    assert mapped.labels.tolist() == known.labels.tolist()
    assert any("none of train's and have no object" in line for line in mapped.summary())


def test_a_table_counts_class_by_class_and_shared_images_are_told(tmp_path: Path) -> None:
    train, val = two_splits(tmp_path)
    found = review(train, val)
    assert found.counts == {"dog": (2, 2), "cat": (1, 1)}
    assert [line.split() for line in found.lines()[:3]] == [
        ["objects", "train", "val"], ["dog", "2", "2"], ["cat", "1", "1"],
    ]  # fmt: skip
    assert "val shares 3 of its 3 images with train (a.png, b.png, c.png)" in found.warnings[0]


def test_the_same_content_under_another_name_is_shared(tmp_path: Path) -> None:
    options = write_coco_set(tmp_path)
    for name, seed in (("a.png", 1), ("b.png", 7), ("c.png", 8)):
        size = {"a.png": (20, 50), "b.png": (30, 40), "c.png": (10, 10)}[name]
        write_image(tmp_path / "other" / name, *size, seed)
    train, val = read(options), read(options | {"val_images": "other"}, "val")
    assert images_in_both(train, val) == ["a.png"]  # written from the same seed


def test_a_split_without_objects_is_told(tmp_path: Path) -> None:
    train, val = two_splits(tmp_path, lambda value: value.update(annotations=[]))
    assert "val has no object: there is nothing to find" in review(train, val).warnings


def random_boxes(draw: np.random.Generator, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes inside images of 640 x 480, as left, top, width, height."""
    sides = draw.uniform(8, 200, (number, 2))
    corner = draw.uniform(0, 1, (number, 2)) * (np.array([640, 480]) - sides)
    return np.concatenate([corner, sides], 1), np.tile(
        np.array([[480, 640]], np.int32), (number, 1)
    )


@pytest.mark.parametrize("number", [50, 500])
def test_corners_read_as_sides_are_told_and_sides_are_not(number: int) -> None:
    """At least 99 of 100 sets of 50 boxes, and no false alarm."""
    told = 0
    for seed in range(100):
        boxes, sizes = random_boxes(np.random.default_rng(seed), number)
        areas = boxes[:, 2] * boxes[:, 3]
        assert as_corners(boxes, sizes, areas) is None
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
        centre = np.concatenate([boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:]], 1)
        assert as_corners(centre, sizes, centred=True) is None
        told += as_corners(corners, sizes) is not None
        told += as_corners(corners, sizes, areas) is not None
        told += as_corners(corners, sizes, centred=True) is not None
    assert told >= 3 * 99


def test_boxes_between_0_and_1_and_areas_above_their_boxes_are_told() -> None:
    boxes, sizes = random_boxes(np.random.default_rng(0), 30)
    assert as_shares(boxes) is None
    assert "shares" in (as_shares(boxes / np.tile(sizes[:, ::-1], 2)) or "")
    areas = boxes[:, 2] * boxes[:, 3]
    assert areas_disagree(boxes, areas) is None
    assert areas_disagree(boxes, areas / 3) is None
    assert "30 of 30 areas" in (areas_disagree(boxes, areas * 4) or "")


def test_names_that_are_read_alike_are_told() -> None:
    assert alike(("cat", "dog", "wine glass")) == []
    (line,) = alike(("Wine glass", "dog", "wine-glass"))
    assert "'Wine glass' and 'wine-glass'" in line
