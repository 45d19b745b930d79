"""A val split that is drawn out of train: stratified, keyed by names, whole scenes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detector.config.registry import DATASETS
from detector.config.schema import Plug
from detector.data.readers.base import Dataset
from detector.errors import ConfigError, DataError


def write_set(root: Path, number: int = 60) -> dict[str, Any]:
    """Every 12th image holds the rare class, every 5th none; the names tell of 10 scenes."""
    images, objects = [], []
    for i in range(number):
        name = f"day{i % 2}/scene{i % 10}_{i}.png"
        path = root / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (20, 10)).save(path)
        images.append({"id": i, "file_name": name, "width": 20, "height": 10})
        if i % 5:
            objects.append({"image_id": i, "category_id": 1, "bbox": [1, 1, 5, 5]})
        if i % 12 == 0:
            objects.append({"image_id": i, "category_id": 2, "bbox": [3, 3, 6, 6]})
    objects = [{**row, "id": i} for i, row in enumerate(objects)]
    categories = [{"id": 1, "name": "common"}, {"id": 2, "name": "rare"}]
    content = {"images": images, "annotations": objects, "categories": categories}
    (root / "set.json").write_text(json.dumps(content))
    return {"root": str(root), "train_annotations": "set.json", "train_images": "images",
            "val_annotations": "none", "val_images": "none", "val_share": 0.2}  # fmt: skip


def splits(options: dict[str, Any], **more: Any) -> tuple[Dataset, Dataset]:
    reader = DATASETS.build(Plug("coco", options | more))
    return reader.read("train"), reader.read("val")


def names(dataset: Dataset) -> set[str]:
    return {dataset.annotations.file_name(i) for i in range(len(dataset))}


def test_the_share_is_that_of_every_class_and_nothing_is_in_both(tmp_path: Path) -> None:
    train, val = splits(write_set(tmp_path))
    assert not names(train) & names(val)
    assert len(train) + len(val) == 60
    assert abs(len(val) - 12) <= 2
    rare = [int((d.annotations.labels == 1).sum()) for d in (train, val)]
    assert rare == [4, 1]
    assert val.image(0).shape == (10, 20, 3)
    for part, other in ((train, val), (val, train)):
        account = part.annotations.account
        assert account.given["image"] == 60
        assert account.number_left_out("image") == len(other)
        assert account.number_left_out("object") == len(other.annotations.labels)


def test_the_draw_follows_from_the_names_alone(tmp_path: Path) -> None:
    options = write_set(tmp_path)
    first = names(splits(options)[1])
    content = json.loads((tmp_path / "set.json").read_text())
    for row in content["images"]:
        row["id"] = 1000 - row["id"]
    for row in content["annotations"]:
        row["image_id"] = 1000 - row["image_id"]
    (tmp_path / "set.json").write_text(json.dumps(content))
    again = names(splits(options)[1])
    assert again == first


@pytest.mark.parametrize(
    ("group", "scene"),
    [
        ("folder", lambda name: name.split("/")[0]),
        (r"(scene\d+)_", lambda name: name.split("_")[0]),
    ],
)
def test_images_of_one_scene_stay_together(tmp_path: Path, group: str, scene: Any) -> None:
    train, val = splits(write_set(tmp_path), val_group=group)
    assert not {scene(name) for name in names(train)} & {scene(name) for name in names(val)}
    assert names(train)
    assert names(val)


def test_a_column_of_the_annotations_tells_scenes(tmp_path: Path) -> None:
    options = write_set(tmp_path)
    file = tmp_path / options["train_annotations"]
    content = json.loads(file.read_text())
    for row in content["images"]:
        row["rig"] = row["id"] % 7
    file.write_text(json.dumps(content))
    train, val = splits(options, val_group="column:rig")
    rigs = [{int(i) % 7 for i in part.annotations.image_ids} for part in (train, val)]
    assert not rigs[0] & rigs[1]
    assert len(rigs[0] | rigs[1]) == 7
    with pytest.raises(
        DataError, match=r"image 0 \(.*\) has no 'day', which data\.val_group=column"
    ):
        splits(options, val_group="column:day")


def test_a_column_is_for_layouts_that_have_some(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    reader = DATASETS.build(Plug("voc", {"root": str(tmp_path), "val_group": "column:rig"}))
    with pytest.raises(ConfigError, match=r"val_group: column:rig given, this layout .* data=coco"):
        reader.column("rig")


def test_one_scene_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"all 60 images are of one scene.*data\.val_group"):
        splits(write_set(tmp_path), val_group="(day|$)")


@pytest.mark.parametrize("pattern", ["scene", "(", "*"])
def test_a_pattern_without_a_group_is_refused(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.val_group"):
        splits(write_set(tmp_path), val_group=pattern)


def test_two_images_are_one_and_one(tmp_path: Path) -> None:
    train, val = splits(write_set(tmp_path, 2))
    assert (len(train), len(val)) == (1, 1)


def test_a_class_keeps_its_share_over_many_draws() -> None:
    """The bound of stratification: each class within one image of its share."""
    from detector.data.readers.folders import drawn
    from tests.data.files import make_dataset

    for seed in range(20):
        draw = np.random.default_rng(seed)
        counts = draw.integers(0, 4, 80).tolist()
        annotations = make_dataset([(9, 9)] * 80, counts).annotations
        file_names = [f"{draw.integers(1 << 40)}.png" for _ in range(80)]
        is_val = drawn(annotations, np.arange(80), file_names, 0.25)
        for k in range(3):
            holds = np.array(counts) > k  # files.py: objects are of the classes in turn
            assert abs(is_val[holds].sum() - 0.25 * holds.sum()) <= 1
