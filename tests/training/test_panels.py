"""Pictures and histograms for TensorBoard, which leave training as it is."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from detector.config import from_plain
from detector.config.registry import AUGMENTATIONS, DATASETS, MATCHERS
from detector.data.loader import evaluation_batches
from detector.models.anchors import AnchorGenerator
from detector.runs import checkpoint
from detector.training import panels
from detector.training.panels import fixed_images
from tests.data.files import make_dataset
from tests.training.tiny import go, tiny


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with and without TensorBoard, evaluated after steps 2 and 4."""
    path = tmp_path_factory.mktemp("runs")
    for name, tensorboard in (("with", True), ("without", False)):
        changes = {"steps": 4, "evaluation": {"every": 2}, "tensorboard": tensorboard}
        go(tiny(path / name, **changes))
    return path


@pytest.fixture(scope="module")
def events(runs: Path) -> EventAccumulator:
    return EventAccumulator(str(runs / "with" / "tensorboard")).Reload()


def test_training_is_the_same_to_the_bit_with_and_without(runs: Path) -> None:
    a, b = (checkpoint.load(runs / n / "checkpoints" / "last.pt") for n in ("with", "without"))
    for key in ("model", "ema"):
        assert all(torch.equal(a[key][name], b[key][name]) for name in a[key])
    lines = [(runs / n / "evaluations.jsonl").read_text().splitlines() for n in ("with", "without")]
    for left, right in zip(*lines, strict=True):
        assert {**json.loads(left), "seconds": 0} == {**json.loads(right), "seconds": 0}


def test_without_tensorboard_nothing_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(panels, "write")
    go(tiny(tmp_path / "run", steps=1, tensorboard=False))
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_each_evaluation_shows_the_same_images_with_truth_and_prediction(
    events: EventAccumulator,
) -> None:
    assert events.Tags()["images"] == ["val/image_1", "val/image_2", "val/image_3"]
    for tag in events.Tags()["images"]:
        assert [event.step for event in events.Images(tag)] == [2, 4]
        image = Image.open(io.BytesIO(events.Images(tag)[0].encoded_image_string))
        # 64 px enlarged 4 times, twice side by side, 8 px around, below captions of 20 px.
        assert image.size == (2 * (256 + 8) + 8, 256 + 20 + 16)


def test_the_histograms_hold_every_anchor_that_counts(events: EventAccumulator) -> None:
    config = from_plain(tiny(Path()))
    dataset, matcher = DATASETS.build(config.data).read("val"), MATCHERS.build(config.matcher)
    anchors = AnchorGenerator(config.model.anchors).for_image(64, 64)
    foreground = background = 0
    for _, targets in evaluation_batches(
        dataset, AUGMENTATIONS.build(config.augment), images_per_group=1
    ):
        labels = matcher(anchors, targets, None).labels
        foreground += int((labels >= 0).sum())
        background += int((labels == -1).sum())
    for name, count in (("foreground", foreground), ("background", background)):
        for event in events.Histograms(f"scores/{name}"):
            assert event.histogram_value.num == count > 0
            # The model has barely left its prior of 0.01.
            assert 0 <= event.histogram_value.min <= event.histogram_value.max < 0.5


def test_each_class_has_its_ap(events: EventAccumulator) -> None:
    classes = DATASETS.build(from_plain(tiny(Path())).data).read("val").annotations.classes
    found = {tag for tag in events.Tags()["scalars"] if tag.startswith("val/AP/")}
    assert found
    assert found <= {f"val/AP/{name}" for name in classes}


def test_images_with_objects_are_chosen_first() -> None:
    assert fixed_images(make_dataset([(8, 8)] * 7, [0, 1, 0, 2, 1, 1, 3])) == [1, 3, 4, 5]
    assert fixed_images(make_dataset([(8, 8)] * 3, [0, 1, 0])) == [1, 0, 2]


def test_a_large_image_is_shrunk_with_its_boxes() -> None:
    from detector.data.loader import EvaluationItems, collate
    from detector.drawing.batches import of_objects

    dataset = make_dataset([(512, 1024)], [1])
    items = EvaluationItems(dataset, AUGMENTATIONS.build(from_plain(tiny(Path())).augment))
    batch, targets = collate([items[0, 0]])
    image = panels.beside(batch, of_objects(0, targets, ("a", "b", "c")), [])
    assert image.size == (2 * (512 + 8) + 8, 256 + 20 + 16)
    truth, found = (np.asarray(image)[28:-8, left : left + 512] for left in (8, 528))
    rows, columns = (truth != found).any(-1).nonzero()
    # 4 x 5 px at (0, 2), shrunk to half: the frame around it, and the name below.
    assert columns.min() == 0
    assert rows.min() <= 2
