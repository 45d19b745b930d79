"""Who computes an exported file: ONNX Runtime, OpenVINO, or torch, one function each.

Each gives what computes and the text of the file's metadata. Nothing in a file is run but its
graph, whose operators are those of the engine.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.config.schema import require
from detector.errors import ConfigError
from detector.inference.meaning import METADATA

Arrays = list[NDArray[Any]]
Run = Callable[[NDArray[np.float32], NDArray[np.int64]], Arrays]
"""The outputs of a graph for images (N, 3, H, W) and sizes (N, 2), in their order."""

Opened = tuple[Run, str]


def threads() -> int | None:
    """How many a process may use, where OMP_NUM_THREADS says it; torch follows that by itself."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) > 0 else None


def open_onnx(path: str, device: str, precision: str | None) -> Opened:
    """By ONNX Runtime; device cuda needs its package for GPUs. Raises ConfigError."""
    require(precision is None, f"precision: {precision} given, a graph has its own")
    try:
        import onnxruntime  # type: ignore[import-not-found]
    except ImportError:
        raise ConfigError("onnxruntime is needed: pip install 'dense-detector[onnx]'") from None
    providers = ["CPUExecutionProvider"]
    if device.startswith("cuda"):
        require(
            "CUDAExecutionProvider" in onnxruntime.get_available_providers(),
            f"device: {device} given, but this ONNX Runtime computes on the cpu; "
            "pip install onnxruntime-gpu",
        )
        providers.insert(0, "CUDAExecutionProvider")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # its warnings are about its own optimising
    options.intra_op_num_threads = threads() or 0
    try:
        session = onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:  # of many kinds, none of them documented
        raise unreadable(path, "ONNX", error) from None
    inputs = [each.name for each in session.get_inputs()]
    require(inputs == ["images", "sizes"], f"checkpoint: {path} takes {', '.join(inputs)}")

    def run(images: NDArray[np.float32], sizes: NDArray[np.int64]) -> Arrays:
        found: Any = session.run(None, {"images": images, "sizes": sizes})
        return found

    return run, session.get_modelmeta().custom_metadata_map.get(METADATA, "")


def open_openvino(path: str, device: str, precision: str | None) -> Opened:
    """By OpenVINO, NAME.xml beside NAME.bin. Raises ConfigError.

    precision: "bfloat16" halves the time where the processor has instructions for it; float32
    else, also where OpenVINO would choose less by itself.
    """
    require(device in ("auto", "cpu"), f"device: {device} given, this graph computes on the cpu")
    require(
        precision in (None, "float32", "bfloat16"),
        f"precision: {precision} given, OpenVINO computes in float32 or bfloat16",
    )
    try:
        import openvino  # type: ignore[import-not-found]
    except ImportError:
        raise ConfigError("openvino is needed: pip install 'dense-detector[openvino]'") from None
    require(
        Path(path).with_suffix(".bin").is_file(),
        f"checkpoint: {path} has no {Path(path).stem}.bin beside it, which holds its numbers",
    )
    with open(path, "rb") as file:  # OpenVINO would try the readers of other frameworks, too
        is_net = b"<net" in file.read(1000)
    require(is_net, f"checkpoint: {path} cannot be read as OpenVINO's IR: it does not begin as one")
    options: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    if threads() is not None:
        options["INFERENCE_NUM_THREADS"] = threads()
    try:
        core = openvino.Core()
        model = core.read_model(path)
        text = str(model.get_rt_info(METADATA).value) if model.has_rt_info(METADATA) else ""
        compiled = core.compile_model(model, "CPU", options)
    except Exception as error:
        raise unreadable(path, "OpenVINO's IR", error) from None

    def run(images: NDArray[np.float32], sizes: NDArray[np.int64]) -> Arrays:
        # A request of its own, so that several threads may call; copies, since its memory is.
        found = compiled.create_infer_request().infer([images, sizes], share_inputs=True)
        return [np.array(value) for value in found.values()]

    return run, text


def open_pt2(path: str, device: str, precision: str | None) -> Opened:
    """By torch. Raises ConfigError."""
    require(device in ("auto", "cpu"), f"device: {device} given, this graph computes on the cpu")
    require(precision is None, f"precision: {precision} given, a graph has its own")
    try:
        from detector.inference.pt2 import open_program
    except ImportError as error:
        raise ConfigError(f"{error.name} is needed to compute a .pt2 file") from None
    return open_program(path)


def unreadable(path: str, kind: str, error: Exception) -> ConfigError:
    """One line for whatever an engine says of a file that it refuses."""
    reason = " ".join(str(error).split())[:200]
    return ConfigError(f"checkpoint: {path} cannot be read as {kind}: {reason}")


OPENERS: dict[str, Callable[[str, str, str | None], Opened]] = {
    ".onnx": open_onnx,
    ".xml": open_openvino,
    ".pt2": open_pt2,
}
"""By what the name of a file ends in."""
