"""Writes data in another form: `detector convert_data to=yolo data=coco ...`. See --help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from omegaconf import DictConfig

from detector.cli import hydra_app
from detector.cli.options import checked, start
from detector.config.schema import Plug, require


@dataclass(frozen=True)
class ConvertDataConfig:
    """One call of `tools/convert_data.py`. See `configs/convert_data.yaml` for what keys mean."""

    data: Plug
    output_dir: str
    to: Literal["coco", "yolo", "voc"]
    test: bool = False
    plugins: tuple[str, ...] = ()


def run(node: DictConfig) -> None:
    """Reads the splits, writes them, and prints what was done."""
    options = checked(ConvertDataConfig, node)
    start(options.plugins)

    from detector.config.registry import DATASETS
    from detector.data.formats import convert, keys_of
    from detector.data.readers.base import SPLITS

    require(options.data.name != "held_out", "data: held_out is a part of another set; name that")
    reader = DATASETS.build(options.data)
    splits = (*SPLITS, "test") if options.test else SPLITS
    folder = Path(options.output_dir)
    for line in convert(reader.read, options.to, folder, splits):
        print(line)
    keys = keys_of(options.to, splits)
    print(f"written: {folder}; to train: data={options.to} data.root={folder} {keys}".rstrip())


def main() -> None:
    hydra_app.main("convert_data", run)
