"""Scores a checkpoint: `python tools/evaluate.py checkpoint=FILE`. See --help."""

from __future__ import annotations

from cli import main
from omegaconf import DictConfig


def evaluate(node: DictConfig) -> None:
    """Writes metrics.json and detections.json, and prints the COCO table."""
    from detector import schema
    from detector.config import plain_values
    from detector.registry import import_plugins
    from detector.startup import check_versions
    from detector.tool_config import EvaluateConfig

    config = schema.build(EvaluateConfig, plain_values(node))
    import_plugins(config.plugins)
    check_versions()  # a checkpoint may be anyone's: reading it is safe from torch 2.10 on

    from detector.engine.evaluate import evaluate_checkpoint  # torch takes seconds

    evaluate_checkpoint(
        config.checkpoint,
        output_dir=config.output_dir,
        device=config.device,
        precision=config.precision,
        evaluator=config.evaluator,
        data_root=config.data_root,
    )


if __name__ == "__main__":
    main("evaluate", evaluate)
