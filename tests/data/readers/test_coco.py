from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detector.config.registry import DATASETS
from detector.config.schema import Plug
from detector.data.readers.coco import read_coco
from detector.errors import ConfigError, DataError
from detector.evaluation.canonical import load_json
from tests.data.files import CONTENT, content, write_coco_set, write_image, write_json

REAL = Path(__file__).parents[4] / "shared" / "data" / "coco128"


def read(options: dict[str, Any], split: str = "train") -> Any:
    return DATASETS.build(Plug("coco", options)).read(split)


def test_the_file_is_read_as_it_stands(tmp_path: Path) -> None:
    a = read_coco(write_json(tmp_path, CONTENT))
    assert a.image_ids.tolist() == [3, 7, 9]
    assert [a.file_name(i) for i in range(3)] == ["a.png", "b.png", "c.png"]
    assert a.sizes.tolist() == [[20, 50], [30, 40], [10, 10]]
    assert a.starts.tolist() == [0, 1, 3, 3]
    assert a.xywh.tolist() == [[0, 0, 50, 20], [1, 2, 10, 20.5], [5, 5, 4, 4]]
    assert (a.classes, a.category_ids) == (("dog", "cat"), (4, 90))
    assert a.labels.tolist() == [0, 1, 0]
    assert a.crowd.tolist() == [True, False, False]
    assert a.areas.tolist() == [1000, 205, 12.5]
    assert a.ids.tolist() == [2, 1, 3]


def test_images_are_the_files_named(tmp_path: Path) -> None:
    dataset = read(write_coco_set(tmp_path))
    assert len(dataset) == 3
    pixels = np.asarray(Image.open(tmp_path / "images" / "b.png"))
    assert np.array_equal(dataset.image(1), pixels)
    assert str(tmp_path) in dataset.name


@pytest.mark.parametrize(("rows", "key"), [("images", "file_name"), ("categories", "name")])
def test_half_a_letter_in_a_name_is_one_line(tmp_path: Path, rows: str, key: str) -> None:
    """JSON escapes can spell what UTF-8 cannot hold: no file, log or table could name it."""
    value = content()
    value[rows][0][key] = "\ud800.png"
    with pytest.raises(DataError, match=rf"{rows}\[0\]: id \d+: {key} is .*not valid text"):
        read_coco(write_json(tmp_path, value))


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 91), (91, 10**6), (-5, 2**40)])
def test_category_ids_do_not_matter(tmp_path: Path, low: int, high: int) -> None:
    value = content()
    new = {4: low, 90: high}
    for row in value["categories"]:
        row["id"] = new[row["id"]]
    for row in value["annotations"]:
        row["category_id"] = new[row["category_id"]]
    a, b = read_coco(write_json(tmp_path, CONTENT)), read_coco(write_json(tmp_path, value))
    assert b.labels.tolist() == a.labels.tolist()
    assert b.classes == a.classes
    assert b.category_ids == (low, high)


def test_repeated_annotation_ids_and_the_id_0_are_fine(tmp_path: Path) -> None:
    value = content()
    for row in value["annotations"]:
        row["id"] = 0
    assert read_coco(write_json(tmp_path, value)).ids.tolist() == [0, 0, 0]


def test_who_has_no_val_split_is_told_how_one_is_drawn(tmp_path: Path) -> None:
    options: dict[str, Any] = write_coco_set(tmp_path)
    options |= {"val_annotations": None, "val_images": None}
    with pytest.raises(ConfigError, match=r"val_annotations: .*; data\.val_share=0\.2 draws it"):
        read(options, "val")
    options |= {"val_share": 0.34}
    assert len(read(options)) + len(read(options, "val")) == 3


def test_a_limit_takes_the_first_images_by_id(tmp_path: Path) -> None:
    options: dict[str, Any] = write_coco_set(tmp_path)
    dataset = read(options | {"limit_train": 2})
    assert dataset.annotations.image_ids.tolist() == [3, 7]
    assert len(read(options | {"limit_val": 1}, "val")) == 1
    assert len(read(options | {"limit_train": 50})) == 3


def test_invalid_boxes_stop_or_are_dropped_as_asked(tmp_path: Path) -> None:
    value = content()
    value["annotations"].append({"id": 8, "image_id": 9, "category_id": 4, "bbox": [1, 1, 0, 3]})
    value["annotations"].append(
        {"id": 9, "image_id": 9, "category_id": 4, "bbox": [1, 1, float("nan"), 3]}
    )
    options: dict[str, Any] = write_coco_set(tmp_path, value)
    with pytest.raises(DataError) as caught:
        read(options)
    head, _, first, _, second = (line.strip() for line in str(caught.value).splitlines())
    assert "2 objects of 5 cannot be used; data.on_invalid=drop leaves them out" in head
    assert all(word in first for word in ("train.json", "c.png", "id 9", "annotation 8"))
    assert "annotation 9" in second
    assert caught.value.details == (first, second)
    dropped = read(options | {"on_invalid": "drop"}).annotations
    assert dropped.dropped == (first, second)
    assert dropped.fingerprint == read_coco(write_json(tmp_path, CONTENT)).fingerprint


def test_500_truncations_are_500_clean_errors(tmp_path: Path) -> None:
    data = json.dumps(CONTENT).encode()
    path = tmp_path / "cut.json"
    for length in random.Random(0).choices(range(len(data)), k=500):
        path.write_bytes(data[:length])
        with pytest.raises(DataError) as caught:
            read_coco(path)
        message = str(caught.value)
        assert "cut.json" in message
        assert f"of {length}" in message
        assert "\n" not in message


@pytest.mark.parametrize(
    ("data", "byte"),
    [
        (b'{"a": 1,}', 8),
        ('{"ä": ?}'.encode(), 7),
        (b'{"a": "\xff"}', 7),
        (b"", 0),
        (b"<html>", 0),
    ],
)
def test_malformed_json_is_told_by_its_byte(tmp_path: Path, data: bytes, byte: int) -> None:
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(DataError, match=rf"a\.json: .* at byte {byte} of {len(data)}$"):
        load_json(tmp_path / "a.json")


@pytest.mark.parametrize("data", [b"[" * 100_000, b"1" * 5000])
def test_json_that_exhausts_the_parser_is_a_clean_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.json"):
        load_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("part", "key"),
    [
        *[("images", key) for key in ("id", "file_name", "height", "width")],
        *[("annotations", key) for key in ("id", "image_id", "category_id", "bbox")],
        *[("categories", key) for key in ("id", "name")],
    ],
)
def test_a_missing_or_mistyped_key_is_named_with_its_place(
    tmp_path: Path, part: str, key: str
) -> None:
    value = content()
    del value[part][1][key]
    with pytest.raises(DataError, match=rf"train\.json: {part}\[1\].*key '{key}' is missing"):
        read_coco(write_json(tmp_path, value))
    wrong: list[Any] = [None, [], {}, True, 10**400]
    wrong += [1.5, "7x"] if key not in ("file_name", "name") else [1.5, 7]
    for bad in wrong:
        value = content()
        value[part][1][key] = bad
        with pytest.raises(DataError, match=rf"train\.json: {part}\[1\].*{key}"):
            read_coco(write_json(tmp_path, value))


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_a_missing_list_is_named(tmp_path: Path, key: str) -> None:
    value = content()
    del value[key]
    with pytest.raises(DataError, match=rf"key '{key}' is missing"):
        read_coco(write_json(tmp_path, value))
    for bad in (None, {}, "x", [3]):
        with pytest.raises(DataError, match=key):
            read_coco(write_json(tmp_path, content() | {key: bad}))


@pytest.mark.parametrize("value", [None, [], 3, "text"])
def test_a_file_that_is_no_object_is_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(DataError, match=r"train\.json: is not an object"):
        read_coco(write_json(tmp_path, value))


@pytest.mark.parametrize(
    "bbox", [[], [1, 2, 3], [1, 2, 3, 4, 5], ["1 px", 2, 3, 4], [1, None, 3, 4], [10**400, 1, 2, 2]]
)
def test_a_bbox_that_is_not_four_numbers_is_refused(tmp_path: Path, bbox: list[Any]) -> None:
    value = content()
    value["annotations"][2]["bbox"] = bbox
    with pytest.raises(DataError, match=r"annotations\[2\] \(image 7\): id 3: bbox is"):
        read_coco(write_json(tmp_path, value))


@pytest.mark.parametrize(("key", "bad"), [("iscrowd", 2), ("iscrowd", "no"), ("area", "big")])
def test_a_wrong_crowd_or_area_is_refused(tmp_path: Path, key: str, bad: Any) -> None:
    value = content()
    value["annotations"][2][key] = bad
    with pytest.raises(DataError, match=rf"annotations\[2\].*{key} is"):
        read_coco(write_json(tmp_path, value))


def test_repeated_images_are_listed(tmp_path: Path) -> None:
    value = content()
    value["images"] += [
        {"id": 3, "file_name": "d.png", "height": 1, "width": 1},
        {"id": 12, "file_name": "a.png", "height": 1, "width": 1},
    ]
    with pytest.raises(DataError) as caught:
        read_coco(write_json(tmp_path, value))
    message = str(caught.value)
    assert "3 images of 5 cannot be used" in message
    assert "image a.png: d.png has its id 3 too" in message
    assert "(d.png) repeats the image id 3 of a.png" in message
    assert "a.png is the file of the images 3 and 12" in message


@pytest.mark.parametrize(
    ("key", "words"),
    [("image_id", "is of image 55, which is not in images"), ("category_id", "has category 55")],
)
def test_an_unknown_image_or_category_is_refused(tmp_path: Path, key: str, words: str) -> None:
    value = content()
    value["annotations"][1][key] = 55
    with pytest.raises(DataError, match=words):
        read_coco(write_json(tmp_path, value))


@pytest.mark.parametrize(
    ("row", "words"),
    [({"id": 4, "name": "bird"}, "id 4"), ({"id": 5, "name": "dog"}, "name 'dog'")],
)
def test_repeated_categories_are_refused(tmp_path: Path, row: Any, words: str) -> None:
    value = content()
    value["categories"].append(row)
    with pytest.raises(DataError, match=words):
        read_coco(write_json(tmp_path, value))


@pytest.mark.parametrize("size", [0, -3, 10**7])
def test_an_impossible_size_is_refused(tmp_path: Path, size: int) -> None:
    value = content()
    value["images"][0]["width"] = size
    with pytest.raises(DataError, match=rf"images\[0\]: id 7: is {size} x 30 pixels"):
        read_coco(write_json(tmp_path, value))


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "http://example.org/a.png"])
def test_a_hostile_file_name_is_refused_before_any_image_is_read(tmp_path: Path, name: str) -> None:
    options = write_coco_set(tmp_path)
    write_image(tmp_path / "secret.png", 30, 40)
    value = content()
    value["images"][0]["file_name"] = name
    write_json(tmp_path, value)
    with pytest.raises(DataError, match=r"train\.json: file name"):
        read(options)


def test_missing_folders_and_files_name_their_key(tmp_path: Path) -> None:
    options = write_coco_set(tmp_path)
    for key, changed in (
        ("data.root", options | {"root": str(tmp_path / "no")}),
        ("data.train_annotations", options | {"train_annotations": "no.json"}),
        ("data.train_images", options | {"train_images": "no"}),
    ):
        with pytest.raises(DataError, match=rf"^{key}=.*no"):
            read(changed)
    (tmp_path / "images" / "a.png").unlink()
    with pytest.raises(
        DataError, match=r"image a\.png \(id 3\): there is no such file in .*data\.on_missing=drop"
    ):
        read(options)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({}, "data.root"),
        ({"root": "x", "limit_train": 0}, "data.limit_train"),
        ({"root": "x", "max_megapixels": 0.0}, "data.max_megapixels"),
        ({"root": "x", "on_invalid": "skip"}, "data.on_invalid"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        DATASETS.build(Plug("coco", options))


@pytest.mark.skipif(not REAL.is_dir(), reason="no COCO images on this machine")
def test_real_annotations_equal_the_index_of_pycocotools() -> None:
    from pycocotools.coco import COCO

    dataset = read({"root": str(REAL)})
    a = dataset.annotations
    theirs = COCO(REAL / "annotations" / "instances_train2017.json")
    assert (len(a), len(a.labels), int(a.crowd.sum())) == (128, 939, 10)
    assert a.category_ids == tuple(sorted(theirs.getCatIds()))
    assert a.classes == tuple(c["name"] for c in theirs.loadCats(list(a.category_ids)))
    for index, image_id in enumerate(a.image_ids.tolist()):
        expected = theirs.loadAnns(theirs.getAnnIds(imgIds=image_id))
        objects = a.objects(index)
        assert a.ids[objects].tolist() == [row["id"] for row in expected]
        assert a.xywh[objects].tolist() == [row["bbox"] for row in expected]
        assert a.areas[objects].tolist() == [row["area"] for row in expected]
    assert dataset.image(0).shape == (*a.sizes[0], 3)
