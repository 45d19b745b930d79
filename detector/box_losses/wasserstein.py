"""Boxes as Gaussians: a distance that is smooth where the overlap of tiny boxes jumps."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from detector.box_losses.base import BoxLoss, on_positives
from detector.boxes import wasserstein
from detector.config.ranges import Above
from detector.config.registry import BOX_LOSSES
from detector.structures import Matches, Predictions


@BOX_LOSSES.register("nwd")
class NWDLoss(BoxLoss):
    """1 - exp(-W / C), W the Wasserstein distance of two boxes in pixels: for tiny objects.

    constant: C in pixels, which has to come from the data: the average side sqrt(w h) of their
    objects at the size the model sees them. 12.8 is that of AI-TOD, whose objects are tiny; where
    objects are larger, a box off by a few C has the loss 1 and no gradient worth the name.
    Wang et al. 2021, "A Normalized Gaussian Wasserstein Distance for Tiny Object Detection",
    arXiv 2110.13389, section 3. Unlike the losses of overlap it depends on the scale.
    """

    def __init__(self, *, constant: Annotated[float, Above(0)] = 12.8) -> None:
        super().__init__()
        self.constant = constant

    def forward(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        distance = wasserstein(predictions.boxes, matches.boxes)
        # Not 1 - exp(-d): that keeps no digits of a small distance.
        return {"box": on_positives(-(-distance / self.constant).expm1(), matches)}
