"""A trained model at work: images in, detections out. Everything that only uses a model has it."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from detector.config import Config, from_plain
from detector.config.model import PostprocessConfig
from detector.config.registry import (
    AUGMENTATIONS,
    LOSSES,
    REGISTRIES,
    import_plugins,
    require_known,
)
from detector.config.schema import require
from detector.data.loader import collate
from detector.data.transforms import Augmentation, without_objects
from detector.inference import preprocess
from detector.inference.detections import Detections
from detector.inference.preprocess import decode
from detector.layouts import Layout
from detector.models.detector import Detector, build_detector
from detector.models.postprocess import postprocess
from detector.runs import checkpoint
from detector.runs.checkpoint import CALIBRATION, weights_to_evaluate
from detector.runtime.distributed import choose_device
from detector.runtime.precision import Precision, choose, prepare
from detector.runtime.startup import check_versions
from detector.structures import Batch, DetectionTensors, Predictions, to_device

if TYPE_CHECKING:
    from detector.inference.calibrated import Calibration

Source = preprocess.Source | Tensor
"""An image: a file's path, a PIL image, (H, W, 3) uint8 RGB, or a (3, H, W) uint8 tensor."""

Threshold = float | Literal["auto"]


class Predictor:
    """A trained model: `predictor("image.jpg", threshold=0.3)` is what it finds there.

    classes, category_ids: the K names and the ids of the data set it was trained on. layout: what
    its class outputs mean. config: of the run that trained it. calibration: what
    `tools/calibrate.py` has stored in its checkpoint, if anything. device, precision: where and in
    which number format it computes.

    `predict` and `detect` take a whole `Batch`, as a data loader makes it.
    """

    def __init__(
        self,
        model: Detector,
        layout: Layout,
        config: Config,
        *,
        classes: Sequence[str],
        category_ids: Sequence[int],
        device: torch.device,
        precision: Precision,
        augment: Augmentation | None = None,
        calibration: Calibration | None = None,
        source: str = "this model",
    ) -> None:
        """augment: how images are resized; None: as the config says. source: named in messages."""
        self.model, self.layout, self.config = model, layout, config
        self.classes, self.category_ids = tuple(classes), tuple(category_ids)
        self.device, self.precision = device, precision
        self.augment: Augmentation = augment or AUGMENTATIONS.build(config.augment)
        self.calibration, self.source = calibration, source

    def __repr__(self) -> str:
        names = ", ".join(self.classes[:5]) + (", ..." if len(self.classes) > 5 else "")
        return (
            f"Predictor({self.source}: {len(self.classes)} classes ({names}), loss "
            f"{self.config.loss.name}, {self.precision.name} on {self.device})"
        )

    @torch.no_grad()
    def predict(self, batch: Batch) -> Predictions:
        """The outputs for all anchors, without gradients, on the device of the model."""
        if self.model.training:
            self.model.eval()
        batch = to_device(batch, self.device)
        with self.precision.autocast(self.device):
            return self.model(batch)

    def detect(self, batch: Batch, settings: PostprocessConfig | None = None) -> list[Detections]:
        """What is found in each of the N images, in pixels of the original files.

        settings: of the post-processing; None: those of the config, which scoring takes.
        """
        return self.decode(self.predict(batch), batch, settings)

    @torch.no_grad()
    def decode(
        self, predictions: Predictions, batch: Batch, settings: PostprocessConfig | None = None
    ) -> list[Detections]:
        """The detections of predictions that `predict` has made of this batch."""
        settings = settings or self.config.model.postprocess
        batch = to_device(batch, self.device)
        return [self._named(d) for d in postprocess(predictions, self.layout, batch, settings)]

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
        max_megapixels: float = 100.0,
    ) -> Detections | list[Detections]:
        """What is found in an image, or in each of several, above a score.

        images: a path, a PIL image, an (H, W, 3) uint8 array, a (3, H, W) uint8 tensor, all in RGB;
        or several of them. threshold: a score in [0, 1), or "auto" for the one of each class that
        calibration has stored as `operating_point` ("lrp", "f1", "cost"). calibrated: scores are
        mapped to probabilities of being right first. batch_size: of several images, as many of one
        padded size are computed at a time; each is padded as it would be alone, so what is found in
        one does not depend on the others, but for rounding.
        max_megapixels: larger files are refused before they are decoded.

        Raises DataError for a file that cannot be read, ConfigError for a threshold that is not
        allowed and for a calibration that is not there.
        """
        is_known = threshold == "auto" or (not isinstance(threshold, str) and 0 <= threshold < 1)
        require(is_known, f"threshold: {threshold} given, 0 to below 1 is allowed, or auto")
        needs_calibration = calibrated or threshold == "auto"
        calibration = self.require_calibration() if needs_calibration else None
        first = 0.0 if needs_calibration else float(threshold)  # classes or scores change later
        settings = replace(self.config.model.postprocess, score_threshold=first)
        is_one = isinstance(images, str | os.PathLike | Image.Image | np.ndarray | Tensor)
        every: Sequence[Source] = [images] if is_one else images  # type: ignore[list-item,assignment]
        pixels = [_pixels(image, max_megapixels) for image in every]
        found = self._detect_pixels(pixels, settings, batch_size)
        if calibration is not None:
            select = calibration.selector(threshold, operating_point, calibrated=calibrated)
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

    def _detect_pixels(
        self, pixels: Sequence[NDArray[np.uint8]], settings: PostprocessConfig, batch_size: int
    ) -> list[Detections]:
        """In their order. Images of one padded size go through the model together."""
        require(batch_size >= 1, f"batch_size: {batch_size} given, at least 1 is needed")
        waiting: dict[tuple[int, ...], list[int]] = defaultdict(list)
        batches = [collate([(self._resized(image), 0, 0)])[0] for image in pixels]
        for i, batch in enumerate(batches):
            waiting[tuple(batch.images.shape)].append(i)
        found: dict[int, Detections] = {}
        for members in waiting.values():
            for first in range(0, len(members), batch_size):
                part = members[first : first + batch_size]
                together = _joined([batches[i] for i in part])
                found |= zip(part, self.detect(together, settings), strict=True)
        return [found[i] for i in range(len(pixels))]

    def _resized(self, pixels: NDArray[np.uint8]) -> Any:
        return self.augment.evaluate(without_objects(pixels))

    def _named(self, tensors: DetectionTensors) -> Detections:
        boxes, scores, labels = (
            value.cpu().numpy() for value in (tensors.boxes, tensors.scores, tensors.labels)
        )
        return Detections(boxes, scores, labels, self.classes, self.category_ids)


def _pixels(image: Source, max_megapixels: float) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of any kind of image."""
    if isinstance(image, Tensor):
        is_image = image.dtype == torch.uint8 and image.dim() == 3 and image.shape[0] == 3
        require(
            is_image,
            f"image: a tensor {tuple(image.shape)} of {image.dtype} given, (3, H, W) of "
            "torch.uint8 is needed",
        )
        return np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())
    return decode(image, max_megapixels=max_megapixels)


def _joined(batches: Sequence[Batch]) -> Batch:
    """Batches of one padded size as one."""
    if len(batches) == 1:
        return batches[0]
    images, sizes, scales = (
        torch.cat([getattr(batch, name) for batch in batches])
        for name in ("images", "sizes", "scales")
    )
    return Batch(images, sizes, scales, tuple(i for batch in batches for i in batch.image_ids))


def load(
    path: str | Path,
    *,
    device: str = "auto",
    precision: str | None = None,
    plugins: Iterable[str] = (),
) -> Predictor:
    """The model of a checkpoint, ready to be called.

    path: a checkpoint of a run, or one that `tools/convert.py` has made of another framework's
    weights. device: "auto" takes a GPU where there is one. precision: "float32", "bfloat16", ...;
    None: as in training. plugins: modules to import that register parts of one's own.
    Raises ConfigError for a file that is no checkpoint, or one that names parts not known here.
    Nothing in the file is run.
    """
    check_versions()  # a checkpoint may be anyone's: reading it is safe from torch 2.10 on
    import_plugins(plugins)
    saved = checkpoint.load(path)
    config = config_of(saved, str(path))
    if precision is not None:
        config = from_plain({**saved["config"], "precision": precision})
    return restore(saved, config, str(path), choose_device(device))


def config_of(saved: dict[str, Any], path: str) -> Config:
    """The config in a checkpoint. Raises ConfigError where it names parts that are not known."""
    config = from_plain(saved["config"])
    require_known({kind: getattr(config, kind) for kind in REGISTRIES}, config.plugins, path)
    return config


def restore(saved: dict[str, Any], config: Config, path: str, device: torch.device) -> Predictor:
    """The predictor of a checkpoint's content: its averaged weights where it has any.

    config: the one in the checkpoint, or one that differs in what follows the model.
    """
    precision = choose(config.precision, device)
    layout = LOSSES.build(config.loss, len(saved["classes"])).layout
    model = build_detector(config.backbone, config.model, layout, 0.01, pretrained=False)
    model.load_state_dict(weights_to_evaluate(saved))
    return Predictor(
        prepare(model, precision, device, channels_last=config.channels_last).eval(),
        layout,
        config,
        classes=saved["classes"],
        category_ids=saved["category_ids"],
        device=device,
        precision=precision,
        calibration=stored_calibration(saved),
        source=path,
    )


def stored_calibration(saved: dict[str, Any]) -> Calibration | None:
    """What `detector calibrate` has stored in a checkpoint, if anything."""
    if CALIBRATION not in saved:
        return None
    from detector.inference.calibrated import calibration_of  # loaded where it is used

    return calibration_of(saved)
