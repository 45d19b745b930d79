"""Files of predictions, read back by hand."""

from __future__ import annotations

import csv
import errno
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector.errors import StorageError
from detector.inference.detections import Detections
from detector.inference.written import Written, storage


def detections(*boxes: list[float]) -> Detections:
    number = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.linspace(0.9, 0.5, number, dtype=np.float32),
        np.arange(number) % 2,
        ("cat", "sea/dog"),
        (3, 7),
    )


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An image of 50 x 100 with two objects, one of them over the border, and one with none."""
    written = Written(tmp_path / "out", ("coco", "yolo", "csv"), draw=False, crops=True)
    pixels = np.arange(50 * 100 * 3, dtype=np.uint8).reshape(50, 100, 3)
    written.add("sub/a.jpg", pixels, detections([10, 20, 30, 40], [90, 45, 120, 60]))
    written.add("b.png", pixels, detections())
    written.finish()
    return tmp_path / "out"


def test_coco_is_a_data_set_of_what_was_found(out: Path) -> None:
    content = json.loads((out / "coco.json").read_text())
    assert content["images"] == [
        {"id": 1, "file_name": "sub/a.jpg", "height": 50, "width": 100},
        {"id": 2, "file_name": "b.png", "height": 50, "width": 100},
    ]
    assert content["categories"] == [{"id": 3, "name": "cat"}, {"id": 7, "name": "sea/dog"}]
    first, second = content["annotations"]
    assert (first["id"], first["image_id"], first["category_id"]) == (1, 1, 3)
    assert (first["bbox"], first["area"]) == ([10, 20, 20, 20], 400)
    assert second["category_id"] == 7


def test_yolo_is_centre_and_sides_as_shares_with_the_score(out: Path) -> None:
    first = (out / "labels" / "sub" / "a.txt").read_text().splitlines()[0]
    assert first == "0 0.200000 0.600000 0.200000 0.400000 0.900000"
    assert (out / "labels" / "b.txt").read_text() == ""
    assert (out / "labels" / "classes.txt").read_text() == "cat\nsea/dog\n"


def test_csv_has_a_row_for_each_object(out: Path) -> None:
    with open(out / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["cat", "sea/dog"]
    assert [float(rows[0][key]) for key in ("x1", "y1", "x2", "y2")] == [10, 20, 30, 40]


def test_a_crop_is_what_is_inside_of_the_box_and_the_image(out: Path) -> None:
    files = sorted(str(p.relative_to(out / "crops")) for p in (out / "crops").rglob("*.png"))
    assert files == ["cat/sub_a_1.png", "sea_dog/sub_a_2.png"]
    with Image.open(out / "crops" / files[0]) as image:
        assert image.size == (20, 20)
        pixels = np.arange(50 * 100 * 3, dtype=np.uint8).reshape(50, 100, 3)
        np.testing.assert_array_equal(np.asarray(image), pixels[20:40, 10:30])
    with Image.open(out / "crops" / files[1]) as image:
        assert image.size == (10, 5)


def test_a_full_disk_is_one_line_with_the_folder(tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match=r"^output_dir: .* cannot be written \(No space left"),
        storage(tmp_path),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
