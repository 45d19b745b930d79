"""The built-in set through files: what the tool writes is what the reader gives back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from detector.config.model import AnchorConfig
from detector.data.export import figures, table, write_coco
from detector.data.loader import evaluation_batches, train_batches
from detector.data.readers.base import SPLITS, Dataset
from detector.data.readers.coco import CocoReader
from detector.data.readers.generated import GeneratedReader
from detector.data.transforms import Albumentations
from detector.matchers.retinanet import RetinaNetMatcher
from detector.models.anchors import AnchorGenerator
from detector.structures import BACKGROUND, Anchors, Batch, Matches, Targets
from tests.data.files import assert_same_batches, make_dataset

AUGMENT = Albumentations(scale_jitter=(0.7, 1.4), color=0.5)


@pytest.fixture
def reader() -> GeneratedReader:
    return GeneratedReader(num_train=6, num_val=3, image_size=96, max_size=40.0)


def exported(reader: GeneratedReader, folder: Path) -> CocoReader:
    for split in SPLITS:
        write_coco(reader.read(split), folder, split)
    return CocoReader(
        root=str(folder),
        train_annotations="annotations/instances_train.json",
        train_images="train",
        val_annotations="annotations/instances_val.json",
        val_images="val",
    )


def test_the_reader_gives_the_same_batches_from_the_files(
    reader: GeneratedReader, tmp_path: Path
) -> None:
    files = exported(reader, tmp_path)

    def train(dataset: Dataset) -> list[tuple[Batch, Targets]]:
        return list(
            train_batches(dataset, AUGMENT, seed=3, batch_size=4, micro_batch=2, stop_step=4)
        )

    def val(dataset: Dataset) -> list[tuple[Batch, Targets]]:
        return list(evaluation_batches(dataset, AUGMENT, images_per_group=2))

    assert_same_batches(train(reader.read("train")), train(files.read("train")))
    assert_same_batches(val(reader.read("val")), val(files.read("val")))


def test_the_annotations_are_the_same_to_the_bit(reader: GeneratedReader, tmp_path: Path) -> None:
    files = exported(reader, tmp_path)
    for split in SPLITS:
        ours, theirs = reader.read(split).annotations, files.read(split).annotations
        assert theirs.fingerprint == ours.fingerprint


def test_crowds_odd_ids_and_empty_images_survive(tmp_path: Path) -> None:
    dataset = make_dataset([(20, 30), (33, 10), (8, 8)], [3, 0, 1])
    path = write_coco(dataset, tmp_path, "val")
    content = json.loads(path.read_text())
    assert [row["iscrowd"] for row in content["annotations"]] == [0, 0, 1, 0]
    assert [row["id"] for row in content["images"]] == [100, 101, 102]
    assert sorted(p.name for p in (tmp_path / "val").iterdir()) == [
        "000100.png",
        "000101.png",
        "000102.png",
    ]


def match(batch: Batch, targets: Targets) -> Matches:
    """As the default: RetinaNet's anchors and matcher."""
    anchors = AnchorGenerator(AnchorConfig()).for_image(*batch.images.shape[-2:])
    return RetinaNetMatcher()(anchors, targets, None)


def test_the_default_has_a_thousand_background_anchors_for_each_foreground_one() -> None:
    dataset = GeneratedReader(num_train=300).read("train")
    values = figures(dataset, Albumentations(), match)
    assert values["background_per_foreground"] >= 1000
    assert values["share_under_32_px"] >= 0.5
    assert values["objects"] == len(dataset.annotations.labels)


def test_figures_by_hand() -> None:
    """Three images: two objects of 20 px^2 and a crowd; none; one object. An anchor for each."""
    dataset = make_dataset([(20, 30), (32, 32), (8, 8)], [3, 0, 1])

    def first_anchor(batch: Batch, targets: Targets) -> Matches:
        anchors = Anchors(torch.zeros(10, 4), torch.ones(10), (10,))
        labels = torch.full((len(batch.images), 10), BACKGROUND)
        labels[:, 0] = 2
        return Matches(labels, torch.zeros(*labels.shape, 4), labels, anchors, targets)

    assert figures(dataset, Albumentations(), first_anchor) == {
        "images": 3,
        "objects": 3,
        "objects_per_image": 1.0,
        "images_without_objects": 1,
        "share_under_32_px": 1.0,
        "foreground_anchors": 1.0,
        "background_anchors": 9.0,
        "background_per_foreground": 9.0,
    }
    limited = figures(dataset, Albumentations(), first_anchor, limit=1)
    assert (limited["images"], limited["objects"]) == (1, 2)


def test_the_table_has_a_line_for_each_figure() -> None:
    lines = table({"objects_per_image": 1.5, "background_per_foreground": 1234.5678}).splitlines()
    assert [line.split() for line in lines] == [
        ["objects", "per", "image", "1.5"],
        ["background", "per", "foreground", "1,234.57"],
    ]
