"""One door for every file that holds a trained model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detector.inference.graph import GraphPredictor
    from detector.inference.predictor import Predictor

GRAPHS = (".onnx", ".xml", ".pt2")
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
    framework's weights, or a file of `detector export`: NAME.onnx, NAME.xml of OpenVINO, which need
    no torch, or NAME.pt2 (`GraphPredictor`). device: "auto" takes a GPU where there is one; a graph
    computes on the processor, unless device=cuda is given for an ONNX file. precision: "float32",
    "bfloat16", ...; None: as in training; a graph has its own, but OpenVINO computes in bfloat16
    where that is asked for. plugins: modules to import that register parts of one's own.
    Raises ConfigError for a file that is neither, or one that names parts not known here. Nothing
    in the file is run.
    """
    if is_graph(path):
        from detector.inference.graph import load_graph

        return load_graph(path, device=device, precision=precision)
    from detector.inference.predictor import load_checkpoint

    return load_checkpoint(path, device=device, precision=precision, plugins=plugins)


def is_graph(path: str | Path) -> bool:
    """Whether the name is that of an exported graph."""
    return Path(path).suffix.lower() in GRAPHS
