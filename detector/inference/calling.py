"""A model that is called on images, whatever computes it: the door that all of them have."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detector.config import Config
from detector.config.schema import require
from detector.data.handling import AS_STORED, Decoding
from detector.errors import DataError
from detector.inference import preprocess
from detector.inference.detections import Detections

if TYPE_CHECKING:
    from torch import Tensor

    from detector.inference.calibrated import Calibration

    Source = preprocess.Source | Tensor

Threshold = float | Literal["auto"]


class ImageModel(ABC):
    """`model("image.jpg", threshold=0.3)` is what is found there.

    classes, category_ids: the K names and the ids of the data set the model was trained on. config:
    of the run that trained it. calibration: what `detector calibrate` has stored, if anything.
    source: the file it came from, for messages. gives_calibrated: whether its scores are calibrated
    in any case.
    """

    config: Config
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    calibration: Calibration | None
    source: str
    gives_calibrated: bool = False

    @abstractmethod
    def detect_pixels(
        self, images: Sequence[NDArray[np.uint8]], score_threshold: float, batch_size: int
    ) -> list[Detections]:
        """The detections above a score in each of several (H, W, 3) RGB images, in their order."""

    @overload
    def __call__(
        self,
        images: Source,
        threshold: Threshold = ...,
        *,
        calibrated: bool = ...,
        operating_point: str = ...,
        batch_size: int = ...,
        max_megapixels: float = ...,
    ) -> Detections: ...

    @overload
    def __call__(
        self,
        images: Sequence[Source],
        threshold: Threshold = ...,
        *,
        calibrated: bool = ...,
        operating_point: str = ...,
        batch_size: int = ...,
        max_megapixels: float = ...,
    ) -> list[Detections]: ...

    def __call__(
        self,
        images: Source | Sequence[Source],
        threshold: Threshold = 0.3,
        *,
        calibrated: bool = False,
        operating_point: str = "lrp",
        batch_size: int = 8,
        max_megapixels: float = preprocess.MAX_MEGAPIXELS,
    ) -> Detections | list[Detections]:
        """What is found in an image, or in each of several, above a score.

        images: a path, a PIL image, an (H, W, 3) uint8 array, a (3, H, W) uint8 tensor, all in RGB;
        or several of them. threshold: a score in [0, 1), or "auto" for the one of each class that
        calibration has stored as `operating_point` ("lrp", "f1", "cost", "fppi"). calibrated:
        scores are mapped to probabilities of being right first. batch_size: of several images, as
        many of one padded size are computed at a time; each is padded as it would be alone, so what
        is found in one does not depend on the others, but for rounding.
        max_megapixels: larger files are refused before they are decoded. An image that EXIF turns
        is taken as it is shown, unless the model was trained with data.exif=stored.

        Raises DataError for an image that cannot be read, ConfigError for a threshold that is not
        allowed and for a calibration that is not there.
        """
        is_known = threshold == "auto" or (not isinstance(threshold, str) and 0 <= threshold < 1)
        require(is_known, f"threshold: {threshold} given, 0 to below 1 is allowed, or auto")
        require(batch_size >= 1, f"batch_size: {batch_size} given, at least 1 is needed")
        select: Callable[[Detections], Detections] | None = None
        calibrated = calibrated or self.gives_calibrated
        first = 0.0 if threshold == "auto" else float(threshold)
        if calibrated or threshold == "auto":
            stored = self.require_calibration()
            select = stored.selector(threshold, operating_point, calibrated=calibrated)
            # Scores change, or each class has a threshold of its own.
            first = first if self.gives_calibrated else 0.0
        is_one = isinstance(images, str | os.PathLike | Image.Image | np.ndarray) or _is_tensor(
            images
        )
        every: Sequence[Any] = [images] if is_one else [*images]  # type: ignore[list-item,misc]
        how = preprocess.decoding_of(self.config.data.options)
        pixels = [pixels_of(image, max_megapixels, how) for image in every]
        found = self.detect_pixels(pixels, first, batch_size)
        if select is not None:
            found = [select(detections) for detections in found]
        return found[0] if is_one else found

    def require_calibration(self) -> Calibration:
        """The stored calibration. Raises ConfigError where there is none."""
        require(
            self.calibration is not None,
            f"checkpoint: {self.source} has no calibrator and no operating points; "
            "tools/calibrate.py writes a copy that has",
        )
        assert self.calibration is not None
        return self.calibration


def _is_tensor(value: Any) -> bool:
    """Whether a value is a tensor of torch, which need not be installed."""
    return type(value).__module__.partition(".")[0] == "torch"


def pixels_of(image: Any, max_megapixels: float, how: Decoding = AS_STORED) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of any kind of image. Raises DataError."""
    if not _is_tensor(image):
        pixels = preprocess.decode(image, max_megapixels=max_megapixels, how=how)
        # torch takes no array that cannot be written, as some views of an image are.
        return pixels if pixels.flags.writeable else pixels.copy()
    shape, kind = tuple(image.shape), str(image.dtype)
    if kind != "torch.uint8" or len(shape) != 3 or shape[0] != 3:
        raise DataError(
            f"image: a tensor {shape} of {kind} given, (3, H, W) of torch.uint8 is needed"
        )
    return np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())


def by_padded_size(shapes: Sequence[tuple[int, ...]], batch_size: int) -> list[list[int]]:
    """Places of images that may go through a model together: of one shape, `batch_size` at most."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, shape in enumerate(shapes):
        groups.setdefault(shape, []).append(i)
    return [
        members[first : first + batch_size]
        for members in groups.values()
        for first in range(0, len(members), batch_size)
    ]
