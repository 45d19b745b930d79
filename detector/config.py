"""The typed schema of the config; the only file of the package that knows OmegaConf.

Hydra composes the yaml files, `from_omegaconf` turns the result into `Config`; below that all is
plain Python. A `Plug` is a named part with options; the registry checks them against the part's
constructor, so that a new part needs no edit here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf

from detector import schema
from detector.errors import ConfigError
from detector.registry import REGISTRIES
from detector.schema import LossPlug, Plug, require, require_at_least

Precision = Literal["auto", "float64", "float32", "bfloat16", "float16"]
Evaluator = Literal["pycocotools", "faster_coco_eval"]


@dataclass(frozen=True)
class FPNConfig:
    """channels: width of P3 to P7. p6_source: what P6 is made from; "c5" is Lin et al. 2017.

    p7_relu: P7 is made from relu(P6), as there; mmdetection's from P6 itself. init: of the weights;
    mmdetection's is xavier_uniform.
    """

    channels: int = 256
    p6_source: Literal["c5", "p5"] = "c5"
    p7_relu: bool = True
    init: Literal["kaiming_uniform", "xavier_uniform"] = "kaiming_uniform"


@dataclass(frozen=True)
class AnchorConfig:
    """size: side on a level in units of its stride. scales, ratios (h / w): as in Lin et al. 2017.

    offset: where in its cell an anchor is centred, 0.5 is the middle; in torchvision, detectron2
    and mmdetection it is 0, a corner. stride_mode: "image" is torchvision's, whole pixels of the
    padded image per cell, other than 8 to 128 where a level's cells stand over its border.
    round_to_pixels: sides cut and corners rounded to whole pixels, as in torchvision.
    """

    size: float = 4.0
    scales: tuple[float, ...] = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    offset: float = 0.5
    stride_mode: Literal["fixed", "image"] = "fixed"
    round_to_pixels: bool = False


@dataclass(frozen=True)
class HeadConfig:
    """Two towers of `num_convs` 3 x 3 convolutions, shared over levels."""

    channels: int = 256
    num_convs: int = 4
    norm: Literal["none", "group"] = "none"


@dataclass(frozen=True)
class CoderConfig:
    """weights: factors of (dx, dy, dw, dh); 1 is RetinaNet's, SSD's are (10, 10, 5, 5).

    clamp: where dw and dh are cut, at a factor of 1000 / 16: "upper" (torchvision, detectron2),
    "both" (mmdetection: not below 16 / 1000 either).
    """

    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    clamp: Literal["upper", "both"] = "upper"


@dataclass(frozen=True)
class PostprocessConfig:
    """From outputs to detections: top-k of a level, threshold, NMS within a class, best of image.

    score_threshold: 0 for scoring, so that no loss is cut off by the level of its scores.
        from_prior: the probability of any object before training (Chen et al. 2019, arXiv
        1909.04868, section 4.3), which `prior=from_data` makes the share of positives.
    topk_of: "pairs" of anchor and class; "anchors" by their best class (mmdetection before 3).
    clip: when boxes are cut to the image, before NMS or after (detectron2).
    drop_empty: boxes without area go; torchvision keeps them.
    """

    score_threshold: float | Literal["from_prior"] = 0.0
    topk_per_level: int = 1000
    nms_iou: float = 0.5
    detections_per_image: int = 100
    topk_of: Literal["pairs", "anchors"] = "pairs"
    clip: Literal["before_nms", "after_nms"] = "before_nms"
    drop_empty: bool = True

    def __post_init__(self) -> None:
        require_at_least(1, self, "topk_per_level", "detections_per_image")
        for key in ("score_threshold", "nms_iou"):
            value = getattr(self, key)
            is_share = isinstance(value, str) or 0 <= value <= 1
            require(is_share, f"{key}: {value} given, 0 to 1 is allowed")

    def resolve(self, prior: float, num_outputs: int) -> PostprocessConfig:
        """With the threshold as a number. num_outputs: outputs that each begin at the prior."""
        if self.score_threshold != "from_prior":
            return self
        return replace(self, score_threshold=min(1.0, prior * num_outputs))


@dataclass(frozen=True)
class ModelConfig:
    fpn: FPNConfig = FPNConfig()
    anchors: AnchorConfig = AnchorConfig()
    head: HeadConfig = HeadConfig()
    coder: CoderConfig = CoderConfig()
    postprocess: PostprocessConfig = PostprocessConfig()


@dataclass(frozen=True)
class EMAConfig:
    """Averaged weights, which are what is evaluated. decay: per step, reached after a warm-up."""

    enabled: bool = True
    decay: float = 0.998

    def __post_init__(self) -> None:
        require(0 <= self.decay < 1, f"decay: {self.decay} given, 0 to below 1 is allowed")


@dataclass(frozen=True)
class LoaderConfig:
    """num_workers: null takes one less than the processors this process may use, at most 8."""

    num_workers: int | None = None
    timeout: float = 300.0

    def __post_init__(self) -> None:
        require_at_least(0, self, "num_workers", "timeout")

    @property
    def workers(self) -> int:
        """Loader processes of this process."""
        if self.num_workers is not None:
            return self.num_workers
        return min(8, max(0, num_processors() - 1))


@dataclass(frozen=True)
class EvaluationConfig:
    """When and with what to evaluate. every: steps between evaluations; null: only at the end.

    images_per_group: images of one evaluation batch. evaluator: pycocotools is the reference;
    faster_coco_eval needs the extra `fast-eval`. limit: only the first images by id.
    """

    every: int | None = None
    images_per_group: int = 8
    evaluator: Evaluator = "pycocotools"
    limit: int | None = None

    def __post_init__(self) -> None:
        require_at_least(1, self, "every", "images_per_group", "limit")


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
    model: ModelConfig = ModelConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    loader: LoaderConfig = LoaderConfig()
    ema: EMAConfig = EMAConfig()
    seed: int = 0
    output_dir: str | None = None
    resume: str | None = None
    weights: str | None = None
    overwrite: bool = False
    device: str = "auto"
    precision: Precision = "auto"
    channels_last: bool = True
    sync_batchnorm: bool = False
    process_timeout: float = 600.0
    steps: int | None = None
    epochs: float | None = None
    batch_size: int = 8
    micro_batch: int | None = None
    prior: float | Literal["from_data"] = 0.01
    normalizer: Literal["positives", "image_positives", "ema_positives", "images"] | None = None
    guided_scale: bool = False
    class_weights: tuple[float, ...] | Literal["effective_number"] | None = None
    effective_number_beta: float = 0.999
    ramps: tuple[Ramp, ...] = ()
    clip: float | None = 10.0
    max_bad_steps: int = 5
    log_every: int = 20
    profile: bool = False
    save_every: int | None = 500
    keep_checkpoints: int = 2
    tensorboard: bool = True
    plugins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(
            (self.steps is None) != (self.epochs is None),
            f"steps: {self.steps} with epochs: {self.epochs} given, exactly one of them is needed",
        )
        require(
            self.epochs is None or self.epochs > 0,
            f"epochs: {self.epochs} given, above 0 is needed",
        )
        require_at_least(0, self, "seed")
        require_at_least(1, self, "steps", "batch_size", "micro_batch")
        require_at_least(1, self, "max_bad_steps", "log_every", "save_every")
        require_at_least(1, self, "keep_checkpoints", "process_timeout")
        if self.prior != "from_data":
            require(
                isinstance(self.prior, float) and 0 < self.prior < 1,
                f"prior: {self.prior} given, above 0 and below 1 or from_data is allowed",
            )
        require(
            0 <= self.effective_number_beta < 1,
            f"effective_number_beta: {self.effective_number_beta} given, 0 to below 1 is allowed",
        )
        if isinstance(self.class_weights, tuple):
            require(
                all(w >= 0 for w in self.class_weights),
                f"class_weights: {list(self.class_weights)} given, each has to be at least 0",
            )
        require(
            self.clip is None or self.clip > 0,
            f"clip: {self.clip} given, above 0 or null is allowed",
        )


def num_processors() -> int:
    """The processors this process may use; those of the machine where the system cannot tell."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def from_omegaconf(node: DictConfig) -> tuple[Config, dict[str, Any]]:
    """The checked config and the same as plain values. Raises ConfigError."""
    values = plain_values(node)
    return from_plain(values), values


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


def plain_values(node: DictConfig) -> dict[str, Any]:
    """A composed config as plain values, references followed.

    Raises ConfigError where a value has to be given (`???`), for `_target_`, and for resolvers: a
    config is data, and `${oc.env:...}` would write what is in the environment into checkpoints.
    """
    raw = OmegaConf.to_container(node, resolve=False)
    schema.refuse_targets(raw)
    schema.refuse_resolvers(raw)
    for key in sorted(OmegaConf.missing_keys(node)):
        raise ConfigError(f"{key}: has to be given")
    plain = OmegaConf.to_container(node, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def to_yaml(values: dict[str, Any]) -> str:
    """The text of config.yaml."""
    return OmegaConf.to_yaml(OmegaConf.create(values))
