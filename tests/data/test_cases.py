"""Inputs that people bring, as `shared/cases` has them, each answered as its README says."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from detector.config.registry import DATASETS
from detector.config.schema import Plug
from detector.data.headers import without_damaged
from detector.data.readers.base import Dataset
from detector.data.renamed import with_classes
from detector.data.review import review
from detector.errors import DataError
from tests.commands import ROOT

CASES = ROOT.parent / "shared" / "cases"

pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason=f"{CASES} is not here")


def read(name: str, command: int = 0, **more: Any) -> list[Dataset]:
    """Both splits, read by the options of a command of the case as a training reads them."""
    words = json.loads((CASES / "index.json").read_text())[name][command]
    words = words.split() if isinstance(words, str) else words
    given = dict(word.replace("{case}", str(CASES / name)).split("=", 1) for word in words[1:])
    options = {
        key.removeprefix("data."): value if "/" in value else yaml.safe_load(value)
        for key, value in given.items()
        if key.startswith("data.")
    }
    reader = DATASETS.build(Plug(given["data"], options | more))
    train, val = reader.read("train"), without_damaged(reader.read("val"))
    known = train.annotations
    return [train, with_classes(val, known.classes, known.category_ids, train.name)]


def counts(name: str, command: int = 0, **more: Any) -> list[tuple[int, int]]:
    return [(len(d), len(d.annotations.labels)) for d in read(name, command, **more)]


def said(name: str, command: int = 0, **more: Any) -> str:
    return "\n".join(line for d in read(name, command, **more) for line in d.annotations.summary())


WHOLE = [(4, 8), (2, 4)]
"""Images and objects of the clean set."""

READ = {
    "coco_clean": "",
    "coco_polygons_only": "8 objects have polygons and no bbox",
    "coco_bbox_empty": "1 objects have polygons and no bbox",
    "coco_null_and_bool": "8 values of iscrowd are null, true or false",
    "coco_bbox_strings": "32 numbers are written as text",
    "coco_string_image_ids": "4 image ids are text",
    "coco_bom": "",
    "coco_crlf": "",
    "coco_root_category": "1 categories are the root of others",
    "coco_size_minus_one": "3 images have no size: taken from the header",
    "coco_lvis_layout": "4 images have a coco_url and no file_name",
    "coco_xyxy": "data.boxes=corners reads them so",
    "image_avif": "",
    "image_nfd": "another form of Unicode",
    "yolo_clean": "",
    "yolo_line_twice": "left out: 2 objects: stated twice",
    "yolo_list_file": "",
    "yolo_other_suffixes": "",
    "voc_clean": "",
    "voc_boxes_in_one_object": "8 boxes stand beside others in one <object>",
    "voc_filename_without_suffix": "4 images have another suffix than <filename>",
    "voc_list_with_suffix": "",
    "voc_no_size": "1 images have no size",
}
"""Read as the clean set, and what is said of it."""


@pytest.mark.parametrize("name", READ)
def test_what_means_the_clean_set_is_read_as_it(name: str) -> None:
    assert counts(name) == WHOLE
    assert READ[name] in said(name)


STOPS = {
    "coco_size_swapped": ("annotated as 72 x 96", [(3, 6), (2, 4)]),
    "coco_missing_image": ("there is no such file", [(3, 6), (2, 4)]),
    "coco_orphans": ("3 objects: of an image that is not in images", WHOLE),
    "image_16_bit": ("data.depth=[lowest,highest]", [(3, 6), (2, 4)]),
    "exif_turned_by_90": ("data.exif=stored takes such images", None),
    "exif_yolo": ("data.exif=stored takes such images", None),
    "image_huge": ("data.max_megapixels=200 reads it", None),
    "yolo_six_columns": ("data.scores=ignore reads past it", None),
    "voc_no_lists": ("data.val_share=0.2 takes all files in Annotations", None),
    "yolo_label_studio": ("data.val_share=0.2 draws a fifth", None),
}
"""What stops with which words, and what on_invalid=drop leaves, where that is the way on."""


@pytest.mark.parametrize("name", STOPS)
def test_what_cannot_be_known_stops_with_the_way_on(name: str) -> None:
    words, rest = STOPS[name]
    with pytest.raises(DataError) as caught:
        read(name)
    assert words in str(caught.value)
    if rest is not None:
        assert "data.on_" in str(caught.value)
        assert counts(name, on_invalid="drop") == rest


def test_the_ways_that_are_named_go_on() -> None:
    assert counts("image_16_bit", depth=[0.0, 65535.0]) == WHOLE
    assert counts("exif_turned_by_90", exif="upright") == WHOLE
    assert counts("exif_yolo", exif="stored") == counts("exif_yolo", exif="upright") == WHOLE
    assert counts("image_huge", max_megapixels=200.0) == WHOLE
    assert counts("yolo_six_columns", scores="ignore") == WHOLE
    for name in ("voc_no_lists", "yolo_label_studio"):
        train, val = counts(name, val_share=0.34)
        assert (train[0] + val[0], train[1] + val[1]) == (6, 12)
        assert val[0] == 2


def test_corners_are_read_as_corners_where_it_is_said() -> None:
    boxes = [d.annotations.xywh.tolist() for d in read("coco_xyxy", boxes="corners")]
    assert boxes == [d.annotations.xywh.tolist() for d in read("coco_clean")]


def test_a_box_of_a_rounding_over_1_is_clipped() -> None:
    assert "boxes leave their image and are clipped" in said("yolo_above_one")
    (images, objects), val = counts("yolo_above_one")
    lines = sum(
        len(path.read_text().split("\n")) - path.read_text().endswith("\n")
        for path in (CASES / "yolo_above_one/labels/train").iterdir()
    )
    assert (images, objects, val) == (4, lines, WHOLE[1])


def test_thousands_are_counted_with_ten_examples_and_a_bound() -> None:
    with pytest.raises(DataError, match=r"60 objects of 2008 cannot be used") as caught:
        read("coco_two_thousand_dirty")
    assert len(str(caught.value).splitlines()) == 13
    assert len(caught.value.details) == 60
    with pytest.raises(DataError, match=r"20 may be; data\.max_dropped=0\.0299 allows it"):
        read("coco_two_thousand_dirty", on_invalid="drop")
    (train, _) = read("coco_two_thousand_dirty", on_invalid="drop", max_dropped=0.0299)
    account = train.annotations.account
    assert account.given["object"] == 2008
    assert sum(one.count for one in account.faults()) == 60
    assert len(train.annotations.labels) + account.number_left_out("object") == 2008


def test_a_truncated_image_is_found_where_it_is_read() -> None:
    train, _ = read("coco_truncated_image")
    with pytest.raises(DataError, match=r"003\.jpg: cannot be read as an image"):
        without_damaged(train)
    assert read("coco_truncated_image", on_invalid="drop")[0].replaces_damaged


def test_a_val_split_with_fewer_categories_is_mapped_by_name() -> None:
    train, val = read("coco_val_lacks_a_category")
    assert val.annotations.classes == train.annotations.classes == ("red", "blue")
    assert "mapped by name" in said("coco_val_lacks_a_category")


def test_the_same_images_in_both_splits_are_told() -> None:
    train, val = read("yolo_label_studio", 1)
    assert "val shares 6 of its 6 images with train" in review(train, val).warnings[0]


def test_every_case_has_a_test_here_or_is_no_data() -> None:
    elsewhere = {
        *("predict_folder", "results_bom", "results_many_objects", "coco_two_thousand_dirty"),
        *("coco_truncated_image", "coco_val_lacks_a_category", "yolo_above_one"),
    }
    names = set(json.loads((CASES / "index.json").read_text()))
    assert names == set(READ) | set(STOPS) | elsewhere
