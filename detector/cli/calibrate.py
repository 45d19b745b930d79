"""Fits a calibrator and thresholds: `detector calibrate checkpoint=FILE output=FILE`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from omegaconf import DictConfig

from detector.cli import hydra_app
from detector.cli.options import checked, start
from detector.config import Precision
from detector.config.ranges import AtLeast, require_ranges
from detector.config.schema import require


@dataclass(frozen=True)
class CalibrateConfig:
    """One call of `tools/calibrate.py`. See `configs/calibrate.yaml` for what each key means."""

    checkpoint: str
    output: str
    overwrite: bool = False
    method: Literal["platt", "temperature", "isotonic", "link_inverse", "none"] = "platt"
    target: Literal["hit", "iou"] = "hit"
    min_detections: Annotated[int, AtLeast(1)] = 50
    miss: float = 1.0
    false_alarm: float = 1.0
    false_alarms_per_image: float = 0.1
    anchors: bool = False
    draws: Annotated[int, AtLeast(0)] = 500
    seed: Annotated[int, AtLeast(0)] = 0
    data_root: str | None = None
    device: str = "auto"
    precision: Precision | None = None
    plugins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_ranges(self)
        for key in ("miss", "false_alarm", "false_alarms_per_image"):
            cost = getattr(self, key)
            require(0 < cost < float("inf"), f"{key}: {cost} given, a number above 0 is needed")


def run(node: DictConfig) -> None:
    """Writes a copy of the checkpoint that holds them, and prints what each method gains."""
    options = checked(CalibrateConfig, node)
    start(options.plugins)

    from detector.inference.calibrate import Fit, calibrate  # torch takes seconds

    keys = ("method", "target", "min_detections", "draws", "seed")
    keys += ("miss", "false_alarm", "false_alarms_per_image")
    calibrate(
        options.checkpoint,
        options.output,
        fit=Fit(**{key: getattr(options, key) for key in keys}),
        overwrite=options.overwrite,
        with_anchors=options.anchors,
        data_root=options.data_root,
        device=options.device,
        precision=options.precision,
    )


def main() -> None:
    hydra_app.main("calibrate", run)
