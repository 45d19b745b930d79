"""A trained model, called on images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detector.config import from_plain
from detector.config.registry import AUGMENTATIONS, DATASETS
from detector.data.export import write_coco
from detector.data.loader import EvaluationItems, collate
from detector.errors import ConfigError, DataError
from detector.inference.detections import Detections
from detector.inference.predict import predict
from detector.inference.predictor import Predictor
from detector.inference.predictor import load_checkpoint as load
from tests.data.files import write_image
from tests.training.tiny import go, tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run under `run`, and val images under `val`."""
    path = tmp_path_factory.mktemp("predictor")
    plain = tiny(path / "run", steps=12, batch_size=8)
    go(plain)
    write_coco(DATASETS.build(from_plain(plain).data).read("val"), path, "val")
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> Predictor:
    return load(folder / "run" / "checkpoints" / "last.pt", device="cpu")


def assert_equal(ours: Detections, theirs: Detections) -> None:
    """To the bit."""
    for name in ("boxes", "scores", "labels"):
        assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name


def test_a_path_an_image_an_array_and_a_tensor_are_the_same(folder: Path, model: Predictor) -> None:
    path = folder / "val" / "000001.png"
    found = model(path, threshold=0.0)
    assert len(found) == 100
    with Image.open(path) as image:
        pixels = np.array(image.convert("RGB"))
        assert_equal(model(image, threshold=0.0), found)
    assert_equal(model(str(path), threshold=0.0), found)
    assert_equal(model(pixels, threshold=0.0), found)
    assert_equal(model(torch.from_numpy(pixels).permute(2, 0, 1), threshold=0.0), found)


def test_it_finds_what_the_tool_writes(folder: Path, model: Predictor, tmp_path: Path) -> None:
    """Boxes, scores and names, to the bit."""
    path = folder / "run" / "checkpoints" / "last.pt"
    written = predict(
        path, folder / "val", output_dir=tmp_path / "out", device="cpu", threshold=0.0
    )
    rows = json.loads(written.read_text())
    assert any(row["scores"] for row in rows)
    for row in rows:
        found = model(folder / "val" / row["file"], threshold=0.0)
        assert {"file": row["file"], **found.to_dict()} == row


def test_of_several_images_each_has_what_it_has_alone(
    folder: Path, model: Predictor, tmp_path: Path
) -> None:
    """Equal up to rounding: a convolution of two images may add up in another order."""
    write_image(tmp_path / "wide.png", 40, 90)
    paths = [folder / "val" / "000001.png", tmp_path / "wide.png", folder / "val" / "000002.png"]
    together = model(paths, threshold=0.0, batch_size=2)
    assert [len(found) for found in together] == [100] * 3
    for path, found in zip(paths, together, strict=True):
        alone = model(path, threshold=0.0)
        np.testing.assert_allclose(found.scores, alone.scores, rtol=1e-4)
        # A box is exchanged with its neighbour where their scores are nearly the same.
        np.testing.assert_allclose(found.boxes[:5], alone.boxes[:5], rtol=1e-3, atol=1e-2)
    assert model([]) == []


def test_a_batch_of_a_loader_is_detected_and_its_outputs_are_to_be_had(
    folder: Path, model: Predictor
) -> None:
    dataset = DATASETS.build(model.config.data).read("val")
    items = EvaluationItems(dataset, AUGMENTATIONS.build(model.config.augment))
    batch, _ = collate([items[0, 0], items[0, 1]])
    predictions = model.predict(batch)
    assert predictions.logits.shape[::2] == (2, model.layout.num_outputs)
    assert not predictions.logits.requires_grad
    found = model.detect(batch)
    for ours, theirs in zip(found, model.decode(predictions, batch), strict=True):
        assert_equal(ours, theirs)


def test_it_says_what_it_knows(model: Predictor) -> None:
    assert model.classes[0] == "red circle"
    assert len(model.category_ids) == len(model.classes) == model.layout.num_classes
    assert model.config.loss.name == "focal"
    assert "4 classes (red circle, " in repr(model)
    assert model.calibration is None


@pytest.mark.parametrize("threshold", [1.0, -0.1, "best"])
def test_a_threshold_that_is_none_is_refused(model: Predictor, threshold: float) -> None:
    with pytest.raises(ConfigError, match=rf"threshold: {threshold} given, 0 to below 1"):
        model(np.zeros((64, 64, 3), np.uint8), threshold=threshold)


def test_what_is_not_stored_cannot_be_asked_for(model: Predictor) -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    for options in ({"threshold": "auto"}, {"calibrated": True}):
        with pytest.raises(ConfigError, match=r"last\.pt has no calibrator and no operating"):
            model(pixels, **options)


def test_what_is_no_image_is_named(model: Predictor, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"array of shape \(64, 64\) and type uint8 given"):
        model(np.zeros((64, 64), np.uint8))
    with pytest.raises(DataError, match=r"a tensor \(64, 64, 3\) of torch.uint8 given"):
        model(torch.zeros(64, 64, 3, dtype=torch.uint8))
    (tmp_path / "a.jpg").write_bytes(b"<html>")
    with pytest.raises(DataError, match=r"a\.jpg: cannot be read as an image"):
        model(tmp_path / "a.jpg")


def test_what_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"checkpoint: .*no\.pt is not a file"):
        load(tmp_path / "no.pt")


def test_another_precision_is_taken(folder: Path) -> None:
    path = folder / "run" / "checkpoints" / "last.pt"
    assert load(path, device="cpu", precision="bfloat16").precision.name == "bfloat16"
    with pytest.raises(ConfigError, match="precision: 'half' is not one of auto, "):
        load(path, device="cpu", precision="half")
