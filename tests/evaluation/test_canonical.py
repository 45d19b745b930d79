"""COCO JSON in other forms is read as if it were in its own, and it is said what was done."""

from __future__ import annotations

import codecs
import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from detector.config.registry import DATASETS
from detector.config.schema import Plug
from detector.data.readers.base import Dataset
from detector.errors import DataError
from detector.evaluation.canonical import canonical, canonical_detections, load_json
from detector.evaluation.files import read_detections, read_with_notes
from tests.commands import ROOT
from tests.data.files import write_image

CASES = ROOT.parent / "shared" / "cases"


def plain() -> dict[str, Any]:
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 60, "height": 40} for i in (1, 2)],
        "categories": [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2, 10, 20], "iscrowd": 0},
            {"id": 2, "image_id": 2, "category_id": 5, "bbox": [3, 4, 30, 20], "iscrowd": 1},
        ],
    }


def test_a_file_in_its_own_form_is_left_as_it_is() -> None:
    value = plain()
    result, done = canonical(value)
    assert result == value
    assert done.lines() == []


@pytest.mark.parametrize(
    ("encode", "rule"),
    [
        (lambda text: text.encode(), "plain"),
        (lambda text: codecs.BOM_UTF8 + text.encode(), "UTF-8 with a mark"),
        (lambda text: text.encode("utf-16"), "UTF-16"),
        (lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"), "UTF-16, the other way"),
        (lambda text: text.replace(",", ",\r\n").encode(), "lines of Windows"),
    ],
)
def test_every_encoding_of_a_file_is_read(tmp_path: Path, encode: Any, rule: str) -> None:
    (tmp_path / "a.json").write_bytes(encode(json.dumps(plain(), ensure_ascii=False)))
    assert load_json(tmp_path / "a.json") == plain(), rule


def test_half_a_file_in_utf_16_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes("[1, 2".encode("utf-16"))
    with pytest.raises(DataError, match=r"a\.json: is not JSON: "):
        load_json(tmp_path / "a.json")


def test_numbers_and_ids_written_as_text_or_with_a_point_are_numbers() -> None:
    value = plain()
    for group in value.values():
        for row in group:
            for key in ("id", "image_id", "category_id", "width", "height"):
                if key in row:
                    row[key] = str(row[key]) if group is value["images"] else float(row[key])
    value["annotations"][0]["bbox"] = ["1", "2.0", " 10", "2e1"]
    value["annotations"][0]["area"] = "200.0"
    result, done = canonical(value)
    assert result["images"] == plain()["images"]
    assert result["annotations"][0]["bbox"] == [1, 2, 10, 20]
    assert result["annotations"][0]["area"] == 200
    assert [row["category_id"] for row in result["annotations"]] == [3, 5]
    assert done.lines() == [
        "14 whole numbers are written as text or with a point: read as numbers",
        "5 numbers are written as text: read as numbers",
    ]


@pytest.mark.parametrize(("said", "meant"), [(None, 0), (False, 0), (True, 1)])
def test_a_crowd_that_is_null_or_a_truth_value(said: Any, meant: int) -> None:
    value = plain()
    value["annotations"][0]["iscrowd"] = said
    result, done = canonical(value)
    assert result["annotations"][0]["iscrowd"] == meant
    assert done.lines() == ["1 values of iscrowd are null, true or false: read as 0 or 1"]


@pytest.mark.parametrize("bbox", [[], None, "absent"])
def test_polygons_stand_in_for_a_box(bbox: Any) -> None:
    value = plain()
    value["annotations"][0] |= {"bbox": bbox, "segmentation": [[1, 2, 11, 2, 6, 22], [3, 3] * 3]}
    if bbox == "absent":
        del value["annotations"][0]["bbox"]
    result, _ = canonical(value)
    assert result["annotations"][0]["bbox"] == [1, 2, 10, 20]


@pytest.mark.parametrize("segmentation", [[], [[1, 2, 3]], [[1, 2, "x", 4, 5, 6]], {"counts": []}])
def test_what_is_no_polygon_is_left_to_the_checks(segmentation: Any) -> None:
    value = plain()
    value["annotations"][0] |= {"bbox": [], "segmentation": segmentation}
    assert canonical(value)[0]["annotations"][0]["bbox"] == []


def test_image_ids_that_are_text_are_numbered_also_in_results() -> None:
    value = plain()
    names = {1: "b", 2: "a"}
    for row in value["images"]:
        row["id"] = names[row["id"]]
    for row in value["annotations"]:
        row["image_id"] = names[row["image_id"]]
    result, done = canonical(value)
    assert result == plain()
    assert done.image_ids == {"b": 1, "a": 2}
    rows, _ = canonical_detections([{"image_id": "a"}, {"image_id": 1}, {"image_id": [1]}], done)
    assert [row["image_id"] for row in rows] == [2, 1, [1]]


def test_a_root_is_left_out_unless_a_split_has_objects_of_it(tmp_path: Path) -> None:
    value = plain()
    value["categories"] = [
        {"id": 0, "name": "cat", "supercategory": "none"},
        {"id": 3, "name": "cat", "supercategory": "cat"},
        {"id": 5, "name": "dog", "supercategory": "cat"},
    ]
    result, done = canonical(value)
    assert [row["id"] for row in result["categories"]] == [3, 5]
    assert done.lines() == ["1 categories are the root of others and have no object: left out"]
    other = plain()
    other["annotations"][0]["category_id"] = "0"
    (tmp_path / "other.json").write_text(json.dumps(other))
    assert len(canonical(value, tmp_path / "other.json")[0]["categories"]) == 3


@pytest.mark.parametrize("value", [None, 3, "text", [], [1], {"images": 3}, {"images": [[], 1]}])
def test_anything_at_all_goes_through(value: Any) -> None:
    result, _ = canonical(value)
    assert result == value
    assert canonical_detections(value, canonical(None)[1])[0] == value


def write_set(root: Path, value: dict[str, Any], names: tuple[str, ...]) -> Dataset:
    for name in names:
        write_image(root / "images" / name, 40, 60)
    for split in ("train", "val"):
        (root / f"{split}.json").write_text(json.dumps(value))
    options = {f"{s}_{k}": v for s in ("train", "val") for k, v in
               (("annotations", f"{s}.json"), ("images", "images"))}  # fmt: skip
    return DATASETS.build(Plug("coco", {"root": str(root), **options})).read("train")


def test_sizes_that_are_missing_come_from_the_files(tmp_path: Path) -> None:
    value = plain()
    value["images"][0] |= {"width": -1, "height": -1}
    del value["images"][1]["width"]
    found = write_set(tmp_path, value, ("1.png", "2.png")).annotations
    assert found.sizes.tolist() == [[40, 60]] * 2
    assert found.summary()[1] == "2 images have no size: taken from the header of the file"


def test_a_name_in_another_form_of_unicode_is_that_of_the_file(tmp_path: Path) -> None:
    value = plain()
    value["images"][0]["file_name"] = unicodedata.normalize("NFC", "caf\u00e9.png")
    value["images"][1]["file_name"] = "sub\\2.png"
    on_disk = unicodedata.normalize("NFD", "caf\u00e9.png")
    dataset = write_set(tmp_path, value, (on_disk, "sub/2.png"))
    assert [dataset.annotations.file_name(i) for i in (0, 1)] == [on_disk, "sub/2.png"]
    assert dataset.image(0).shape == dataset.image(1).shape == (40, 60, 3)


@pytest.mark.parametrize("name", ["..\\secret.png", "\\etc\\passwd", "../caf\u00e9.png"])
def test_a_name_that_leads_out_is_refused_in_every_form(tmp_path: Path, name: str) -> None:
    value = plain()
    value["images"][0] |= {"file_name": name, "width": -1, "height": -1}
    write_image(tmp_path / "secret.png", 40, 60)
    with pytest.raises(DataError):
        write_set(tmp_path, value, ("2.png",))


def test_scoring_reads_the_same_file_alike(tmp_path: Path) -> None:
    value = plain()
    value["annotations"][0] |= {"bbox": ["1", "2", "10", "20"], "iscrowd": None}
    (tmp_path / "truth.json").write_bytes(json.dumps(value).encode("utf-16"))
    truth, done = read_with_notes(tmp_path / "truth.json")
    assert truth["annotations"][0]["bbox"] == [1, 2, 10, 20]
    assert len(done.lines()) == 2
    row = {"image_id": "1", "category_id": "3", "bbox": ["1", "2", "10", "20"], "score": "0.5"}
    (tmp_path / "found.json").write_text(json.dumps([row]))
    (found,) = read_detections(tmp_path / "found.json", truth, done)
    assert found == {"image_id": 1, "category_id": 3, "bbox": [1, 2, 10, 20], "score": 0.5}


HELD = (
    "coco_clean", "coco_polygons_only", "coco_bbox_empty", "coco_null_and_bool",
    "coco_bbox_strings", "coco_string_image_ids", "coco_bom", "coco_crlf", "coco_root_category",
    "coco_size_minus_one", "coco_lvis_layout", "image_nfd",
)  # fmt: skip
"""Inputs that people bring, each of which is the clean set in another form."""


@pytest.mark.skipif(not CASES.is_dir(), reason=f"{CASES} is not here")
@pytest.mark.parametrize("name", HELD)
def test_what_people_bring_is_read_as_the_clean_set(name: str) -> None:
    options: dict[str, Any] = {"root": str(CASES / name)}
    for split in ("train", "val"):
        options |= {f"{split}_annotations": f"{split}.json", f"{split}_images": "images"}
    reader = DATASETS.build(Plug("coco", options))
    for split, images, objects in (("train", 4, 8), ("val", 2, 4)):
        annotations = reader.read(split).annotations
        assert (len(annotations), len(annotations.labels)) == (images, objects)
        assert annotations.classes == ("red", "blue")
