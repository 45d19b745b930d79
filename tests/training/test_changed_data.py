"""Data that change between a stop and the resume: it is said, and `best` is not compared."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from detector.errors import DataError
from detector.runs.checkpoint import load
from tests.training.test_train_faults import exported, generated
from tests.training.tiny import go, tiny

UNBEATEN = 2.0
"""Above any AP."""

ANEW = "best.pt is chosen anew: the scores of two val splits are not compared"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data` and a `run` of two steps on them, that says it was never better."""
    folder = tmp_path_factory.mktemp("original")
    files(folder)
    go(tiny(folder / "run", steps=2, data=options(folder)))
    return folder


def files(folder: Path) -> None:
    exported(generated(num_train=6, num_val=3), folder / "data", {i: i for i in range(1, 5)})


def options(folder: Path) -> dict[str, Any]:
    return {
        "name": "coco",
        "root": str(folder / "data"),
        "train_annotations": "annotations/instances_train.json",
        "train_images": "train",
        "val_annotations": "annotations/instances_val.json",
        "val_images": "val",
    }


def resumed(folder: Path, capsys: pytest.CaptureFixture[str], **changes: Any) -> list[str]:
    """The lines of two more steps."""
    capsys.readouterr()
    last = folder / "run" / "checkpoints" / "last.pt"
    plain = tiny(folder / "run", steps=4, data=options(folder), resume=str(last), **changes)
    go(plain)
    return capsys.readouterr().out.splitlines()


def best_step(folder: Path) -> int:
    return load(folder / "run" / "checkpoints" / "best.pt")["step"]


@pytest.fixture
def copy(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same data, with their times, and the run, whose best is not to be beaten."""
    from detector.runs import checkpoint

    folder = Path(shutil.copytree(original, tmp_path / "copy"))
    last = folder / "run" / "checkpoints" / "last.pt"
    content = load(last)
    content["config"]["data"]["root"] = str(folder / "data")
    checkpoint.save(last, {**content, "best_metric": UNBEATEN})
    return folder


def some_file(folder: Path, split: str) -> Path:
    return sorted((folder / "data" / split).iterdir())[0]


def test_what_has_not_changed_is_not_spoken_of(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = resumed(copy, capsys)
    assert not [line for line in lines if "changed since" in line or "have other" in line]
    assert best_step(copy) == 2


def test_other_val_annotations_are_said_and_best_is_chosen_anew(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copy / "data" / "annotations" / "instances_val.json"
    content = json.loads(path.read_text())
    content["annotations"].pop()
    path.write_text(json.dumps(content))
    lines = resumed(copy, capsys)
    (line,) = [line for line in lines if line.startswith("val annotations have changed since")]
    assert "num_objects " in line
    assert ANEW in lines
    assert best_step(copy) == 4


@pytest.mark.parametrize("split", ["train", "val"])
def test_other_pixels_are_said_by_their_size(
    copy: Path, capsys: pytest.CaptureFixture[str], split: str
) -> None:
    path = some_file(copy, split)
    with Image.open(path) as image:
        size = image.size
    Image.new("RGB", size).save(path)
    lines = resumed(copy, capsys)
    assert f"{split} image files have other sizes than when the checkpoint was made" in lines
    assert (ANEW in lines) == (split == "val")
    assert best_step(copy) == (4 if split == "val" else 2)


def test_another_time_alone_is_said_and_best_stays(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.utime(some_file(copy, "val"))
    lines = resumed(copy, capsys)
    said = "val image files have other times of change, but equal sizes, than when"
    assert [line for line in lines if line.startswith(said)]
    assert ANEW not in lines
    assert best_step(copy) == 2


def test_other_train_annotations_are_refused(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copy / "data" / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    content["annotations"].pop()
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="is not the data the checkpoint was made with"):
        resumed(copy, capsys)
