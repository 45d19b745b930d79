"""A trained model at work: images in, detections out. Everything that only uses a model has it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from detector.config import Config, from_plain
from detector.config.model import PostprocessConfig
from detector.config.registry import (
    AUGMENTATIONS,
    LOSSES,
    REGISTRIES,
    import_plugins,
    require_known,
)
from detector.data.loader import collate
from detector.data.transforms import Augmentation, without_objects
from detector.errors import MAX_QUOTED, ConfigError
from detector.inference.calling import ImageModel, by_padded_size
from detector.inference.detections import Detections
from detector.layouts import Layout
from detector.losses.base import ClassLoss, layout_of
from detector.models.detector import Detector, build_detector
from detector.models.postprocess import pack
from detector.runs import checkpoint, entries
from detector.runs.checkpoint import CALIBRATION, weights_to_evaluate
from detector.runtime.distributed import choose_device
from detector.runtime.precision import Precision, choose, prepare
from detector.runtime.startup import check_versions
from detector.structures import Batch, DetectionTensors, Predictions, to_device

if TYPE_CHECKING:
    from detector.inference.calibrated import Calibration


class Predictor(ImageModel):
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
        packed = pack(predictions, self.layout, batch, settings)
        return [self._named(detections) for detections in packed.cpu().unpack(batch.image_ids)]

    def detect_pixels(
        self, images: Sequence[NDArray[np.uint8]], score_threshold: float, batch_size: int
    ) -> list[Detections]:
        """The detections above a score in each of several (H, W, 3) RGB images, in their order."""
        settings = replace(self.config.model.postprocess, score_threshold=score_threshold)
        batches = [collate([(self._resized(image), 0, 0)])[0] for image in images]
        shapes = [tuple(batch.images.shape) for batch in batches]
        found: dict[int, Detections] = {}
        for part in by_padded_size(shapes, batch_size):
            together = _joined([batches[i] for i in part])
            found |= zip(part, self.detect(together, settings), strict=True)
        return [found[i] for i in range(len(images))]

    def _resized(self, pixels: NDArray[np.uint8]) -> Any:
        return self.augment.evaluate(without_objects(pixels))

    def _named(self, tensors: DetectionTensors) -> Detections:
        boxes, scores, labels = (
            value.numpy().copy() for value in (tensors.boxes, tensors.scores, tensors.labels)
        )
        return Detections(boxes, scores, labels, self.classes, self.category_ids)


def _joined(batches: Sequence[Batch]) -> Batch:
    """Batches of one padded size as one."""
    if len(batches) == 1:
        return batches[0]
    images, sizes, scales = (
        torch.cat([getattr(batch, name) for batch in batches])
        for name in ("images", "sizes", "scales")
    )
    return Batch(images, sizes, scales, tuple(i for batch in batches for i in batch.image_ids))


def load_checkpoint(
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
    entries.require(saved, entries.EVALUATED, f"checkpoint: {path}")
    config = from_plain(saved["config"])
    require_known({kind: getattr(config, kind) for kind in REGISTRIES}, config.plugins, path)
    return config


def restore(saved: dict[str, Any], config: Config, path: str, device: torch.device) -> Predictor:
    """The predictor of a checkpoint's content: its averaged weights where it has any.

    config: the one in the checkpoint, or one that differs in what follows the model.
    """
    precision = choose(config.precision, device)
    loss: ClassLoss = LOSSES.build(config.loss, len(saved["classes"]))
    layout = layout_of(loss, config.rating)
    model = build_detector(
        config.backbone,
        config.model,
        layout,
        0.01,
        neck=config.neck,
        pretrained=False,
        fold=config.fold,
    )
    try:
        model.load_state_dict(weights_to_evaluate(saved))
    except RuntimeError as error:  # names or shapes of others
        why = " ".join(str(error).split())[:MAX_QUOTED]
        raise ConfigError(f"checkpoint: {path}: its weights do not fit its config: {why}") from None
    return Predictor(
        prepare(model, precision, device, channels_last=config.channels_last).eval(),
        layout,
        config,
        classes=saved["classes"],
        category_ids=saved["category_ids"],
        device=device,
        precision=precision,
        calibration=stored_calibration(saved, loss),
        source=path,
    )


def stored_calibration(saved: dict[str, Any], loss: ClassLoss) -> Calibration | None:
    """What `detector calibrate` has stored in a checkpoint, if anything; loss: of its model."""
    if CALIBRATION not in saved:
        return None
    from detector.inference.calibrated import calibration_of, link_of  # loaded where it is used

    return calibration_of(saved[CALIBRATION], link_of(loss))
