"""The typed config of a training run.

A `Plug` is a named part with options; the registry checks them against the part's constructor, so
that a new part needs no edit here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from detector.config import schema
from detector.config.model import ModelConfig
from detector.config.ranges import Above, AtLeast, Between, require_ranges
from detector.config.registry import REGISTRIES
from detector.config.schema import LossPlug, Plug, require

Precision = Literal["auto", "float64", "float32", "bfloat16", "float16"]
Evaluator = Literal["pycocotools", "faster_coco_eval"]
Compile = Literal["off", "loss", "model", "step"]


@dataclass(frozen=True)
class EMAConfig:
    """Averaged weights, which are what is evaluated. decay: per step, reached after a warm-up."""

    enabled: bool = True
    decay: Annotated[float, Between(0, 1, is_below=True)] = 0.998

    def __post_init__(self) -> None:
        require_ranges(self)


@dataclass(frozen=True)
class ProbeConfig:
    """What is recorded for the report of a comparison. points: steps; images: of the val split."""

    enabled: bool = False
    points: Annotated[int, AtLeast(1)] = 20
    images: Annotated[int, AtLeast(0)] = 3

    def __post_init__(self) -> None:
        require_ranges(self)


@dataclass(frozen=True)
class LoaderConfig:
    """num_workers: null takes one less than the processors this process may use, at most 8."""

    num_workers: Annotated[int | None, AtLeast(0)] = None
    timeout: Annotated[float, AtLeast(0)] = 300.0

    def __post_init__(self) -> None:
        require_ranges(self)

    @property
    def workers(self) -> int:
        """Loader processes of this process."""
        if self.num_workers is not None:
            return self.num_workers
        return min(8, max(0, num_processors() - 1))


@dataclass(frozen=True)
class EvaluationConfig:
    """When and with what to evaluate. every: steps between evaluations; null: only at the end;
    auto: once an epoch, 100 times a run at most, and only at the end on the generated set.

    images_per_group: images of one evaluation batch. evaluator: pycocotools is the reference;
    faster_coco_eval needs the extra `fast-eval`. limit: only the first images by id.
    max_detections: of an image that count; above 100, as many are detected in the evaluation.
    analysis: calibration, errors and operating points too. draws: of their intervals, at the end of
    a run. pictures, worst: of the analysis, the latter in images of each kind.
    """

    every: int | Literal["auto"] | None = "auto"
    images_per_group: Annotated[int, AtLeast(1)] = 8
    evaluator: Evaluator = "pycocotools"
    limit: Annotated[int | None, AtLeast(1)] = None
    max_detections: Annotated[int, AtLeast(1)] = 100
    analysis: bool = False
    draws: Annotated[int, AtLeast(0)] = 500
    pictures: bool = True
    worst: Annotated[int, AtLeast(0)] = 10

    def __post_init__(self) -> None:
        require_ranges(self)
        is_known = self.every in (None, "auto") or (isinstance(self.every, int) and self.every > 0)
        require(is_known, f"every: {self.every} given, at least 1 is needed, or auto, or null")


@dataclass(frozen=True)
class Ramp:
    """A numeric option of a loss as a straight line over a part of the run.

    option: such as loss.gamma or loss.weight. start, end: its values before and after.
    begin, until: shares of the run, 0 to 1, between which it changes.
    """

    option: str
    start: float
    end: float
    begin: float = 0.0
    until: float = 1.0

    def __post_init__(self) -> None:
        require(
            0 <= self.begin < self.until <= 1,
            f"begin: {self.begin}, until: {self.until} given, 0 <= begin < until <= 1 is needed",
        )


@dataclass(frozen=True)
class Config:
    """One training run. See `configs/train.yaml` for what each key means."""

    loss: LossPlug
    box_loss: LossPlug
    matcher: Plug
    backbone: Plug
    data: Plug
    augment: Plug
    optim: Plug
    schedule: Plug
    neck: Plug = Plug("fpn", {})  # noqa: RUF009  frozen; runs from before it was a choice had this
    sampler: Plug = Plug("shuffle", {})  # noqa: RUF009  frozen, so it can be shared
    model: ModelConfig = ModelConfig()  # noqa: RUF009
    evaluation: EvaluationConfig = EvaluationConfig()
    loader: LoaderConfig = LoaderConfig()
    ema: EMAConfig = EMAConfig()
    probe: ProbeConfig = ProbeConfig()
    seed: Annotated[int, AtLeast(0)] = 0
    output_dir: str | None = None
    resume: str | None = None
    weights: str | None = None
    overwrite: bool = False
    device: str = "auto"
    precision: Precision = "auto"
    channels_last: bool = True
    compile: Compile = "off"
    fold: bool = True
    sync_batchnorm: bool = False
    process_timeout: Annotated[float, AtLeast(1)] = 600.0
    steps: Annotated[int | None, AtLeast(1)] = None
    epochs: Annotated[float | None, Above(0)] = None
    patience: Annotated[int | None, AtLeast(1)] = None
    batch_size: Annotated[int, AtLeast(1)] = 8
    micro_batch: Annotated[int | None, AtLeast(1)] = None
    prior: float | Literal["from_data"] = 0.01
    normalizer: Literal["positives", "image_positives", "ema_positives", "images"] | None = None
    guided_scale: bool = False
    quality_targets: Literal["iou", "matcher"] | None = None
    distribution_weight: Annotated[float, AtLeast(0)] = 0.25
    rating: Literal["iou", "centerness"] | None = None
    rating_weight: Annotated[float, AtLeast(0)] = 1.0
    level_weights: Literal["positives"] | None = None
    class_weights: tuple[float, ...] | Literal["effective_number", "frequency"] | None = None
    class_weights_power: Annotated[float, Between(0, 2)] = 1.0
    effective_number_beta: Annotated[float, Between(0, 1, is_below=True)] = 0.999
    ramps: tuple[Ramp, ...] = ()
    clip: Annotated[float | None, Above(0)] = 10.0
    max_bad_steps: Annotated[int, AtLeast(1)] = 5
    log_every: Annotated[int, AtLeast(1)] = 20
    profile: bool = False
    save_every: Annotated[int | None, AtLeast(1)] = 500
    keep_checkpoints: Annotated[int, AtLeast(1)] = 2
    tensorboard: bool = True
    plugins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(
            (self.steps is None) != (self.epochs is None),
            f"steps: {self.steps} with epochs: {self.epochs} given, exactly one of them is needed",
        )
        require_ranges(self)
        require(
            self.patience is None or self.evaluation.every is not None,
            f"patience: {self.patience} with evaluation.every=null given; a number of steps "
            "between evaluations is needed, or patience=null",
        )
        require(
            self.patience is None or not self.probe.enabled,
            f"patience: {self.patience} with probe.enabled=true given; the probe's steps are "
            "spread over a run of known length, so patience=null is needed",
        )
        if self.prior != "from_data":
            require(
                isinstance(self.prior, float) and 0 < self.prior < 1,
                f"prior: {self.prior} given, above 0 and below 1 or from_data is allowed",
            )
        ramped = [r.option for r in self.ramps if not r.option.endswith(".weight")]
        require(
            self.compile not in ("loss", "step") or not ramped,
            f"compile: {self.compile} given, but ramps of {', '.join(ramped)} change what is "
            "compiled in each step; off or model is allowed, and ramps of weights are",
        )
        if isinstance(self.class_weights, tuple):
            require(
                all(w >= 0 for w in self.class_weights),
                f"class_weights: {list(self.class_weights)} given, each has to be at least 0",
            )


def num_processors() -> int:
    """The processors this process may use; those of the machine where the system cannot tell."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def from_plain(values: dict[str, Any]) -> Config:
    """The checked config of plain values, as a checkpoint holds them. Raises ConfigError.

    The options of the parts are not looked at: that takes the parts, see `check_parts`.
    """
    schema.refuse_targets(values)
    return schema.build(Config, values)


def check_parts(config: Config) -> None:
    """Raises ConfigError for a part without that name or option. Imports the parts, so torch."""
    for kind, registry in REGISTRIES.items():
        registry.check(getattr(config, kind))
