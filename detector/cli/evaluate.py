"""Scores a checkpoint, or COCO results of any detector. See --help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from omegaconf import DictConfig

from detector.cli import hydra_app
from detector.cli.options import checked, start
from detector.config import Evaluator, Precision
from detector.config.ranges import AtLeast, require_ranges
from detector.config.schema import require
from detector.data.readers.base import Split


@dataclass(frozen=True)
class EvaluateConfig:
    """One call of `tools/evaluate.py`. See `configs/evaluate.yaml` for what each key means."""

    checkpoint: str | None = None
    detections: str | None = None
    annotations: str | None = None
    images: str | None = None
    output_dir: str | None = None
    split: Split = "val"
    data: Any = None
    limit: Annotated[int | None, AtLeast(1)] = None
    analysis: bool | None = None
    calibrated: bool = False
    draws: Annotated[int, AtLeast(0)] = 500
    pictures: bool = True
    worst: Annotated[int, AtLeast(0)] = 10
    seed: Annotated[int, AtLeast(0)] = 0
    data_root: str | None = None
    device: str = "auto"
    precision: Precision | None = None
    evaluator: Evaluator | None = None
    max_detections: Annotated[int | None, AtLeast(1)] = None
    plugins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_ranges(self)
        is_named = isinstance(self.data, dict) and "name" in self.data
        both = is_named and self.data_root is not None
        require(not both, "data_root: given with other data, which have their own data.root")
        files = {"detections": self.detections, "annotations": self.annotations}
        given = [key for key, value in files.items() if value is not None]
        if self.checkpoint is not None:
            keys = [*given, *(["images"] if self.images is not None else [])]
            require(not keys, f"{', '.join(keys)}: given with a checkpoint, which has its own data")
            return
        require(
            bool(given), "checkpoint: has to be given, or else detections=FILE annotations=FILE"
        )
        missing = [key for key in files if key not in given]
        require(not missing, f"{', '.join(missing)}: has to be given with {', '.join(given)}")
        require(self.split == "val", f"split: {self.split} given with detections, which have none")
        for key in ("data", "data_root", "limit", "precision", "calibrated"):
            require(not getattr(self, key), f"{key}: given with detections, a checkpoint is needed")


def run(node: DictConfig) -> None:
    """Writes metrics.json and what goes with it, and prints the tables."""
    options = checked(EvaluateConfig, node)
    start(options.plugins)

    from detector.inference.evaluate import evaluate, evaluate_detections  # torch takes seconds

    shared = (
        "output_dir",
        "analysis",
        "draws",
        "pictures",
        "worst",
        "seed",
        "evaluator",
        "max_detections",
    )
    values = {key: getattr(options, key) for key in shared}
    if options.checkpoint is None:
        assert options.detections is not None
        assert options.annotations is not None
        values["images"] = options.images
        evaluation = evaluate_detections(options.detections, options.annotations, **values)
    else:
        for key in ("split", "data", "data_root", "limit", "calibrated", "device", "precision"):
            values[key] = getattr(options, key)
        evaluation = evaluate(options.checkpoint, **values)
    evaluation.report()


def main() -> None:
    hydra_app.main("evaluate", run)
