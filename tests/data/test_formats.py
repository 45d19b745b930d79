"""Data written in another form, and back, are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector.config.registry import DATASETS
from detector.config.schema import Plug
from detector.data.formats import convert, keys_of
from detector.data.readers.base import Dataset
from detector.errors import ConfigError
from tests.commands import ROOT, Command
from tests.data.files import content, write_coco_set
from tests.data.readers.test_coco import read

SHARED = ROOT.parent / "shared" / "data"
REAL = {
    "deeppcb": Plug("auto", {"root": str(SHARED / "deeppcb")}),
    "coco128": Plug(
        "yolo",
        {
            "root": str(SHARED / "coco128"),
            "file": "coco128_yolo.yaml",
            "train_images": "val2017",
            "train_labels": "labels/val2017",
        },
    ),
    "bccd": Plug("voc", {"root": str(SHARED / "bccd"), "on_invalid": "drop"}),
}


def back(form: str, folder: Path, split: str = "train", **more: Any) -> Dataset:
    options: dict[str, Any] = {"root": str(folder), **more}
    for word in keys_of(form, (split,)).split():  # type: ignore[arg-type]
        key, value = word.removeprefix("data.").split("=")
        options[key] = value
    if form == "voc":
        options |= {"val_split": split, "train_split": split}
    return DATASETS.build(Plug(form, options)).read(split)  # type: ignore[arg-type]


def objects(dataset: Dataset) -> dict[str, list[tuple[str, bool, list[float]]]]:
    """Image name -> class name, crowd and box of each object."""
    a = dataset.annotations
    return {
        Path(a.file_name(i)).name: [
            (a.classes[a.labels[b]], bool(a.crowd[b]), a.xywh[b].tolist())
            for b in range(*a.objects(i).indices(len(a.labels)))
        ]
        for i in range(len(a))
    }


def assert_same(one: Dataset, other: Dataset, *, without_crowds: bool = False) -> None:
    """Boxes to 1e-3 pixels, classes by name, images without objects too."""
    left, right = objects(one), objects(other)
    assert left.keys() == right.keys()
    for name, rows in left.items():
        kept = [row for row in rows if not (without_crowds and row[1])]
        assert [row[:2] for row in kept] == [row[:2] for row in right[name]]
        for (_, _, a), (_, _, b) in zip(kept, right[name], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-3)


@pytest.mark.parametrize("form", ["coco", "yolo", "voc"])
def test_a_set_comes_back_from_every_form(tmp_path: Path, form: str) -> None:
    value = content()
    value["images"][1]["file_name"] = "day/a b.png"  # with a folder and a space
    (tmp_path / "in").mkdir()
    source = read(write_coco_set(tmp_path / "in", value))
    lines = convert(lambda split: source, form, tmp_path / "out", ["train"])
    ignore = {"ignore_difficult": True} if form == "voc" else {}
    assert_same(source, back(form, tmp_path / "out", **ignore), without_crowds=form == "yolo")
    crowds = int(source.annotations.crowd.sum())
    said = [line for line in lines if "crowd" in line]
    assert len(said) == (crowds if form == "yolo" else 0)


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is not here")
@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("form", ["coco", "yolo", "voc"])
def test_real_sets_come_back_from_every_form(tmp_path: Path, name: str, form: str) -> None:
    source = DATASETS.build(REAL[name]).read("train")
    convert(lambda split: source, form, tmp_path / "copy", ["train"])
    assert_same(source, back(form, tmp_path / "copy"))


def test_names_that_differ_in_their_folder_alone_are_kept_apart(tmp_path: Path) -> None:
    value = content()
    value["images"][0]["file_name"] = "x/a.png"
    value["images"][1]["file_name"] = "y/a.png"
    (tmp_path / "in").mkdir()
    source = read(write_coco_set(tmp_path / "in", value))
    convert(lambda split: source, "yolo", tmp_path / "out", ["train"])
    names = {p.name for p in (tmp_path / "out/images/train").iterdir()}
    assert names == {"x_a.png", "y_a.png", "c.png"}


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not a new or empty folder"):
        convert(lambda split: pytest.fail("read"), "coco", tmp_path, ["train"])


def test_the_command_says_how_to_train_on_it(command: Command, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    keys = [f"data.{k}={v}" for k, v in write_coco_set(tmp_path / "in").items()]
    outcome = command(
        "convert_data", "data=coco", *keys, "to=yolo", f"output_dir={tmp_path / 'out'}"
    )
    assert outcome.code == 0, outcome.err
    assert "train: 3 images, 3 objects; 1 not as they are" in outcome.out
    assert f"to train: data=yolo data.root={tmp_path / 'out'}" in outcome.out
    assert len(back("yolo", tmp_path / "out")) == 3
