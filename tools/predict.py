"""Draws what a checkpoint finds: `python tools/predict.py checkpoint=FILE source=FOLDER`."""

from __future__ import annotations

from dataclasses import fields

from cli import main
from omegaconf import DictConfig


def predict(node: DictConfig) -> None:
    """Writes a copy of each image with its boxes drawn, and predictions.json."""
    from detector import schema
    from detector.config import plain_values
    from detector.registry import import_plugins
    from detector.startup import check_versions
    from detector.tool_config import PredictConfig

    config = schema.build(PredictConfig, plain_values(node))
    import_plugins(config.plugins)
    check_versions()  # a checkpoint may be anyone's: reading it is safe from torch 2.10 on

    from detector.engine import predict  # torch takes seconds

    options = {f.name: getattr(config, f.name) for f in fields(config)}
    for key in ("checkpoint", "source", "plugins"):
        del options[key]
    predict.predict(config.checkpoint, config.source, **options)


if __name__ == "__main__":
    main("predict", predict)
