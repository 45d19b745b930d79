"""Scores a checkpoint, or COCO results of any detector: see --help."""

from __future__ import annotations

from cli import main
from omegaconf import DictConfig


def evaluate(node: DictConfig) -> None:
    """Writes metrics.json and what goes with it, and prints the tables."""
    from detector import schema
    from detector.config import plain_values
    from detector.registry import import_plugins
    from detector.startup import check_versions
    from detector.tool_config import EvaluateConfig

    config = schema.build(EvaluateConfig, plain_values(node))
    import_plugins(config.plugins)
    check_versions()  # a checkpoint may be anyone's: reading it is safe from torch 2.10 on

    from detector.engine.evaluate import evaluate_checkpoint, evaluate_detections  # torch: seconds

    keys = ("output_dir", "analysis", "draws", "pictures", "worst", "seed", "evaluator")
    options = {key: getattr(config, key) for key in keys}
    if config.checkpoint is None:
        assert config.detections is not None
        assert config.annotations is not None
        options |= {"images": config.images}
        evaluation = evaluate_detections(config.detections, config.annotations, **options)
    else:
        keys = ("data_root", "calibrated", "device", "precision")
        options |= {key: getattr(config, key) for key in keys}
        evaluation = evaluate_checkpoint(config.checkpoint, **options)
    evaluation.report()


if __name__ == "__main__":
    main("evaluate", evaluate)
