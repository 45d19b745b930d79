"""An exported model at work: numpy, Pillow and the engine of the file, torch for .pt2 alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.analysis.calibrators import Calibrator
from detector.config import Config, from_plain
from detector.config.model import PostprocessConfig
from detector.config.schema import require
from detector.errors import ConfigError, DataError, DivergedError
from detector.inference import outputs
from detector.inference.backends import OPENERS, Run
from detector.inference.calibrated import Calibration, calibration_of
from detector.inference.calling import ImageModel, by_padded_size
from detector.inference.detections import Detections
from detector.inference.meaning import OUTPUTS, preprocess_config, read_meaning
from detector.inference.preprocess import PreprocessConfig, Preprocessed, preprocess


class GraphPredictor(ImageModel):
    """A model that was exported, called as `Predictor` is.

    The graph takes `images` (N, 3, H, W) float32 RGB from 0 to 255, padded right and bottom to a
    multiple of 32, and `sizes` (N, 2) int64, the height and width that are not padding. It gives
    `logits` (N, A, D) and `deltas` (N, A, 4), or the `boxes`, `scores`, `labels` and `counts` of
    `modules.Found`.

    gives_calibrated: the calibrator is inside, so that scores are calibrated in every call.
    """

    def __init__(self, run: Run, meaning: dict[str, Any], source: str) -> None:
        """meaning: of `read_meaning`. source: named in messages."""
        self.run, self.source, self.meaning = run, source, meaning
        self.config: Config = from_plain(meaning["config"])
        self.classes = tuple(meaning["classes"])
        self.category_ids = tuple(meaning["category_ids"])
        self.layout: str = meaning["layout"]
        stored = meaning["calibration"]
        self.calibration: Calibration | None = None if stored is None else calibration_of(stored)
        self.gives_calibrated = meaning["calibrated"]
        if self.gives_calibrated and self.calibration is not None:
            as_it_is = Calibrator(kind="inside", link=lambda scores: scores)
            self.calibration = replace(
                self.calibration, calibrator=as_it_is, raw=self.calibration.calibrated
            )
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
        """What is found in each of N images, in pixels of the original images.

        Raises DataError for images of another size than a graph of one size has, ConfigError for a
        threshold below the one inside, DivergedError where scores or boxes are not finite.
        """
        self.require_threshold(settings)
        results = self.compute(batch.images.astype(np.float32), batch.sizes)
        decode = self.of_raw if self.meaning["outputs"] == "raw" else self.of_detections
        found = []
        for i, (boxes, scores, labels) in enumerate(decode(results, batch, settings)):
            scale = np.tile(batch.scales[i][::-1], 2)
            boxes = (boxes / scale).astype(np.float32)
            found.append(Detections(boxes, scores, labels, self.classes, self.category_ids))
        return found

    def require_threshold(self, settings: PostprocessConfig) -> None:
        """Raises ConfigError where the graph has left out what is asked for."""
        inside, asked = self.meaning["threshold"], settings.score_threshold
        assert not isinstance(asked, str), "resolved when the model was trained"
        require(
            asked >= inside,
            f"threshold: {asked} is needed here, but {self.source} gives nothing below {inside}; "
            "an export with threshold=0 does",
        )

    def compute(self, images: NDArray[np.float32], sizes: NDArray[np.int64]) -> list[Any]:
        """The outputs of the graph for N images; of a graph of one shape, in parts of its batch."""
        shape, count = self.meaning["shape"], len(images)
        if shape is None:
            return self.run(images, sizes)
        batch, *size = shape
        if list(images.shape[2:]) != size:
            raise DataError(
                f"image: {images.shape[2]} x {images.shape[3]} px after resizing and padding, but "
                f"{self.source} takes {size[0]} x {size[1]} alone"
            )
        parts = []
        for first in range(0, count, batch):
            left = max(0, first + batch - count)
            part = np.pad(images[first : first + batch], ((0, left), (0, 0), (0, 0), (0, 0)))
            own = np.pad(sizes[first : first + batch], ((0, left), (0, 0)), constant_values=1)
            parts.append(self.run(part, own))
        return [np.concatenate(each)[:count] for each in zip(*parts, strict=True)]

    def of_raw(self, results: list[Any], batch: Preprocessed, settings: PostprocessConfig) -> Any:
        """Boxes, scores and labels of each image, from logits and deltas."""
        logits, deltas = results
        model = self.config.model
        anchors, level_sizes = outputs.anchors_of(model.anchors, *batch.images.shape[-2:])
        for i, size in enumerate(batch.sizes.tolist()):
            yield outputs.detections_of(
                outputs.scores_of(self.layout, logits[i]),
                deltas[i],
                anchors,
                level_sizes,
                tuple(size),
                model.coder,
                settings,
            )

    def of_detections(
        self, results: list[Any], batch: Preprocessed, settings: PostprocessConfig
    ) -> Any:
        """The same from detections: all but the limit of the score was settled by the export."""
        for boxes, scores, labels, count in zip(*results, strict=True):
            if count < 0:
                raise DivergedError("scores or boxes of the model are not finite")
            boxes, scores, labels = boxes[:count], scores[:count], labels[:count]
            kept = scores > settings.score_threshold if settings.score_threshold else slice(None)
            yield boxes[kept], scores[kept], labels[kept].astype(np.int64)


def load_graph(
    path: str | Path, *, device: str = "auto", precision: str | None = None
) -> GraphPredictor:
    """The model of a file that `detector export` has written: NAME.onnx, NAME.xml or NAME.pt2.

    device, precision: see `detector.load`. Raises ConfigError where the engine is missing or
    refuses the file (a damaged one, one with operators or files of its own), or where it does not
    say what its outputs mean.
    """
    if not Path(path).is_file():
        raise ConfigError(f"checkpoint: {path} is not a file")
    run, text = OPENERS[Path(path).suffix.lower()](str(path), device, precision)
    meaning = read_meaning(text, str(path))
    predictor = GraphPredictor(run, meaning, str(path))
    require_outputs(predictor)
    return predictor


def require_outputs(predictor: GraphPredictor) -> None:
    """Computes one small image. Raises ConfigError where the graph is not what it says."""
    shape = predictor.meaning["shape"] or [1, 64, 64]
    images = np.zeros((shape[0], 3, *shape[1:]), np.float32)
    sizes = np.array([shape[1:]] * shape[0], np.int64)
    names = OUTPUTS[predictor.meaning["outputs"]]
    try:
        found = [value.shape for value in predictor.run(images, sizes)]
    except Exception as error:  # of each engine's own kinds
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"checkpoint: {predictor.source} does not compute: {reason}") from None
    rated, inner = predictor.layout.startswith("Rated "), predictor.layout.removeprefix("Rated ")
    width = len(predictor.classes) + (inner != "Sigmoid") + rated
    last = {"logits": width, "deltas": 4, "boxes": 4}
    is_fit = len(found) == len(names) and all(
        each[0] == shape[0] and (name not in last or each[-1] == last[name])
        for name, each in zip(names, found, strict=True)
    )
    require(
        is_fit,
        f"checkpoint: {predictor.source} gives outputs of shapes {[*map(list, found)]}, which is "
        f"not what it says of itself: {', '.join(names)} of {len(predictor.classes)} classes",
    )
