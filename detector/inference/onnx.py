"""ONNX and OpenVINO files of the modules of a graph; INT8 of the former."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from detector.errors import ConfigError
from detector.inference.meaning import METADATA
from detector.inference.modules import suppress_by_torchvision

EXAMPLE = (2, 320, 384)
"""Batch, height and width of the images that an exporter follows where they stay free: none of the
maps is of one cell, which an exporter takes for something that never changes."""

LAST = ("class_outputs", "box_outputs")
INT8_STEPS = ((), LAST, (*LAST, "backbone."), ("head.",), ("head.", "fpn."))
"""What is left in float, by parts of the names of weights, until AP holds: nothing; the last
layers; the backbone as well, whose depthwise convolutions suffer most while the head takes most of
the time; the whole head; head and pyramid."""

MOST_CALIBRATED = 64
"""Images whose ranges of activations are measured."""


@torch.library.custom_op("dense_detector::suppress", mutates_args=())
def suppress_in_onnx(
    boxes: Tensor, scores: Tensor, labels: Tensor, classes: int, limit: float, most: int
) -> Tensor:
    """Stands for ONNX's NonMaxSuppression while the exporter follows the model."""
    return suppress_by_torchvision(boxes, scores, labels, classes, limit, most)


@suppress_in_onnx.register_fake
def _(
    boxes: Tensor, scores: Tensor, labels: Tensor, classes: int, limit: float, most: int
) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool)


def _suppress(boxes: Any, scores: Any, labels: Any, classes: int, limit: float, most: int) -> Any:
    """The operators of `suppress_in_onnx`; boxes of other classes have no score in a class."""
    import onnx_ir  # type: ignore[import-not-found]
    from onnxscript import opset18  # type: ignore[import-not-found]

    op: Any = opset18
    one = op.Constant(value_ints=[1])
    names = op.Unsqueeze(op.Constant(value_ints=list(range(classes))), one)
    own = op.Equal(op.Unsqueeze(labels, one), names)
    by_class = op.Where(own, op.Unsqueeze(scores, one), op.Constant(value_float=-1.0))
    kept = op.NonMaxSuppression(
        boxes,
        by_class,
        op.Constant(value_ints=[most]),
        op.Constant(value_floats=[limit]),
        op.Constant(value_floats=[-0.5]),  # below every score, above what stands for none
    )
    place = op.Gather(kept, op.Constant(value_ints=[0, 2]), axis=1)
    ones = op.Expand(one, op.Shape(kept, start=0, end=1))
    blank = op.ConstantOfShape(op.Shape(scores), value=onnx_ir.tensor(np.zeros(1, np.int64)))
    return op.Cast(op.ScatterND(blank, place, ones), to=onnx_ir.DataType.BOOL)


def write_onnx(
    module: nn.Module,
    names: Iterable[str],
    text: str,
    path: Path,
    *,
    shape: tuple[int, int, int] | None = None,
) -> None:
    """An ONNX file. names: of the outputs. text: the metadata. shape: N, H, W where they are not
    to stay free. Raises ConfigError without the libraries that make it.
    """
    try:
        import onnx  # type: ignore[import-not-found]  # noqa: F401
        import onnxscript  # type: ignore[import-not-found]  # noqa: F401
    except ImportError as error:
        cure = "pip install 'dense-detector[onnx]'"
        raise ConfigError(f"{error.name} is needed to export: {cure}") from None
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    program = torch.onnx.export(
        module,
        example(shape),
        dynamo=True,
        verbose=False,
        input_names=["images", "sizes"],
        output_names=[*names],
        dynamic_shapes=None if shape else free_shapes(),
        custom_translation_table={torch.ops.dense_detector.suppress.default: _suppress},
    )
    assert program is not None
    program.model.metadata_props[METADATA] = text
    program.save(str(path))


def example(shape: tuple[int, int, int] | None) -> tuple[Tensor, Tensor]:
    """Images and sizes for an exporter to follow."""
    count, height, width = shape or EXAMPLE
    return torch.zeros(count, 3, height, width), torch.tensor([[height, width]] * count)


def free_shapes() -> dict[str, dict[int, Any]]:
    """What an exporter has to leave free."""
    free = torch.export.Dim.DYNAMIC
    return {"images": {0: free, 2: free, 3: free}, "sizes": {0: free}}


def write_openvino(source: Path, text: str, path: Path, *, half: bool) -> None:
    """NAME.xml and NAME.bin of an ONNX file; half: numbers are stored in float16.

    Raises ConfigError without OpenVINO.
    """
    try:
        import openvino  # type: ignore[import-not-found]
    except ImportError:
        raise ConfigError("openvino is needed: pip install 'dense-detector[openvino]'") from None
    model = openvino.Core().read_model(source)
    model.set_rt_info(text, METADATA)
    openvino.save_model(model, path, compress_to_fp16=half)


def write_int8(
    source: Path, path: Path, images: Iterable[dict[str, NDArray[Any]]], keep: tuple[str, ...]
) -> int:
    """The ONNX file with its convolutions in 8 bits; how many stayed in float.

    images: inputs of the graph, on which the ranges of activations are measured. keep: parts of the
    names of weights whose convolutions stay in float. By ONNX Runtime: weights by channel,
    activations unsigned.
    """
    import onnx  # type: ignore[import-not-found]
    from onnxruntime.quantization import (  # type: ignore[import-not-found]
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.images = iter(images)

        def get_next(self) -> Any:
            return next(self.images, None)

    model = onnx.load(source)
    left = [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv" and any(part in node.input[1] for part in keep)
    ]
    logging.getLogger().setLevel(logging.ERROR)
    quantize_static(
        source,
        path,
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["Conv"],
        nodes_to_exclude=left,
    )
    return len(left)
