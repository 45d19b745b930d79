"""Draws what a checkpoint finds: `detector predict checkpoint=FILE source=FOLDER`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Literal

from omegaconf import DictConfig

from detector.cli import hydra_app
from detector.cli.options import checked, start
from detector.config import Precision
from detector.config.ranges import AtLeast, require_ranges
from detector.config.schema import require


@dataclass(frozen=True)
class PredictConfig:
    """One call of `tools/predict.py`. See `configs/predict.yaml` for what each key means."""

    checkpoint: str
    source: str | tuple[str, ...]
    output_dir: str | None = None
    overwrite: bool = False
    formats: tuple[Literal["json", "coco", "yolo", "csv"], ...] = ("json",)
    draw: bool = True
    crops: bool = False
    limit: Annotated[int | None, AtLeast(1)] = None
    threshold: float | Literal["auto"] = 0.3
    operating_point: Literal["lrp", "f1", "cost", "fppi"] = "lrp"
    calibrated: bool = False
    max_megapixels: float = 100.0
    device: str = "auto"
    precision: Precision | None = None
    plugins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_ranges(self)
        is_known = self.threshold == "auto" or 0 <= self.threshold < 1
        require(is_known, f"threshold: {self.threshold} given, 0 to below 1 is allowed, or auto")


def run(node: DictConfig) -> None:
    """Writes a copy of each image with its boxes drawn, and predictions.json."""
    options = checked(PredictConfig, node)
    start(options.plugins)

    from detector.inference.predict import predict  # torch takes seconds

    values = {field.name: getattr(options, field.name) for field in fields(options)}
    for key in ("checkpoint", "source", "plugins"):
        del values[key]
    predict(options.checkpoint, options.source, **values)


def main() -> None:
    hydra_app.main("predict", run)
