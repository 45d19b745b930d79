"""What one call of a tool other than `tools/train.py` may say. The classes say what is checked; the
yaml of a tool, in `configs`, says what each key means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from detector.config import Config, Evaluator, Precision
from detector.model_config import ModelConfig
from detector.schema import Plug, require, require_at_least


@dataclass(frozen=True)
class EvaluateConfig:
    """One call of `tools/evaluate.py`. See `configs/evaluate.yaml` for what each key means."""

    checkpoint: str | None = None
    detections: str | None = None
    annotations: str | None = None
    images: str | None = None
    output_dir: str | None = None
    analysis: bool | None = None
    calibrated: bool = False
    draws: int = 500
    pictures: bool = True
    worst: int = 10
    seed: int = 0
    data_root: str | None = None
    device: str = "auto"
    precision: Precision | None = None
    evaluator: Evaluator | None = None
    plugins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_at_least(0, self, "draws", "worst", "seed")
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
        for key in ("data_root", "precision", "calibrated"):
            require(not getattr(self, key), f"{key}: given with detections, a checkpoint is needed")


@dataclass(frozen=True)
class CalibrateConfig:
    """One call of `tools/calibrate.py`. See `configs/calibrate.yaml` for what each key means."""

    checkpoint: str
    output: str
    overwrite: bool = False
    method: Literal["platt", "temperature", "isotonic", "link_inverse", "none"] = "platt"
    target: Literal["hit", "iou"] = "hit"
    min_detections: int = 50
    miss: float = 1.0
    false_alarm: float = 1.0
    anchors: bool = False
    draws: int = 500
    seed: int = 0
    data_root: str | None = None
    device: str = "auto"
    precision: Precision | None = None
    plugins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_at_least(1, self, "min_detections")
        require_at_least(0, self, "draws", "seed")
        for key in ("miss", "false_alarm"):
            cost = getattr(self, key)
            require(0 < cost < float("inf"), f"{key}: {cost} given, a number above 0 is needed")


@dataclass(frozen=True)
class PredictConfig:
    """One call of `tools/predict.py`. See `configs/predict.yaml` for what each key means."""

    checkpoint: str
    source: str
    output_dir: str | None = None
    overwrite: bool = False
    limit: int | None = None
    threshold: float | Literal["auto"] = 0.3
    operating_point: Literal["lrp", "f1", "cost"] = "lrp"
    calibrated: bool = False
    max_megapixels: float = 100.0
    device: str = "auto"
    precision: Precision | None = None
    plugins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_at_least(1, self, "limit")
        is_known = self.threshold == "auto" or 0 <= self.threshold < 1
        require(is_known, f"threshold: {self.threshold} given, 0 to below 1 is allowed, or auto")


@dataclass(frozen=True)
class ShowBatchConfig:
    """One call of `tools/show_batch.py`. See `configs/show_batch.yaml` for what each key means.

    train: all the other keys.
    """

    train: Config
    batches: int = 1
    matches: bool = False

    def __post_init__(self) -> None:
        require_at_least(1, self, "batches")


@dataclass(frozen=True)
class ConvertConfig:
    """One call of `tools/convert.py`. See `configs/convert.yaml` for what each key means."""

    source: Literal["torchvision_v1", "torchvision_v2", "detectron2", "mmdet", "mmdet_caffe"]
    weights: str
    output: str
    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnext50"] = "resnet50"
    data_root: str = "data/coco"


@dataclass(frozen=True)
class GenerateConfig:
    """One call of `tools/generate.py`. See `configs/generate.yaml` for what each key means."""

    data: Plug
    augment: Plug
    matcher: Plug
    model: ModelConfig
    output_dir: str | None = None
    splits: tuple[Literal["train", "val"], ...] = ("train", "val")
    limit: int | None = 200

    def __post_init__(self) -> None:
        require_at_least(1, self, "limit")


@dataclass(frozen=True)
class BenchmarkConfig:
    """One call of `tools/benchmark.py`. See `configs/benchmark.yaml` for what each key means.

    train: all the other keys.
    """

    train: Config
    height: int
    width: int
    classes: int
    objects: int
    warmup: int
    rounds: int
    steps: int
    tf32: bool
    output: str | None

    def __post_init__(self) -> None:
        require_at_least(32, self, "height", "width")
        require_at_least(1, self, "classes", "objects", "rounds", "steps")
        require_at_least(0, self, "warmup")


@dataclass(frozen=True)
class BenchmarkPageConfig:
    """One call of `tools/benchmark_page.py`. folder: what holds the results."""

    folder: str = "docs/benchmarks"


@dataclass(frozen=True)
class TableConfig:
    """One call of `tools/table.py`. folder: what holds the run folders."""

    folder: str


@dataclass(frozen=True)
class ReplayConfig:
    """One call of `tools/replay.py`. See `configs/replay.yaml` for what each key means."""

    folder: str
    device: str = "auto"


@dataclass(frozen=True)
class ExportConfig:
    """One call of `tools/export.py`. See `configs/export.yaml` for what each key means."""

    checkpoint: str
    output: str
    overwrite: bool = False


@dataclass(frozen=True)
class LaunchConfig:
    """One call of `tools/launch.py`. See `configs/launch.yaml` for what each key means."""

    runs: tuple[str, ...]
    folder: str
    parallel: int = 1
    processes: int = 1
    max_restarts: int = 0
    executor: Literal["processes", "slurm", "local"] = "processes"
    slurm: Any = None

    def __post_init__(self) -> None:
        require(len(self.runs) > 0, "runs: none given, at least 1 is needed")
        require_at_least(1, self, "parallel", "processes")
        require_at_least(0, self, "max_restarts")


@dataclass(frozen=True)
class PlotLossesConfig:
    """One call of `tools/plot_losses.py`. See `configs/plot_losses.yaml` for what each key means.

    losses: "all", a name, or a list of names and of keys and values with a name.
    """

    losses: Any
    figure: Literal["curves", "posterior", "focal_1", "focal_5", "focal_6"] = "curves"
    each: bool = False
    panels: tuple[
        Literal["loss_probability", "loss_logit", "gradient_probability", "gradient_logit"], ...
    ] = ("loss_probability", "loss_logit", "gradient_probability", "gradient_logit")
    width: float | None = None
    points: int = 401
    formats: tuple[Literal["png", "svg"], ...] = ("png", "svg")
    output_dir: str = "plots"
    plugins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_at_least(16, self, "points")
        require_at_least(1, self, "width")
        for key in ("panels", "formats"):
            require(len(getattr(self, key)) > 0, f"{key}: none given, at least one is needed")
