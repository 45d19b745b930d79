"""What a graph holds: the model as torch modules that an exporter can follow.

`Outputs` ends at logits and deltas; `Found` goes on to a fixed number of detections, with the
arithmetic of `models.postprocess` in a form whose shapes do not depend on what is found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detector.analysis.calibrators import Calibrator, Line, Steps
from detector.boxes import clip
from detector.config.model import PostprocessConfig
from detector.layouts import Layout
from detector.models.anchors import AnchorGenerator
from detector.models.detector import Detector
from detector.models.head import flatten_levels

Suppress = Callable[[Tensor, Tensor, Tensor, int, float, int], Tensor]
"""(N, P) whether a box stays, of boxes (N, P, 4), scores (N, P) and labels (N, P); then the number
of classes, the IoU above which the lower of two goes, and how many of a class can be shown."""

NOTHING = -1.0
"""The score of a place that no candidate takes: below all there are, so it comes last."""


class Outputs(nn.Module):
    """The part of a model from pixels to what its anchors say.

    half: backbone, pyramid and head compute in float16; pixels are normalised before, in float32.
    The model is changed in place.
    """

    def __init__(self, model: Detector, *, half: bool = False) -> None:
        super().__init__()
        self.model = model
        self.dtype = torch.float16 if half else model.pixel_mean.dtype
        if half:
            for part in (model.backbone, model.fpn, model.head):
                part.half()

    def features(self, images: Tensor, sizes: Tensor) -> list[Tensor]:
        """The maps P3 to P7, (N, C, H_l, W_l), of images (N, 3, H, W) from 0 to 255."""
        pixels = self.model.normalize(images, sizes).to(self.dtype)
        return list(self.model.pyramid(pixels))

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, A, D) and deltas (N, A, 4), float32."""
        logits, deltas = self.model.head(self.features(images, sizes))
        return logits.float(), self.model.coder.box_layout.numbers(deltas.float())


@dataclass(frozen=True)
class Inside:
    """What `Found` does. postprocess: the config's, its threshold applied before NMS to raw scores.

    threshold: of what is given out, on the scores that are given out. calibrator: maps raw scores
    to these; None leaves them.
    """

    postprocess: PostprocessConfig
    threshold: float = 0.0
    calibrator: Calibrator | None = None


class Found(nn.Module):
    """A model from pixels to a fixed number of detections of each image.

    suppress: the NMS, which each exporter says in its own way.
    """

    def __init__(
        self, outputs: Outputs, layout: Layout, inside: Inside, suppress: Suppress
    ) -> None:
        super().__init__()
        self.outputs, self.layout, self.inside = outputs, layout, inside
        self.suppress = suppress
        self.calibrate = None if inside.calibrator is None else Calibrate(inside.calibrator)
        generator = outputs.model.anchors
        for i, stride in enumerate(generator.strides):
            self.register_buffer(f"shapes_{i}", generator._shapes(stride).float(), persistent=False)

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Boxes (N, M, 4), scores (N, M), labels (N, M) int64 and counts (N,) int64.

        By falling score, boxes in pixels of the padded image. The first `counts` of the M places
        are detections, the others have box 0, score 0 and label -1. A count of -1: of that image
        scores or boxes are not finite.
        """
        maps = self.outputs.features(images, sizes)
        parts = [self.candidates(i, x) for i, x in enumerate(maps)]
        boxes, scores, labels = (torch.cat(each, 1) for each in zip(*parts, strict=True))
        is_finite = torch.isfinite(boxes).all(-1).all(-1) & torch.isfinite(scores).all(-1)
        config, classes = self.inside.postprocess, self.layout.num_classes
        if config.clip == "before_nms":
            boxes = clip(boxes, sizes[:, None])
        if config.drop_empty:
            scores = torch.where(has_area(boxes), scores, NOTHING)
        shown = config.detections_per_image
        keep = self.suppress(boxes, scores, labels, classes, config.nms_iou, shown)
        # More than there are candidates cannot be shown; the count of these is fixed as well.
        shown = min(shown, config.topk_per_level * len(maps))
        scores, rank = torch.where(keep, scores, NOTHING).topk(shown, 1)
        boxes, labels = take(boxes, rank), labels.gather(1, rank)
        if config.clip == "after_nms":
            boxes = clip(boxes, sizes[:, None])
            if config.drop_empty:
                scores = torch.where(has_area(boxes), scores, NOTHING)
        return self.given_out(boxes, scores, labels, is_finite)

    def candidates(self, level: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (N, P, 4), scores (N, P) and labels (N, P) of the best of a level."""
        outputs, config, classes = self.outputs, self.inside.postprocess, self.layout.num_classes
        head = outputs.model.head
        maps = head.of_level(x, level)
        logits = flatten_levels([maps[0].float()], head.num_outputs)
        deltas = flatten_levels([maps[1].float()], head.num_box_outputs)
        deltas = outputs.model.coder.box_layout.numbers(deltas)
        scores = self.layout.scores(logits)
        by_anchor = config.topk_of == "anchors"
        ranked = scores.amax(-1) if by_anchor else scores.flatten(1)
        # Filled up, so that a small map has as many places as a large one.
        empty = ranked.new_full((1, config.topk_per_level), NOTHING).expand(len_of(ranked), -1)
        values, place = torch.cat([ranked, empty], 1).topk(config.topk_per_level, 1)
        if by_anchor:
            anchor = place.clamp(max=scores.shape[1] - 1)
            values = torch.where(values[..., None] >= 0, take(scores, anchor), NOTHING).flatten(1)
            labels = torch.arange(classes, device=x.device).expand(
                len_of(place), place.shape[1], -1
            )
            anchor = anchor[..., None].expand(-1, -1, classes).flatten(1)
            labels = labels.flatten(1)
        else:
            place = place.clamp(max=ranked.shape[1] - 1)
            anchor, labels = place // classes, place % classes
        limit = config.score_threshold
        assert not isinstance(limit, str), "resolved when the model was trained"
        if limit > 0:
            values = torch.where(values <= limit, NOTHING, values)
        anchors = self.anchors(level, x)[anchor]
        return outputs.model.coder.decode(take(deltas, anchor), anchors), values, labels

    def anchors(self, level: int, x: Tensor) -> Tensor:
        """(A_l, 4) anchors of a map (N, C, H_l, W_l), as `AnchorGenerator` makes them."""
        generator: AnchorGenerator = self.outputs.model.anchors
        shapes = self.get_buffer(f"shapes_{level}")
        stride, offset = generator.strides[level], generator.config.offset
        rows, columns = (
            (torch.arange(n, device=x.device).float() + offset) * stride for n in x.shape[-2:]
        )
        grid_y, grid_x = torch.meshgrid(rows, columns, indexing="ij")
        centers = torch.stack([grid_x, grid_y, grid_x, grid_y], -1)[:, :, None]
        return (centers + shapes).reshape(-1, 4)

    def given_out(
        self, boxes: Tensor, scores: Tensor, labels: Tensor, is_finite: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The same by falling score given out, those at or below the threshold as padding."""
        if self.calibrate is not None:
            mapped = self.calibrate(scores.clamp(min=0), labels)
            scores = torch.where(scores < 0, NOTHING, mapped)
        if self.inside.threshold > 0:
            scores = torch.where(scores <= self.inside.threshold, NOTHING, scores)
        scores, rank = scores.topk(scores.shape[1], 1)
        is_there = scores >= 0
        counts = torch.where(is_finite, is_there.sum(1), -1)
        labels = torch.where(is_there, labels.gather(1, rank), -1)
        boxes = torch.where(is_there[..., None], take(boxes, rank), 0.0)
        return boxes, scores.clamp(min=0), labels, counts


class Calibrate(nn.Module):
    """A `Calibrator` in torch, in float64 as there. Raises ValueError for the loss's link."""

    def __init__(self, calibrator: Calibrator) -> None:
        super().__init__()
        maps = [own or calibrator.pooled for own in calibrator.maps]
        self.is_line = all(isinstance(own, Line) for own in maps)
        if self.is_line:
            rows = [(own.slope, own.intercept) for own in maps if isinstance(own, Line)]
        elif all(isinstance(own, Steps) for own in maps):
            rows = steps_of([own for own in maps if isinstance(own, Steps)])
        else:
            raise ValueError(f"calibrator: {calibrator.kind} cannot be part of a graph")
        self.register_buffer("table", torch.tensor(rows, dtype=torch.float64), persistent=False)

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Calibrated scores (N, M) of raw ones in [0, 1]."""
        table, exact = self.get_buffer("table"), scores.double()
        table = table.index_select(0, labels.reshape(-1)).reshape(*labels.shape, *table.shape[1:])
        if self.is_line:
            odds = exact.log() - (1 - exact).log()
            # Not `sigmoid`, which not every engine knows in float64.
            return (1 / (1 + (-(table[..., 0] * odds + table[..., 1])).exp())).to(scores.dtype)
        points, values = table[..., 0, :], table[..., 1, :]
        above = (exact[..., None] >= points).sum(-1, keepdim=True)
        low, high = (above - 1).clamp(min=0), above.clamp(max=points.shape[-1] - 1)
        left, right = points.gather(-1, low), points.gather(-1, high)
        first, last = values.gather(-1, low), values.gather(-1, high)
        width = torch.where(right > left, right - left, 1.0)
        share = torch.where(right > left, (exact[..., None] - left) / width, 0.0)
        return (first + share * (last - first)).squeeze(-1).to(scores.dtype)


def steps_of(maps: Sequence[Steps]) -> list[tuple[list[float], list[float]]]:
    """Points and values of each class, all of one length: the last point is repeated."""
    most = max(len(own.scores) for own in maps)
    return [
        tuple([*each] + [each[-1]] * (most - len(each)) for each in (own.scores, own.values))
        for own in maps
    ]  # type: ignore[misc]


def take(values: Tensor, index: Tensor) -> Tensor:
    """(N, P, C) of values (N, A, C) at index (N, P)."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))


def len_of(x: Tensor) -> int:
    """N, which `len` would fix at the number of the example."""
    return x.shape[0]


def has_area(boxes: Tensor) -> Tensor:
    """(N, P) whether x1 < x2 and y1 < y2."""
    return (boxes[..., 2:] > boxes[..., :2]).all(-1)


def suppress_by_torchvision(
    boxes: Tensor, scores: Tensor, labels: Tensor, classes: int, limit: float, most: int
) -> Tensor:
    """NMS of all classes of all images in one call: in float64, classes and images moved apart."""
    exact = boxes.double()
    exact = exact - exact.amin()
    group = torch.arange(len_of(boxes), device=boxes.device)[:, None] * classes + labels
    apart = exact + (group * (exact.amax() + 1))[..., None]
    kept = torch.ops.torchvision.nms(apart.reshape(-1, 4), scores.double().reshape(-1), limit)
    mask = torch.zeros_like(scores, dtype=torch.bool).reshape(-1)
    mask = mask.index_fill(0, kept, True)
    return mask.reshape(scores.shape) & (scores >= 0)
