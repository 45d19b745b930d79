"""What was found in an image: numbers of numpy, to be read, filtered, drawn and written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detector.drawing.drawing import Box, draw
from detector.drawing.marks import of_detections
from detector.errors import DataError
from detector.evaluation.coco import results
from detector.inference.preprocess import Source, decode

if TYPE_CHECKING:
    from torch import Tensor

MAX_SHOWN = 5
"""Detections that the text of many of them names."""


class Detection(NamedTuple):
    """One object that was found.

    box: (x1, y1, x2, y2) in pixels of the original image, x2 and y2 exclusive. score: a
    probability. label: in [0, K). name: that of its class.
    """

    box: Box
    score: float
    label: int
    name: str


@dataclass(frozen=True, eq=False, repr=False)
class Detections:
    """The S objects that were found in one image, sorted by falling score.

    boxes: (S, 4) float32 xyxy in pixels of the original image, x2 and y2 exclusive.
    scores: (S,) float32 probabilities. labels: (S,) int64 in [0, K). A model that computes in
    float64 has float64 boxes and scores.
    classes: the K names. category_ids: the K ids that the data set gives the classes.

    A sequence: `found[0]` is a `Detection`, `for box, score, label, name in found` goes through
    all, `found[:3]` and `found[found.scores > 0.5]` are again Detections. Raises DataError for
    arrays of another shape or type, and for labels without a class.
    """

    boxes: NDArray[np.float32] | NDArray[np.float64]
    scores: NDArray[np.float32] | NDArray[np.float64]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]

    def __post_init__(self) -> None:
        _require_array("scores", self.scores, (np.size(self.scores),), np.float32, np.float64)
        _require_array("boxes", self.boxes, (len(self), 4), np.float32, np.float64)
        _require_array("labels", self.labels, (len(self),), np.int64)
        if len(self.classes) != len(self.category_ids):
            raise DataError(
                f"category_ids: {len(self.category_ids)} given for {len(self.classes)} classes"
            )
        unknown = self.labels[(self.labels < 0) | (self.labels >= len(self.classes))]
        if unknown.size:
            raise DataError(
                f"labels: {unknown[0]} given, 0 to {len(self.classes) - 1} are the labels of "
                f"{len(self.classes)} classes"
            )

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detection]:
        return (self[i] for i in range(len(self)))

    @overload
    def __getitem__(self, which: int | np.integer[Any]) -> Detection: ...
    @overload
    def __getitem__(self, which: slice | Sequence[Any] | NDArray[Any]) -> Detections: ...
    def __getitem__(self, which: Any) -> Detection | Detections:
        """One of them by its place, or those of a slice, a mask (S,) or places, in that order."""
        if isinstance(which, int | np.integer):
            x1, y1, x2, y2 = self.boxes[which].tolist()
            label = int(self.labels[which])
            return Detection(
                (x1, y1, x2, y2), float(self.scores[which]), label, self.classes[label]
            )
        if not isinstance(which, slice):
            which = np.asarray(which)
            which = which if which.size else which.astype(np.int64)  # [] is of floats
        return Detections(
            self.boxes[which],
            self.scores[which],
            self.labels[which],
            self.classes,
            self.category_ids,
        )

    def __repr__(self) -> str:
        """Such as "2 detections: cat 0.91, dog 0.85"."""
        if not len(self):
            return "no detections"
        shown = [f"{one.name} {one.score:.2f}" for one in self[:MAX_SHOWN]]
        more = ["..."] if len(self) > MAX_SHOWN else []
        plural = "s" if len(self) > 1 else ""
        return f"{len(self)} detection{plural}: {', '.join(shown + more)}"

    @property
    def names(self) -> list[str]:
        """The name of the class of each, (S,)."""
        return [self.classes[label] for label in self.labels]

    def above(self, threshold: float) -> Detections:
        """Those with a score above the threshold; one that equals it is left out."""
        return self[self.scores > threshold]

    def draw(self, image: Source) -> Image.Image:
        """A copy of the image with boxes, names and scores, the surest on top.

        image: the one in which they were found, as a path, an image of Pillow's or (H, W, 3)
        uint8 pixels. Raises DataError where it cannot be read.
        """
        return draw(decode(image), of_detections(self, self.classes))

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """Rows of COCO's results format, boxes as left, top, width, height; see `results`."""
        return results(image_id, self.boxes, self.scores, self.labels, self.category_ids)

    def to_dict(self) -> dict[str, list[Any]]:
        """Lists of plain numbers and texts, which JSON keeps exactly.

        Boxes are xyxy in pixels of the original image, labels are names: an entry of the
        `predictions.json` of `tools/predict.py` but for its file.
        """
        return {
            "boxes": self.boxes.tolist(),
            "scores": self.scores.tolist(),
            "labels": self.names,
            "category_ids": [self.category_ids[label] for label in self.labels],
        }

    def torch(self) -> dict[str, Tensor]:
        """`boxes`, `scores` and `labels` as tensors on the CPU, under torchvision's names.

        Memory is shared where it can be. Needs torch.
        """
        from torch import from_numpy  # here, since all else works without it

        arrays = {"boxes": self.boxes, "scores": self.scores, "labels": self.labels}
        # Tensors know no negative strides, as `found[::-1]` has them.
        return {name: from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}


def _require_array(name: str, value: Any, shape: tuple[int, ...], *dtypes: type[Any]) -> None:
    """Raises DataError unless the value is an array of that shape and of one of the types."""
    is_array = isinstance(value, np.ndarray)
    if is_array and value.shape == shape and value.dtype in dtypes:
        return
    given = f"shape {value.shape}, {value.dtype}" if is_array else type(value).__name__
    raise DataError(
        f"{name}: {given} given, an array of shape {shape}, {np.dtype(dtypes[0])} is needed"
    )
