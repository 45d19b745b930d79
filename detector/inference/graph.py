"""An exported model at work: numpy, Pillow and ONNX Runtime, no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.config import Config, from_plain
from detector.config.model import PostprocessConfig
from detector.config.schema import build
from detector.data.resizing import RESIZING
from detector.errors import ConfigError
from detector.inference import outputs
from detector.inference.calibrated import Calibration, calibration_of
from detector.inference.calling import ImageModel, by_padded_size
from detector.inference.detections import Detections
from detector.inference.preprocess import PreprocessConfig, Preprocessed, preprocess

METADATA = "detector"
"""The key under which a graph holds, as JSON, what its inputs and outputs mean."""

FORMAT_VERSION = 1

NEEDED = ("format_version", "config", "classes", "category_ids", "layout", "calibration")
"""What the metadata have to hold."""


class GraphPredictor(ImageModel):
    """A model that was exported as ONNX, called as `Predictor` is.

    The graph takes `images` (N, 3, H, W) float32 RGB from 0 to 255, padded right and bottom to a
    multiple of 32, and `sizes` (N, 2) int64, the height and width that are not padding; it gives
    `logits` (N, A, D) and `deltas` (N, A, 4).
    """

    def __init__(self, session: Any, meaning: dict[str, Any], source: str) -> None:
        """session: of ONNX Runtime. meaning: the graph's metadata. source: named in messages."""
        self.session, self.source = session, source
        self.config: Config = from_plain(meaning["config"])
        self.classes = tuple(meaning["classes"])
        self.category_ids = tuple(meaning["category_ids"])
        self.layout: str = meaning["layout"]
        stored = meaning["calibration"]
        self.calibration: Calibration | None = None if stored is None else calibration_of(stored)
        self.device = "cpu"

    def __repr__(self) -> str:
        return f"GraphPredictor({self.source}: {len(self.classes)} classes, {self.layout})"

    @cached_property
    def sizes(self) -> PreprocessConfig:
        """How large the model sees an image: the options of the training's augmentation."""
        return preprocess_config(self.config)

    @cached_property
    def augment(self) -> Any:
        """The training's resizing, for scoring a data set; it needs OpenCV and torch."""
        from detector.config.registry import AUGMENTATIONS

        return AUGMENTATIONS.build(self.config.augment)

    def detect_pixels(
        self, images: Sequence[NDArray[np.uint8]], score_threshold: float, batch_size: int
    ) -> list[Detections]:
        """The detections above a score in each of several (H, W, 3) RGB images, in their order."""
        settings = replace(self.config.model.postprocess, score_threshold=score_threshold)
        each = [preprocess([image], self.sizes) for image in images]
        found: dict[int, Detections] = {}
        for part in by_padded_size([one.images.shape for one in each], batch_size):
            together = Preprocessed(
                *(
                    np.concatenate([getattr(each[i], name) for i in part])
                    for name in ("images", "sizes", "scales")
                )
            )
            found |= zip(part, self.detect_arrays(together, settings), strict=True)
        return [found[i] for i in range(len(images))]

    def detect(self, batch: Any, settings: PostprocessConfig | None = None) -> list[Detections]:
        """What is found in each image of a `Batch`, as a data loader makes it."""
        arrays = Preprocessed(batch.images.numpy(), batch.sizes.numpy(), batch.scales.numpy())
        return self.detect_arrays(arrays, settings or self.config.model.postprocess)

    def detect_arrays(self, batch: Preprocessed, settings: PostprocessConfig) -> list[Detections]:
        """What is found in each of N images, in pixels of the original images."""
        given = {"images": batch.images.astype(np.float32), "sizes": batch.sizes}
        logits, deltas = self.session.run(["logits", "deltas"], given)
        height, width = batch.images.shape[-2:]
        model = self.config.model
        anchors, level_sizes = outputs.anchors_of(model.anchors, height, width)
        found = []
        for i, size in enumerate(batch.sizes.tolist()):
            boxes, scores, labels = outputs.detections_of(
                outputs.scores_of(self.layout, logits[i]),
                deltas[i],
                anchors,
                level_sizes,
                tuple(size),
                model.coder,
                settings,
            )
            scale = np.tile(batch.scales[i][::-1], 2)
            boxes = (boxes / scale).astype(np.float32)
            found.append(Detections(boxes, scores, labels, self.classes, self.category_ids))
        return found


def preprocess_config(config: Config) -> PreprocessConfig:
    """The sizes of a config's augmentation. Raises ConfigError for one of another kind."""
    name, options = config.augment.name, config.augment.options
    if name not in RESIZING:
        raise ConfigError(
            f"augment: {name} given, only {' and '.join(RESIZING)} can be done without what "
            "registers it"
        )
    keys = ("min_size", "max_size", "interpolation", "size_rounding")
    return build(PreprocessConfig, {k: options[k] for k in keys if k in options}, "augment")


def load_graph(path: str | Path) -> GraphPredictor:
    """The model of an ONNX file that `detector export` has written.

    Raises ConfigError where ONNX Runtime is missing or refuses the file (a damaged one, one with
    operators or files of its own), or where it does not say what its outputs mean.
    """
    try:
        import onnxruntime  # type: ignore[import-not-found]
    except ImportError:
        raise ConfigError("onnxruntime is needed: pip install 'dense-detector[onnx]'") from None
    if not Path(path).is_file():
        raise ConfigError(f"checkpoint: {path} is not a file")
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # of many kinds, none of them documented
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"checkpoint: {path} cannot be read as ONNX: {reason}") from None
    return GraphPredictor(session, meaning_of(session, str(path)), str(path))


def meaning_of(session: Any, path: str) -> dict[str, Any]:
    """What a graph says of itself. Raises ConfigError where that is not enough to use it."""
    text = session.get_modelmeta().custom_metadata_map.get(METADATA, "")
    try:
        meaning = json.loads(text)
    except ValueError:
        meaning = None
    if not isinstance(meaning, dict) or any(key not in meaning for key in NEEDED):
        raise ConfigError(
            f"checkpoint: {path} does not say what its outputs mean; `detector export` writes "
            "files that do"
        )
    if meaning["format_version"] != FORMAT_VERSION:
        raise ConfigError(
            f"checkpoint: {path} has format {meaning['format_version']}, {FORMAT_VERSION} is what "
            "this version reads"
        )
    return meaning
