"""A model for other programs: `detector export checkpoint=FILE output=model.onnx`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from omegaconf import DictConfig

from detector.cli import hydra_app
from detector.cli.options import checked, start
from detector.config.ranges import AtLeast, require_ranges
from detector.config.schema import require
from detector.inference.load import is_graph


@dataclass(frozen=True)
class ExportConfig:
    """One call of `tools/export.py`. See `configs/export.yaml` for what each key means."""

    checkpoint: str
    output: str
    overwrite: bool = False
    outputs: Literal["raw", "detections"] = "raw"
    precision: Literal["float32", "float16", "int8"] = "float32"
    threshold: float = 0.0
    calibrated: bool = False
    shape: tuple[int, ...] | None = None
    licence: str | None = None
    verify: bool | Literal["only"] = True
    images: str | None = None
    num_images: Annotated[int, AtLeast(1)] = 8
    data_root: str | None = None
    plugins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_ranges(self)
        is_fit = self.shape is None or len(self.shape) == 3
        require(is_fit, f"shape: {self.shape} given, three numbers are needed: N, height, width")


def run(node: DictConfig) -> None:
    """Writes the kind of file that the name of the output ends in."""
    options = checked(ExportConfig, node)
    start(options.plugins)
    if Path(options.output).suffix == ".safetensors" or not is_graph(options.output):
        from detector.runs.export import export as export_weights  # torch takes seconds

        path = export_weights(options.checkpoint, options.output, overwrite=options.overwrite)
        print(f"written: {path}")
        return
    from detector.inference.export import ExportOptions, export, verify

    keys = ("images", "num_images", "data_root")
    where = {key: getattr(options, key) for key in keys}
    if options.verify == "only":
        done = verify(options.checkpoint, options.output, **where)
        print("\n".join(done.lines()))
        return
    shape = None if options.shape is None else (*options.shape[:2], options.shape[2])
    done = export(
        options.checkpoint,
        options.output,
        ExportOptions(
            outputs=options.outputs,
            precision=options.precision,
            threshold=options.threshold,
            calibrated=options.calibrated,
            shape=shape,  # type: ignore[arg-type]
            licence=options.licence,
        ),
        overwrite=options.overwrite,
        verify=options.verify,
        say=partial(print, flush=True),
        **where,
    )
    print("\n".join([*done.lines(), f"written: {done.path}"]))


def main() -> None:
    hydra_app.main("export", run)
