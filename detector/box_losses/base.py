"""What a box loss is. A new one is a class in a file here and a yaml in `configs/box_loss`.

Same interface as a class loss: named terms (N, A), 0 where an anchor has no object.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from detector.structures import Matches, Predictions


class BoxLoss(nn.Module, ABC):
    """Says how wrong the boxes of positive anchors are. The criterion weights, sums and divides."""

    @abstractmethod
    def forward(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        """Named terms (N, A) in float32 or better, 0 where an anchor has no object."""


def encoded_error(predictions: Predictions, matches: Matches) -> Tensor:
    """(N, A, 4) what is predicted minus the numbers of the matched boxes."""
    wanted = predictions.coder.encode(matches.boxes, predictions.anchors.boxes)
    return predictions.numbers - wanted


def on_positives(loss: Tensor, matches: Matches) -> Tensor:
    """(N, A) loss, 0 where an anchor has no object."""
    return torch.where(matches.foreground, loss, 0)
