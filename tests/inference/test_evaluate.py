"""Scores of a checkpoint, against pycocotools called by hand."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.config import from_plain
from detector.config.registry import DATASETS
from detector.errors import ConfigError
from detector.evaluation.coco import ground_truth
from detector.inference.evaluate import evaluate
from detector.training.run import run
from tests.training.tiny import tiny

NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run long enough for an AP that is not 0."""
    path = tmp_path_factory.mktemp("run")
    plain = tiny(path / "r", steps=30, batch_size=8)
    run(from_plain(plain), plain)
    return path / "r"


def by_hand(folder: Path, truth: dict) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        found = coco.loadRes(str(folder / "detections.json"))
        evaluation = COCOeval(coco, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return list(evaluation.stats)


def test_the_numbers_are_those_of_pycocotools_to_the_last_digit(folder: Path) -> None:
    data = from_plain(tiny(folder)).data
    truth = ground_truth(DATASETS.build(data).read("val").annotations)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["AP"] > 0
    for name, value in zip(NAMES, by_hand(folder, truth), strict=True):
        assert metrics[name] == (None if value == -1 else value), name


@pytest.mark.parametrize("name", ["last", "best"])
def test_a_checkpoint_alone_gives_the_numbers_of_its_run(folder: Path, name: str) -> None:
    output = folder.parent / f"evaluated_{name}"
    path = folder / "checkpoints" / f"{name}.pt"
    metrics = evaluate(path, output_dir=output, device="cpu").metrics
    expected = json.loads((folder / "metrics.json").read_text())
    assert {**metrics, "seconds": 0} == {**expected, "seconds": 0}
    written = (output / "detections.json").read_text()
    assert written == (folder / "detections.json").read_text()


def test_the_default_output_lies_beside_the_checkpoint(folder: Path) -> None:
    evaluate(folder / "checkpoints" / "last.pt", device="cpu")
    assert (folder / "checkpoints" / "evaluation" / "metrics.json").exists()


def test_data_without_a_root_refuse_data_root(folder: Path) -> None:
    with pytest.raises(ConfigError, match="data_root: generated data have no root"):
        evaluate(folder / "checkpoints" / "last.pt", data_root="/elsewhere")
