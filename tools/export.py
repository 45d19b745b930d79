"""Writes weights as safetensors: `python tools/export.py checkpoint=FILE output=FILE`."""

from __future__ import annotations

from cli import main
from omegaconf import DictConfig


def export(node: DictConfig) -> None:
    """The weights that are evaluated, with config and classes as text beside them."""
    from detector import schema
    from detector.config import plain_values
    from detector.startup import check_versions
    from detector.tool_config import ExportConfig

    config = schema.build(ExportConfig, plain_values(node))
    check_versions()  # a checkpoint may be anyone's: reading it is safe from torch 2.10 on

    from detector.engine import export  # torch takes seconds

    path = export.export(config.checkpoint, config.output, overwrite=config.overwrite)
    print(f"written: {path}")


if __name__ == "__main__":
    main("export", export)
