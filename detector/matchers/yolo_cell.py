"""The matcher of YOLO v1: in the cell of an object, the predictor that is best at the moment."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from detector.boxes import area, center_size, iou
from detector.config.ranges import Above
from detector.config.registry import MATCHERS
from detector.matchers.base import (
    ImageTargets,
    Matcher,
    match_each,
    may_be_matched,
    neutral_in_crowds,
)
from detector.matchers.locations import Locations, locations_of, nearest
from detector.structures import BACKGROUND, Anchors, Matches, Predictions, Targets

CANONICAL_STRIDE = 16
"""Of level 4, k_0 of equation 1 of Lin et al. 2017, "Feature Pyramid Networks"."""


@MATCHERS.register("yolo_cell")
class YOLOCellMatcher(Matcher):
    """One anchor for each object: that of its cell whose predicted box overlaps it most now.

    Redmon et al. 2016, "You Only Look Once", arXiv 1506.02640, section 2. All other anchors are
    background, however much they overlap an object; only crowds are neutral, as in `Thresholds`.
    Where no predicted box of the cell touches the object, the nearest one is responsible: the
    smallest squared error of centre and sides as shares of the image, as in the authors' code.
    Without predictions the anchors stand in for them, as at the first step.

    What a pyramid changes: the cell is that whose centre is nearest to the object's, on the level
    that the object's size says, k = 4 + floor(log2(sqrt(w h) / canonical_size)), cut to the levels
    there are (Lin et al. 2017, "Feature Pyramid Networks", arXiv 1612.03144, equation 1).
    canonical_size: the side in pixels from which an object belongs to stride 16. Theirs is 224,
    for pooling features of regions; 64 gives each level the objects of the sides of its anchors,
    4 to 8 strides.

    The paper has one object in a cell. Here objects of one cell are served by falling area, each
    with the best anchor still free, so all of them are until the anchors of the cell are used up;
    what is left then has no anchor, unless `every_object` finds one elsewhere, see
    `serve_every_object`.
    """

    uses_predictions = True

    def __init__(
        self,
        *,
        canonical_size: Annotated[float, Above(0)] = 64.0,
        crowd_coverage: Annotated[float, Above(0)] = 0.5,
        every_object: bool = False,
    ) -> None:
        self.canonical_size = canonical_size
        self.crowd_coverage = crowd_coverage
        self.every_object = every_object

    def __call__(
        self, anchors: Anchors, targets: Targets, predictions: Predictions | None = None
    ) -> Matches:
        locations = locations_of(anchors)
        is_object = may_be_matched(targets)
        cells = [cells_of(boxes, locations, self.canonical_size) for boxes in targets.boxes]
        near = locations.anchors_at(torch.stack(cells))
        shown = anchors.boxes.expand(len(near), -1, -1)
        if predictions is not None:
            shown = predictions.boxes.detach()
        rows = torch.arange(len(near), device=near.device)[:, None, None]
        fit = fitness(shown[rows, near].to(targets.boxes.dtype), targets)
        fit = torch.where(is_object[..., None], fit, -torch.inf)
        objects = one_anchor_each(fit, near, area(targets.boxes), len(anchors.boxes))

        def match_image(image: ImageTargets, own: Tensor) -> Tensor:
            return neutral_in_crowds(
                own, anchors.boxes, image.boxes, image.crowd, self.crowd_coverage
            )

        return match_each(anchors, targets, match_image, objects, every_object=self.every_object)


def cells_of(boxes: Tensor, locations: Locations, canonical_size: float) -> Tensor:
    """(M,) indices into L of the cells of boxes (M, 4)."""
    strides = locations.strides.to(boxes.dtype)
    wanted = CANONICAL_STRIDE * area(boxes).sqrt() / canonical_size
    # The largest stride that is not above the wanted one: the floor of the log of equation 1.
    wanted = torch.maximum(wanted, strides.min())
    own = torch.where(strides <= wanted[:, None], strides, 0.0).amax(1)
    center, _ = center_size(boxes)
    return nearest(center, locations, strides == own[:, None])


def fitness(predicted: Tensor, targets: Targets) -> Tensor:
    """(N, M, B) the larger the better: the IoU where boxes overlap, else minus their distance.

    predicted: (N, M, B, 4), B boxes for each object.
    """
    boxes = targets.boxes[:, :, None]
    center, side = center_size(predicted)
    true_center, true_side = center_size(boxes)
    error = torch.cat([center - true_center, side - true_side], -1)
    share = error / targets.image_sizes.flip(-1).to(error.dtype).repeat(1, 2)[:, None, None]
    overlaps = iou(predicted, boxes)
    return torch.where(overlaps > 0, overlaps, -torch.linalg.vector_norm(share, dim=-1))


def one_anchor_each(fit: Tensor, near: Tensor, areas: Tensor, num_anchors: int) -> Tensor:
    """(N, A) index into M or BACKGROUND: each object's fittest anchor that no larger object has.

    fit (N, M, B), -inf where it must not be; near (N, M, B) the anchors meant; areas (N, M).
    All images at once, object after object.
    """
    num_images = len(fit)
    rows = torch.arange(num_images, device=fit.device)
    objects = torch.full((num_images, num_anchors), BACKGROUND, device=fit.device)
    for m in areas.argsort(dim=1, descending=True, stable=True).unbind(1):
        places = near[rows, m]
        is_free = objects.gather(1, places) == BACKGROUND
        best, choice = torch.where(is_free, fit[rows, m], -torch.inf).max(1, keepdim=True)
        place = places.gather(1, choice)
        before = objects.gather(1, place)
        objects.scatter_(1, place, torch.where(best > -torch.inf, m[:, None], before))
    return objects
