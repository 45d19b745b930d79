"""Calibration of finished runs, for the page: `python tools/calibration_study.py folder=FOLDER`."""

from __future__ import annotations

from cli import main
from omegaconf import DictConfig


def calibration_study(node: DictConfig) -> None:
    """Writes the numbers as JSON, and the tables into the page."""
    from detector import schema
    from detector.config import plain_values
    from detector.registry import import_plugins
    from detector.study_config import CalibrationStudyConfig

    config = schema.build(CalibrationStudyConfig, plain_values(node))
    import_plugins(config.plugins)

    from detector.engine.calibration_study import study  # torch takes seconds

    found = study(config)
    runs = sum(len(loss["seeds"]) for loss in found["losses"].values())
    print(f"{runs} runs; written: {config.output}, {config.page}")


if __name__ == "__main__":
    main("calibration_study", calibration_study)
