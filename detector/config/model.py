"""The typed options of the model: pyramid, anchors, head, coder, post-processing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from detector.config.ranges import Above, AtLeast, require_ranges
from detector.config.schema import require


@dataclass(frozen=True)
class FPNConfig:
    """What all necks have. channels: width of all levels.

    p6_source: what P6 is made from by convolution; "c5" is Lin et al. 2017.

    p7_relu: P7 is made from relu(P6), as there; mmdetection's from P6 itself. init: of the weights;
    mmdetection's is xavier_uniform.
    """

    channels: int = 256
    p6_source: Literal["c5", "p5"] = "c5"
    p7_relu: bool = True
    init: Literal["kaiming_uniform", "xavier_uniform"] = "kaiming_uniform"


@dataclass(frozen=True)
class AnchorConfig:
    """levels: the first and the last one, (3, 7) is P3 to P7; 2 to 5 and 5 to 7 are allowed.

    size: side on a level in units of its stride. scales, ratios (h / w): as in Lin et al. 2017.

    offset: where in its cell an anchor is centred, 0.5 is the middle; in torchvision, detectron2
    and mmdetection it is 0, a corner. stride_mode: "image" is torchvision's, whole pixels of the
    padded image per cell, other than 8 to 128 where a level's cells stand over its border.
    round_to_pixels: sides cut and corners rounded to whole pixels, as in torchvision.
    """

    levels: tuple[int, int] = (3, 7)
    size: float = 4.0
    scales: tuple[float, ...] = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    offset: float = 0.5
    stride_mode: Literal["fixed", "image"] = "fixed"
    round_to_pixels: bool = False

    def __post_init__(self) -> None:
        first, last = self.levels
        require(
            2 <= first <= 5 <= last <= 7,
            f"levels: {list(self.levels)} given, a first one of 2 to 5 and a last one of 5 to 7 "
            "are allowed",
        )

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels between the cells of each level, finest first: 8 for P3."""
        first, last = self.levels
        return tuple(2**level for level in range(first, last + 1))


@dataclass(frozen=True)
class HeadConfig:
    """Two towers of `num_convs` 3 x 3 convolutions, shared over levels.

    norm: batch is a live batch norm of its own for each level, since the levels differ in their
    statistics, after convolutions that they share (Tan et al. 2020, arXiv 1911.09070; "SepBN" of
    RTMDet, Lyu et al. 2022, arXiv 2212.07784, section 3.2).
    """

    channels: int = 256
    num_convs: int = 4
    norm: Literal["none", "group", "batch"] = "none"


@dataclass(frozen=True)
class CoderConfig:
    """weights: factors of (dx, dy, dw, dh); 1 is RetinaNet's, SSD's are (10, 10, 5, 5).

    clamp: where dw and dh are cut, at a factor of 1000 / 16: "upper" (torchvision, detectron2),
    "both" (mmdetection: not below 16 / 1000 either).
    layout: "distribution" says the distances of the four sides from the anchor's centre, each as
        the mean of `bins` probabilities from 0 to `reach` anchor sides (Li et al. 2020, arXiv
        2006.04388; 17 bins and 2 sides are theirs), and weights and clamp do not count.
    """

    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    clamp: Literal["upper", "both"] = "upper"
    layout: Literal["deltas", "distribution"] = "deltas"
    bins: Annotated[int, AtLeast(2)] = 17
    reach: Annotated[float, Above(0.5)] = 2.0

    def __post_init__(self) -> None:
        require_ranges(self)


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
    topk_per_level: Annotated[int, AtLeast(1)] = 1000
    nms_iou: float = 0.5
    detections_per_image: Annotated[int, AtLeast(1)] = 100
    topk_of: Literal["pairs", "anchors"] = "pairs"
    clip: Literal["before_nms", "after_nms"] = "before_nms"
    drop_empty: bool = True

    def __post_init__(self) -> None:
        require_ranges(self)
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
