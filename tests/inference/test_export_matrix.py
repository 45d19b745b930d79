"""Every engine, kind of outputs, layout, batch and image shape: each box has its partner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import detector
from detector.inference.export import ExportOptions, export
from detector.inference.graph import load_graph
from detector.inference.verify import BOUNDS, compare
from detector.runs import checkpoint
from tests.training.tiny import go, tiny

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

LAYOUTS = {"Sigmoid": "focal", "Softmax": "ssd", "Objectness": "yolo_objectness"}


@pytest.fixture(scope="module", params=LAYOUTS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of each layout whose scores lie apart, some beyond 0.3 and most below.

    After two steps the scores of all anchors are alike, and which of them are the best hundred, or
    the better of two that overlap, is decided by the last digits. No trained model is like that.
    """
    folder = tmp_path_factory.mktemp(request.param)
    loss = {"name": LAYOUTS[request.param], "weight": 1.0}
    path = go(tiny(folder / "run", steps=2, loss=loss)) / "checkpoints" / "last.pt"
    saved = checkpoint.load(path)
    for state in (saved["model"], saved["ema"]):
        for name, value in state.items():
            if name.endswith("head.class_outputs.weight"):
                value *= 60.0
            if name.endswith("head.class_outputs.bias"):
                rows = value.view(9, -1).zero_()  # an anchor's classes are the last four
                rows[:, : -4 if request.param == "Objectness" else None] = -3.0
                if request.param == "Softmax":
                    rows[:, :-4] = 0.0  # of the background
    checkpoint.save(folder / "sure.pt", saved)
    return folder / "sure.pt"


def images() -> list[Any]:
    """Of two shapes, three of each, so that three can go together."""
    generator = np.random.default_rng(0)
    shapes = [(64, 64), (70, 130)] * 3
    return [generator.integers(0, 256, (*shape, 3), np.uint8) for shape in shapes]


@pytest.mark.parametrize("outputs", ["raw", "detections"])
@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".pt2"])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_it_finds_what_its_checkpoint_finds(
    trained: Path, suffix: str, outputs: Any, precision: Any, tmp_path: Path
) -> None:
    if suffix == ".xml":
        pytest.importorskip("openvino")
    options = ExportOptions(outputs=outputs, precision=precision)
    path = export(trained, tmp_path / f"graph{suffix}", options, verify=False).path
    model = detector.load(trained, device="cpu")
    agreement = compare(model, load_graph(path), images(), BOUNDS[precision])
    assert [row.name for row in agreement.rows] == ["1", "3"]
    assert agreement.is_same, "\n".join(agreement.table())


def test_a_graph_of_one_shape_takes_it(trained: Path, tmp_path: Path) -> None:
    options = ExportOptions(outputs="detections", shape=(2, 64, 64))
    path = export(trained, tmp_path / "fixed.onnx", options, verify=False).path
    model = detector.load(trained, device="cpu")
    agreement = compare(model, load_graph(path), images()[::2])
    assert agreement.is_same, "\n".join(agreement.table())
