"""What is drawn of detections, whichever library holds them."""

from __future__ import annotations

from typing import Any, Protocol

from detector.drawing.drawing import Mark


class Found(Protocol):
    """Detections of one image, as arrays of numpy or tensors of torch.

    boxes: (S, 4) xyxy in pixels of the image that is drawn on. scores: (S,) probabilities.
    labels: (S,) integers in [0, K).
    """

    @property
    def boxes(self) -> Any: ...
    @property
    def scores(self) -> Any: ...
    @property
    def labels(self) -> Any: ...


def of_detections(found: Found, names: tuple[str, ...]) -> list[Mark]:
    """What is drawn for detections, in their order, which is the surest first.

    names: of the K classes.
    """
    rows = zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
    return [Mark(tuple(box), k, f"{names[k]} {score:.2f}") for box, score, k in rows]
