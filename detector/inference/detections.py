"""What a model finds in one image, in numpy: what a caller gets, with torch or without."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detector.drawing.drawing import draw
from detector.drawing.marks import of_detections
from detector.evaluation import coco

if TYPE_CHECKING:
    import torch

MAX_SHOWN = 5
"""Objects that `repr` names."""


class Detection(NamedTuple):
    """One object. box: (x1, y1, x2, y2) in pixels of the original image. score: a probability.
    label: the class, in [0, K). name: of the class."""

    box: tuple[float, float, float, float]
    score: float
    label: int
    name: str


@dataclass(frozen=True, eq=False, repr=False)
class Detections:
    """What is found in one image, sorted by falling score.

    boxes: (S, 4) xyxy in pixels of the original image, x2 and y2 exclusive. scores: (S,)
    probabilities. labels: (S,) int64 in [0, K). classes: the K names. category_ids: the K ids that
    the classes have in the data set.

    `detections[mask]`, `detections[:10]` and `detections.above(0.5)` are a part of them, and
    iterating gives one `Detection` after another. Raises ValueError for shapes that do not fit.
    """

    boxes: NDArray[np.floating]
    scores: NDArray[np.floating]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]

    def __post_init__(self) -> None:
        count = len(self.scores)
        shapes = self.boxes.shape, self.scores.shape, self.labels.shape
        if shapes != ((count, 4), (count,), (count,)):
            raise ValueError(f"boxes, scores, labels: {shapes} given, (S, 4), (S,), (S,) needed")
        if len(self.classes) != len(self.category_ids):
            raise ValueError(
                f"classes: {len(self.classes)} names with {len(self.category_ids)} category_ids"
            )

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, which: Any) -> Detections:
        """Some of them, by a slice, a boolean mask or an array of places; one place keeps one."""
        places = np.atleast_1d(np.arange(len(self))[which])
        parts = (self.boxes[places], self.scores[places], self.labels[places])
        return replace(self, boxes=parts[0], scores=parts[1], labels=parts[2])

    def __iter__(self) -> Iterator[Detection]:
        rows = zip(self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True)
        for box, score, label in rows:
            yield Detection(tuple(box), score, label, self.classes[label])

    def __repr__(self) -> str:
        shown = [f"{one.name} {one.score:.2f}" for one in self[:MAX_SHOWN]]
        rest = [f"and {len(self) - MAX_SHOWN} more"] if len(self) > MAX_SHOWN else []
        number = f"{len(self)} detection{'s' * (len(self) != 1)}"
        return f"<{number}: {', '.join([*shown, *rest])}>" if len(self) else f"<{number}>"

    @property
    def names(self) -> list[str]:
        """The name of each object's class."""
        return [self.classes[label] for label in self.labels.tolist()]

    def above(self, threshold: float) -> Detections:
        """Those with a score above the threshold."""
        return self[self.scores > threshold]

    def draw(self, image: str | Path | Image.Image | NDArray[np.uint8]) -> Image.Image:
        """A copy of the image with boxes, names and scores.

        image: the one they were found in, as a path, a PIL image or (H, W, 3) uint8 RGB.
        """
        if isinstance(image, str | Path):
            with Image.open(image) as opened:
                return self.draw(opened)
        if isinstance(image, Image.Image):
            image = np.asarray(image.convert("RGB"))
        return draw(image, of_detections(self, self.classes))

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """Rows of COCO's results format, with category ids and (x, y, width, height)."""
        return coco.results(image_id, self.boxes, self.scores, self.labels, self.category_ids)

    def to_dict(self) -> dict[str, Any]:
        """Lists for JSON: xyxy `boxes`, `scores`, `labels` (names) and `category_ids`."""
        return {
            "boxes": self.boxes.tolist(),
            "scores": self.scores.tolist(),
            "labels": self.names,
            "category_ids": [self.category_ids[label] for label in self.labels.tolist()],
        }

    def torch(self) -> dict[str, torch.Tensor]:
        """`boxes`, `scores` and `labels` as tensors on the CPU, as torchvision names them."""
        import torch  # on demand: everything else works where it is not installed

        arrays = {"boxes": self.boxes, "scores": self.scores, "labels": self.labels}
        return {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}
