"""What a class loss is. A new one is one file here and one yaml in `configs/loss`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from torch import Tensor, nn

from detector.layouts import Layout, Rated
from detector.structures import Matches, Predictions


class ClassLoss(nn.Module, ABC):
    """Says how wrong the class outputs are. The criterion weights, sums and divides.

    layout_class: what the outputs mean under this loss.
    normalizer: "positives": the sum over anchors is divided by the positives of the optimizer step;
        "images": the loss has taken its own mean within each image, so only images are counted.
    separable: the loss is a sum over anchors; ranking and histogram losses are not.
    selects: which background counts is decided by looking at all anchors (mining, sampling).
    ranks: the term of an entry depends on the logits of others, whose gradient it gives them.
    asks_for_quality: the target of a positive is its quality, not 1.

    The options of a loss are the keyword-only arguments of its constructor.
    """

    layout_class: ClassVar[type[Layout]]
    normalizer: ClassVar[Literal["positives", "images"]] = "positives"
    separable: ClassVar[bool] = True
    selects: ClassVar[bool] = False
    ranks: ClassVar[bool] = False
    asks_for_quality: ClassVar[bool] = False

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.layout = self.layout_class(num_classes)

    @abstractmethod
    def forward(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        """Named terms, not reduced over images: (N, A, K), (N, A) or (N,), float32 or better.

        0, with a zero gradient, at anchors labelled IGNORE; finite for any finite logits.
        """

    def statistics(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        """Sums that `update` wants, added over micro-batches and ranks."""
        return {}

    def update(self, statistics: dict[str, Tensor]) -> None:
        """Called once per accepted step with the summed statistics; changes buffers only."""

    def link_inverse(self, scores: Tensor) -> Tensor | None:
        """The posterior probability whose best score under this loss is `scores`, where known."""
        return None


def layout_of(loss: ClassLoss, rating: str | None) -> Layout:
    """What the class outputs of a model mean that was trained with a loss and a rating, if any."""
    return loss.layout if rating is None else Rated(loss.layout)
