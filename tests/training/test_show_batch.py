"""Drawn batches hold the pixels that training gets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from detector.config import from_plain
from detector.config.registry import AUGMENTATIONS, DATASETS, MATCHERS
from detector.data.loader import train_batches
from detector.errors import ConfigError
from detector.models.anchors import AnchorGenerator
from detector.training.show_batch import picture, show_batches, summary
from tests.commands import Command
from tests.training.tiny import tiny


def show(
    folder: Path, *, batches: int = 1, with_matches: bool = False, **changes: Any
) -> list[Path]:
    train = from_plain(tiny(folder, **changes))
    return show_batches(train, batches=batches, with_matches=with_matches)


def test_a_picture_holds_the_pixels_of_the_batch(tmp_path: Path) -> None:
    (path,) = show(tmp_path / "new")
    train = from_plain(tiny(tmp_path))
    dataset = DATASETS.build(train.data).read("train")
    augment = AUGMENTATIONS.build(train.augment)
    batch, _ = next(
        train_batches(dataset, augment, seed=0, batch_size=4, micro_batch=4, stop_step=1)
    )
    image = np.asarray(Image.open(path))
    # 64 px enlarged 10 times, below a caption of 20 px, 8 px between two of 2 x 2 tiles.
    assert image.shape == (2 * (660 + 8) + 8, 2 * (640 + 8) + 8, 3)
    for i, pixels in enumerate(batch.images.permute(0, 2, 3, 1).numpy()):
        top, left = 8 + 20 + i // 2 * 668, 8 + i % 2 * 648
        tile = image[top : top + 640 : 10, left : left + 640 : 10]
        is_same = (tile == pixels).all(-1)
        assert is_same.mean() > 0.5  # the rest is below boxes and names


def test_batches_are_those_that_a_device_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = show(tmp_path, batches=3, micro_batch=2)
    assert [path.name for path in paths] == ["batch_001.png", "batch_002.png", "batch_003.png"]
    assert sorted(tmp_path.iterdir()) == paths
    lines = capsys.readouterr().out.splitlines()
    assert all("2 images of 64 x 64, 0% padding, " in line for line in lines)
    assert len({path.read_bytes() for path in paths}) == 3


def test_matches_are_counted(tmp_path: Path) -> None:
    train = from_plain(tiny(tmp_path))
    dataset = DATASETS.build(train.data).read("train")
    augment = AUGMENTATIONS.build(train.augment)
    batch, targets = next(
        train_batches(dataset, augment, seed=0, batch_size=4, micro_batch=4, stop_step=1)
    )
    anchors = AnchorGenerator(train.model.anchors).for_image(64, 64)
    found = MATCHERS.build(train.matcher)(anchors, targets, None)
    num_objects = int((targets.labels >= 0).sum())
    positives = int((found.labels >= 0).sum())
    assert positives > 0
    text = f"{num_objects} objects, {positives} positive anchors, 0 objects without one"
    assert summary(batch, targets, found).endswith(text)
    plain, matched = (picture(batch, targets, dataset.annotations, f) for f in (None, found))
    assert (np.asarray(plain) != np.asarray(matched)).any()
    none = torch.full_like(found.objects, -1)
    emptied = type(found)(none, found.boxes, none, anchors, targets)
    assert f"0 positive anchors, {num_objects} objects without one" in summary(
        batch, targets, emptied
    )


def test_the_matches_option_draws_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(tmp_path, with_matches=True)
    assert "positive anchors" in capsys.readouterr().out


def test_a_matcher_that_needs_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^matches: matcher=yolo_cell decides by what a model"):
        show(tmp_path / "out", with_matches=True, matcher={"name": "yolo_cell"})
    assert not (tmp_path / "out").exists()
    show(tmp_path, matcher={"name": "yolo_cell"})


class TestTool:
    def test_draws_what_a_training_of_the_same_keys_gets(
        self, command: Command, tmp_path: Path
    ) -> None:
        argv = ["experiment=smoke", "output_dir=seen", "batches=2", "matches=true"]
        outcome = command("show_batch", *argv)
        assert (outcome.code, outcome.err) == (0, "")
        assert [line.partition(":")[0] for line in outcome.out.splitlines()] == [
            "seen/batch_001.png",
            "seen/batch_002.png",
        ]
        assert sorted(os.listdir("seen")) == ["batch_001.png", "batch_002.png"]

    @pytest.mark.parametrize(
        ("argv", "message"),
        [
            (["batches=0"], "batches: 0 given, at least 1 is needed"),
            (["loss.gama=3"], "loss.gama: unknown key (did you mean 'gamma'?); allowed: "),
            (["data=yolo"], "data.root: has to be given"),
        ],
    )
    def test_a_mistake_is_answered_in_one_line(
        self, command: Command, tmp_path: Path, argv: list[str], message: str
    ) -> None:
        outcome = command("show_batch", *argv)
        assert outcome.code == 2
        assert outcome.message.startswith(message)
        assert list(tmp_path.iterdir()) == []
