"""One door for every file that holds a trained model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from detector.config.schema import require

if TYPE_CHECKING:
    from detector.inference.graph import GraphPredictor
    from detector.inference.predictor import Predictor

GRAPHS = (".onnx",)
"""What the names of exported graphs end in; everything else is a checkpoint."""


def load(
    path: str | Path,
    *,
    device: str = "auto",
    precision: str | None = None,
    plugins: Iterable[str] = (),
) -> Predictor | GraphPredictor:
    """The model of a checkpoint or of an exported graph, ready to be called on images.

    path: a checkpoint of a run (`Predictor`), one that `detector convert` has made of another
    framework's weights, or an ONNX file of `detector export` (`GraphPredictor`, which needs no
    torch). device: "auto" takes a GPU where there is one; a graph computes on the processor.
    precision: "float32", "bfloat16", ...; None: as in training. plugins: modules to import that
    register parts of one's own.
    Raises ConfigError for a file that is neither, or one that names parts not known here. Nothing
    in the file is run.
    """
    if is_graph(path):
        require(device in ("auto", "cpu"), f"device: {device} given, a graph computes on the cpu")
        require(precision is None, f"precision: {precision} given, a graph has its own")
        from detector.inference.graph import load_graph

        return load_graph(path)
    from detector.inference.predictor import load_checkpoint

    return load_checkpoint(path, device=device, precision=precision, plugins=plugins)


def is_graph(path: str | Path) -> bool:
    """Whether the name is that of an exported graph."""
    return Path(path).suffix.lower() in GRAPHS
