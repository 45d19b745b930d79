"""Writes weights as safetensors: `detector export checkpoint=FILE output=FILE`."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import DictConfig

from detector.cli import hydra_app
from detector.cli.options import checked, start


@dataclass(frozen=True)
class ExportConfig:
    """One call of `tools/export.py`. See `configs/export.yaml` for what each key means."""

    checkpoint: str
    output: str
    overwrite: bool = False


def run(node: DictConfig) -> None:
    """The weights that are evaluated, with config and classes as text beside them."""
    options = checked(ExportConfig, node)
    start()

    from detector.runs.export import export  # torch takes seconds

    path = export(options.checkpoint, options.output, overwrite=options.overwrite)
    print(f"written: {path}")


def main() -> None:
    hydra_app.main("export", run)
