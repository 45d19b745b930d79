"""A copy of an exported file that says something else of itself; what it computes stays."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from detector.errors import ConfigError
from detector.inference.meaning import METADATA


def restate(source: Path, output: Path, meaning: dict[str, Any]) -> None:
    """Writes `output`, of the format of `source`, with other metadata; an IR's NAME.bin as well.

    What is at `output` is replaced at the end, as a whole. Raises ConfigError where the library of
    the format is missing, and for a program of torch that no export has written.
    """
    text = json.dumps(meaning)
    write = {".onnx": _onnx, ".xml": _openvino, ".pt2": _pt2}[source.suffix.lower()]
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as folder:
        write(source, Path(folder) / output.name, text)
        # The numbers before the graph that names them, which is what is opened.
        for file in sorted(Path(folder).iterdir(), key=lambda file: file.name == output.name):
            os.replace(file, output.with_name(file.name))


def _onnx(source: Path, output: Path, text: str) -> None:
    try:
        import onnx  # type: ignore[import-not-found]
    except ImportError:
        raise ConfigError("onnx is needed: pip install 'dense-detector[onnx]'") from None
    model = onnx.load(source)
    del model.metadata_props[:]
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA, text
    onnx.save(model, output)


def _openvino(source: Path, output: Path, text: str) -> None:
    import openvino  # type: ignore[import-not-found]  # there, since the file was opened by it

    model = openvino.Core().read_model(source)
    model.set_rt_info(text, METADATA)
    openvino.save_model(model, output, compress_to_fp16=False)  # as they are, whatever they are


def _pt2(source: Path, output: Path, text: str) -> None:
    import torch

    from detector.inference import pt2

    pt2.check(str(source))
    program = torch.export.load(source)
    program._example_inputs = None
    torch.export.save(program, output, extra_files={METADATA: text})
