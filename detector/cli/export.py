"""A model for other programs: `detector export checkpoint=FILE output=model.onnx`."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import DictConfig

from detector.cli import hydra_app
from detector.cli.options import checked, start
from detector.config.schema import require_at_least


@dataclass(frozen=True)
class ExportConfig:
    """One call of `tools/export.py`. See `configs/export.yaml` for what each key means."""

    checkpoint: str
    output: str
    overwrite: bool = False
    images: str | None = None
    num_images: int = 8
    plugins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_at_least(1, self, "num_images")


def run(node: DictConfig) -> None:
    """Writes the kind of file that the name of the output ends in."""
    options = checked(ExportConfig, node)
    start(options.plugins)
    if options.output.endswith(".onnx"):
        from detector.inference.onnx import export_onnx  # torch takes seconds

        path, agreement = export_onnx(
            options.checkpoint,
            options.output,
            overwrite=options.overwrite,
            images=options.images,
            num_images=options.num_images,
        )
        print(f"the same as the checkpoint: {agreement}")
    else:
        from detector.runs.export import export

        path = export(options.checkpoint, options.output, overwrite=options.overwrite)
    print(f"written: {path}")


def main() -> None:
    hydra_app.main("export", run)
