"""The term that keeps a distribution over a box's sides close to where the side is."""

from __future__ import annotations

from torch import Tensor

from detector.box_losses.base import on_positives
from detector.layouts import Distribution
from detector.structures import Matches, Predictions, promote


def distribution_focal(outputs: Tensor, numbers: Tensor, layout: Distribution) -> Tensor:
    """(...) cross entropy of distributions (..., 4 x bins) and true numbers (..., 4), their mean.

    A number between two bins asks both, each by its nearness. One beyond the last bin asks the
    last. Li et al. 2020, "Generalized Focal Loss", arXiv 2006.04388, equation 6, "DFL".
    """
    logs = promote(outputs).unflatten(-1, (4, layout.bins)).log_softmax(-1)
    place = (numbers * (layout.bins - 1) / layout.reach).clamp(0, layout.bins - 1).to(logs.dtype)
    low = place.floor().clamp(max=layout.bins - 2)
    share = place - low
    index = low.long()[..., None]
    below, above = (logs.gather(-1, index + i).squeeze(-1) for i in (0, 1))
    return -((1 - share) * below + share * above).mean(-1)


def distribution_term(predictions: Predictions, matches: Matches) -> Tensor | None:
    """(N, A) `distribution_focal` of the positives; None where boxes are not distributions."""
    layout = predictions.coder.box_layout
    if not isinstance(layout, Distribution):
        return None
    wanted = predictions.coder.encode(matches.boxes, predictions.anchors.boxes)
    return on_positives(distribution_focal(predictions.deltas, wanted, layout), matches)
