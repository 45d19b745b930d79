"""Fits a calibrator and thresholds: `python tools/calibrate.py checkpoint=FILE output=FILE`."""

from __future__ import annotations

from cli import main
from omegaconf import DictConfig


def calibrate(node: DictConfig) -> None:
    """Writes a copy of the checkpoint that holds them, and prints what each method gains."""
    from detector import schema
    from detector.config import plain_values
    from detector.registry import import_plugins
    from detector.startup import check_versions
    from detector.tool_config import CalibrateConfig

    config = schema.build(CalibrateConfig, plain_values(node))
    import_plugins(config.plugins)
    check_versions()  # a checkpoint may be anyone's: reading it is safe from torch 2.10 on

    from detector.engine import calibrate  # torch takes seconds

    keys = ("method", "target", "min_detections", "miss", "false_alarm", "draws", "seed")
    calibrate.calibrate(
        config.checkpoint,
        config.output,
        fit=calibrate.Fit(**{key: getattr(config, key) for key in keys}),
        overwrite=config.overwrite,
        with_anchors=config.anchors,
        data_root=config.data_root,
        device=config.device,
        precision=config.precision,
    )


if __name__ == "__main__":
    main("calibrate", calibrate)
