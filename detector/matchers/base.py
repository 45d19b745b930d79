"""What a matcher is: it decides which anchor is responsible for which object."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from detector.boxes import coverage, iou
from detector.config.ranges import Above, Between, require_ranges
from detector.config.schema import require
from detector.matchers.claims import serve_every_object
from detector.structures import BACKGROUND, IGNORE, Anchors, Matches, Predictions, Targets

MOST_PAIRS = 2**24
"""Overlaps that are held at a time: 64 MB in float32 for each of the handful of tables that an
overlap takes. 5,000 objects and 200,000 anchors at once would be 4 GB each."""


class Matcher(ABC):
    """uses_predictions: matches depend on what the model says, so they follow the forward.
    uses_scores: they depend on the scores of classes too, so the criterion fills in
        `Predictions.scores`; where those are None, all scores count as equal.
    gives_quality: its matches say what quality each positive has, `Matches.quality`.
    """

    uses_predictions: ClassVar[bool] = False
    uses_scores: ClassVar[bool] = False
    gives_quality: ClassVar[bool] = False

    @abstractmethod
    def __call__(
        self, anchors: Anchors, targets: Targets, predictions: Predictions | None
    ) -> Matches:
        """What each of the A anchors shall say in each of the N images."""


def matches_from_objects(objects: Tensor, anchors: Anchors, targets: Targets) -> Matches:
    """`Matches` of (N, A) indices into M, BACKGROUND or IGNORE where an anchor has no object."""
    has_object = objects >= 0
    index = objects.clamp(min=0)
    labels = torch.where(has_object, _pick(targets.labels, index), objects)
    picked = _pick(targets.boxes, index)
    boxes = torch.where(has_object[..., None], picked, anchors.boxes.to(picked.dtype))
    return Matches(labels, boxes, torch.where(has_object, objects, BACKGROUND), anchors, targets)


def _pick(values: Tensor, index: Tensor) -> Tensor:
    """(N, A, ...) entries of (N, M, ...) at (N, A); zeros where there is no object at all."""
    if values.shape[1] == 0:
        return values.new_zeros((*index.shape, *values.shape[2:]))
    index = index.reshape(*index.shape, *[1] * (values.dim() - 2))
    return values.gather(1, index.expand(-1, -1, *values.shape[2:]))


@dataclass(frozen=True)
class Thresholds:
    """How much overlap makes an anchor positive, background or neutral.

    Positive from `foreground_iou`, background below `background_iou`, neutral between.
    force: what an anchor does that some object overlaps more than any other anchor, but too little:
    "object" gives it to that object, so that none goes without (mmdetection); "anchor" makes it
    positive for the object it overlaps most itself (torchvision, detectron2); "none" leaves it.
    An object with IoU 0 forces nothing.
    crowd_coverage: anchors of which this share lies in a crowd are neutral unless positive.

    Raises ConfigError for a value outside its range.
    """

    foreground_iou: Annotated[float, Between(0, 1, is_above=True)]
    background_iou: float
    force: Literal["object", "anchor", "none"]
    crowd_coverage: Annotated[float, Above(0)]

    def __post_init__(self) -> None:
        require_ranges(self)
        require(
            0 <= self.background_iou <= self.foreground_iou,
            f"background_iou: {self.background_iou} given, 0 to foreground_iou = "
            f"{self.foreground_iou} is allowed",
        )


def match_images(
    anchors: Anchors, targets: Targets, thresholds: Thresholds, *, every_object: bool = False
) -> Matches:
    """`Matches` of every image by the IoU of anchors and objects.

    every_object: as in `match_each`.
    """

    def match_image(image: ImageTargets) -> Tensor:
        return threshold_match(anchors.boxes, image.boxes, image.is_object, image.crowd, thresholds)

    return match_each(anchors, targets, match_image, every_object=every_object)


class ImageTargets(NamedTuple):
    """The M objects of one image: boxes (M, 4), labels (M,), is_object (M,) bool, neither padding
    nor a crowd, and crowd (M,) bool."""

    boxes: Tensor
    labels: Tensor
    is_object: Tensor
    crowd: Tensor


def match_each(
    anchors: Anchors,
    targets: Targets,
    match_image: Callable[..., Tensor],
    *said: Tensor,
    every_object: bool = False,
) -> Matches:
    """`Matches` of every image by itself.

    match_image: (A,) indices into M, BACKGROUND or IGNORE of `ImageTargets` and, of each tensor
    (N, ...) in `said`, the entry of the image; not called without objects. On a GPU it is called
    for as many images at once as MOST_PAIRS holds, by `torch.vmap`: launching its operators for
    image after image takes longer than a training step. So it may ask for shapes, not for values.
    every_object: an object that is left without an anchor is given one, see `serve_every_object`.
    """
    num_images, num_objects = targets.labels.shape
    if num_objects == 0:
        shape = (num_images, len(anchors.boxes))
        objects = torch.full(shape, BACKGROUND, device=anchors.boxes.device)
        return matches_from_objects(objects, anchors, targets)
    is_object = may_be_matched(targets)
    every = ImageTargets(targets.boxes, targets.labels, is_object, targets.crowd)
    if is_at_once(anchors.boxes.device):
        together = max(1, MOST_PAIRS // (num_objects * len(anchors.boxes)))
        objects = torch.vmap(match_image, chunk_size=together)(every, *said)
    else:
        # A processor's cache holds the tables of one image.
        own = zip(*every, *said, strict=True)
        rows = [match_image(ImageTargets(*row[:4]), *row[4:]) for row in own]
        objects = torch.stack(rows)
    if every_object:
        served = zip(objects, targets.boxes, is_object, strict=True)
        objects = torch.stack([serve_every_object(o, anchors.boxes, b, i) for o, b, i in served])
    return matches_from_objects(objects, anchors, targets)


def is_at_once(device: torch.device) -> bool:
    """Whether images are matched together: where the launch of an operator is what costs."""
    return device.type != "cpu"


def may_be_matched(targets: Targets) -> Tensor:
    """(N, M) bool: an object, neither padding nor a crowd."""
    return (targets.labels != BACKGROUND) & ~targets.crowd


def threshold_match(
    anchors: Tensor, boxes: Tensor, is_object: Tensor, crowd: Tensor, thresholds: Thresholds
) -> Tensor:
    """(A,) index into M, BACKGROUND or IGNORE for the anchors (A, 4) of one image.

    boxes (M, 4); is_object (M,) bool: may be a positive; crowd (M,) bool. An anchor takes the
    object it overlaps most, the first of equals. They are looked at part by part, see `slices`.
    """
    best = anchors.new_full((len(anchors),), -2.0)  # below any overlap, and that of no object
    chosen = best.clone()
    index, chosen_index = (torch.zeros_like(best, dtype=torch.long) for _ in range(2))
    for first, part in slices(boxes, len(anchors)):
        # A row for each object: tables of a few long rows take a CPU half the time of columns.
        overlaps = torch.where(is_object[part, None], iou(boxes[part, None], anchors), -1.0)
        best, index = first_best(best, index, overlaps, first)
        if thresholds.force != "none":
            # An object that no anchor touches would else claim every anchor it does not touch.
            record = overlaps.amax(1, keepdim=True)
            forced = (overlaps == record) & (record > 0)
            overlaps = torch.where(forced, overlaps, -1.0)
            chosen, chosen_index = first_best(chosen, chosen_index, overlaps, first)
    result = torch.where(best >= thresholds.background_iou, IGNORE, BACKGROUND)
    if thresholds.force == "object":
        index = torch.where(chosen > 0, chosen_index, index)
    result = torch.where(chosen > 0, index, result)
    result = torch.where(best >= thresholds.foreground_iou, index, result)
    return neutral_in_crowds(result, anchors, boxes, crowd, thresholds.crowd_coverage)


def first_best(best: Tensor, index: Tensor, values: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """(A,) largest value and its object, of those until now and of the objects from `first` on.

    values: (m, A) of these. Of equals the first object counts.
    """
    highest, position = values.max(0)
    is_more = highest > best
    return torch.where(is_more, highest, best), torch.where(is_more, position + first, index)


def slices(boxes: Tensor, num_anchors: int) -> Iterator[tuple[int, slice]]:
    """The objects (M, 4) in parts of which a table with all anchors stays within MOST_PAIRS.

    How many parts follows from shapes alone, so no GPU is waited for.
    """
    size = max(1, MOST_PAIRS // max(1, num_anchors))
    for first in range(0, len(boxes), size):
        yield first, slice(first, first + size)


def neutral_in_crowds(
    result: Tensor, anchors: Tensor, boxes: Tensor, crowd: Tensor, crowd_coverage: float
) -> Tensor:
    """`result` (A,) with IGNORE where an anchor has no object and lies in a crowd.

    That is, `crowd_coverage` or more of its area does. boxes (M, 4); crowd (M,) bool.
    """
    in_crowd = torch.zeros_like(anchors[:, 0])
    for _, part in slices(boxes, len(anchors)):
        covered = torch.where(crowd[part, None], coverage(anchors, boxes[part, None]), 0.0)
        in_crowd = torch.maximum(in_crowd, covered.amax(0))
    return torch.where((result < 0) & (in_crowd >= crowd_coverage), IGNORE, result)
