"""One call tells all that is wrong with data, and what they hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detector.cli.check_data import as_keys
from tests.commands import Command
from tests.data.files import content, write_coco_set, write_image, write_json


@pytest.fixture
def keys(tmp_path: Path) -> list[str]:
    options = write_coco_set(tmp_path)
    write_image(tmp_path / "val" / "v.png", 30, 40, 9)
    images = [{"id": 1, "file_name": "v.png", "height": 30, "width": 40}]
    objects = [{"id": 1, "image_id": 1, "category_id": 4, "bbox": [2, 2, 9, 9]}]
    write_json(tmp_path, content() | {"images": images, "annotations": objects}, "val.json")
    options |= {"val_annotations": "val.json", "val_images": "val"}
    words = [f"data.{key}={value}" for key, value in options.items()]
    return ["data=coco", *words, f"output_dir={tmp_path / 'out'}"]


def test_a_good_set_is_counted_and_begins(
    command: Command, keys: list[str], tmp_path: Path
) -> None:
    outcome = command("check_data", *keys)
    assert outcome.code == 0, outcome.err
    assert "a training on these data begins" in outcome.out
    assert "3 images, 3 objects of 2 classes" in outcome.out
    found = json.loads((tmp_path / "out/check.json").read_text())
    assert (found["begins"], found["faults"]) == (True, [])
    assert found["objects"] == {"dog": {"train": 2, "val": 1}, "cat": {"train": 1, "val": 0}}
    assert found["without_positive_anchor"] == 0
    assert found["warnings"] == ["no object in val of class 'cat'"]
    page = (tmp_path / "out/check.html").read_text()
    assert "train.png" in page
    assert (tmp_path / "out/train.png").is_file()
    assert (tmp_path / "out/val.png").is_file()


def test_a_bad_set_is_told_whole_and_ends_as_a_training_would(
    command: Command, keys: list[str], tmp_path: Path
) -> None:
    value = content()
    value["categories"][0]["name"] = "<b>cat</b>"
    value["annotations"].append({"id": 8, "image_id": 9, "category_id": 4, "bbox": [1, 1, 0, 3]})
    write_json(tmp_path, value)
    (tmp_path / "images/a.png").write_bytes(b"<html>")
    (tmp_path / "val/v.png").write_bytes((tmp_path / "val/v.png").read_bytes()[:200])
    outcome = command("check_data", *keys)
    assert outcome.code == 3
    for words in ("annotation 8", "image a.png", "image v.png"):
        assert words in outcome.err
    # Val holds no image that decodes, so that there is nothing to report on.
    assert not (tmp_path / "out/check.json").exists()
    write_image(tmp_path / "val" / "v.png", 30, 40, 9)
    outcome = command("check_data", *keys)
    assert outcome.code == 3
    found = json.loads((tmp_path / "out/check.json").read_text())
    assert found["begins"] is False
    assert len(found["faults"]) == 2
    assert {row["why"] for row in found["train"]["left_out"]} == {
        "whose file cannot be decoded",
        "of images that are left out",
        "whose box has no area",
    }
    page = (tmp_path / "out/check.html").read_text()
    assert "&lt;b&gt;cat" in page
    assert "<b>cat" not in page


def test_train_is_decoded_where_that_is_asked_for(
    command: Command, keys: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "images/b.png"
    file.write_bytes(file.read_bytes()[:200])
    assert command("check_data", *keys).code == 0
    outcome = command("check_data", *keys, "decode=true")
    assert outcome.code == 3
    assert "image b.png (id 7)" in outcome.err
    assert "data.on_corrupt=drop leaves it out" in outcome.err


def test_a_folder_alone_is_the_root_of_data_of_any_layout(tmp_path: Path) -> None:
    folder = tmp_path / "it's, [mine]"
    folder.mkdir()
    first, second = as_keys(str(folder))
    assert (first, second) == ("data=auto", f"data.root='{tmp_path}/it\\'s, [mine]'")
    for word in ("data.root=x", "--help", "nowhere"):
        assert as_keys(word) == [word]
