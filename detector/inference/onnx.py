"""Exports a model as ONNX, and shows that what comes out finds the same boxes."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import detector
from detector.config.registry import DATASETS
from detector.config.schema import require
from detector.data.images import list_images, read_pixels
from detector.errors import ConfigError, DataError
from detector.inference.detections import Detections
from detector.inference.graph import (
    FORMAT_VERSION,
    METADATA,
    GraphPredictor,
    load_graph,
    preprocess_config,
)
from detector.inference.predictor import Predictor, config_of, restore
from detector.models.detector import Detector
from detector.runs import checkpoint

EXAMPLE = (2, 3, 128, 160)
"""Shape of the images that the exporter follows; batch, height and width stay free."""

MIN_IOU, MAX_SCORE_DIFFERENCE = 0.99, 1e-3
"""When two detections are the same: rounding moves boxes and scores by far less."""

MAX_UNMATCHED = 0.01
"""Share of the detections that may have no partner: those at the edge of the ranks that are kept,
or of the overlap at which one suppresses another, may fall on either side."""


class Outputs(nn.Module):
    """The part of a model that a graph holds: from pixels to logits and deltas."""

    def __init__(self, model: Detector) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, A, D) and deltas (N, A, 4) of images (N, 3, H, W) from 0 to 255."""
        model = self.model
        return model.head(model.pyramid(model.normalize(images, sizes)))


@dataclass(frozen=True)
class Agreement:
    """How an exported graph and its checkpoint agree on some images.

    detections: of the checkpoint. unmatched: those of either without a partner of the same class,
    with an IoU of at least MIN_IOU and a score within MAX_SCORE_DIFFERENCE. score, box: the largest
    difference of a matched pair, in pixels for a box.
    """

    images: int
    detections: int
    unmatched: int
    score: float
    box: float

    @property
    def is_same(self) -> bool:
        """Whether the graph finds what the checkpoint finds."""
        return self.detections > 0 and self.unmatched <= MAX_UNMATCHED * 2 * self.detections

    def __str__(self) -> str:
        return (
            f"{self.images} images, {self.detections} detections: {self.unmatched} without a "
            f"partner, scores differ by at most {self.score:.1e}, boxes by {self.box:.1e} px"
        )


def export_onnx(
    path: str | Path,
    output: str | Path,
    *,
    overwrite: bool = False,
    images: str | None = None,
    num_images: int = 8,
) -> tuple[Path, Agreement]:
    """Writes the model of a checkpoint as ONNX, in float32, with free batch and image size.

    Its metadata hold all that is needed to use it: classes, sizes of images, anchors, thresholds,
    calibration. images: a folder of images on which both are compared; None: those of the val split
    of the checkpoint's data. Raises ConfigError where the exporter is missing, where something of
    the model cannot be exported, and where the graph does not find what the checkpoint finds: then
    no file is written.
    """
    target = Path(output)
    require(
        target.suffix == ".onnx", f"output: {output} given, a name that ends in .onnx is needed"
    )
    is_free = overwrite or not target.exists()
    require(is_free, f"output: {output} is already there; overwrite=true replaces it")
    saved = checkpoint.load(path)
    # bfloat16, which `auto` may take, would not give the graph's boxes.
    config = config_of({**saved, "config": {**saved["config"], "precision": "float32"}}, str(path))
    predictor = restore(saved, config, str(path), torch.device("cpu"))
    meaning = meaning_of(saved, predictor, Path(path))
    pixels = list(some_images(predictor, images, num_images))
    temporary = target.with_name(f".{target.name}{checkpoint.TEMPORARY}.onnx")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_graph(predictor.model, meaning, temporary)
        agreement = compare(predictor, load_graph(temporary), pixels)
        if not agreement.is_same:
            raise ConfigError(
                f"output: the graph does not find what {path} finds, so it is not written: "
                f"{agreement}"
            )
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return target, agreement


def meaning_of(saved: dict[str, Any], predictor: Predictor, path: Path) -> dict[str, Any]:
    """What the graph says of itself. Raises ConfigError for what a graph cannot say."""
    config = predictor.config
    preprocess_config(config)  # raises for an augmentation that only its plugin knows
    require(
        config.model.anchors.stride_mode == "fixed",
        "model.anchors.stride_mode: image cannot be exported, since such anchors depend on more "
        "than the size of the map",
    )
    stored = saved.get(checkpoint.CALIBRATION)
    own = None if stored is None else stored["calibrator"]
    require(
        own is None or own.get("method") != "link_inverse",
        "the stored calibrator is the loss's link inverse, which needs this project's losses; "
        "detector calibrate method=platt writes one that can be exported",
    )
    return {
        "format_version": FORMAT_VERSION,
        "detector_version": detector.__version__,
        "config": saved["config"] | {"output_dir": None, "resume": None, "weights": None},
        "classes": list(predictor.classes),
        "category_ids": list(predictor.category_ids),
        "layout": type(predictor.layout).__name__,
        "calibration": stored,
        "checkpoint_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "step": saved.get("step"),
    }


def write_graph(model: Detector, meaning: dict[str, Any], path: Path) -> None:
    """The ONNX file. Raises ConfigError without the libraries that make it."""
    try:
        import onnx  # type: ignore[import-not-found]  # noqa: F401
        import onnxscript  # type: ignore[import-not-found]  # noqa: F401
    except ImportError as error:
        cure = "pip install 'dense-detector[onnx]'"
        raise ConfigError(f"{error.name} is needed to export: {cure}") from None
    module = Outputs(model.to(memory_format=torch.contiguous_format)).eval()  # type: ignore[call-overload]
    free = torch.export.Dim.DYNAMIC
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    program = torch.onnx.export(
        module,
        (torch.zeros(EXAMPLE), torch.tensor([EXAMPLE[2:]] * EXAMPLE[0])),
        dynamo=True,
        verbose=False,
        input_names=["images", "sizes"],
        output_names=["logits", "deltas"],
        dynamic_shapes={"images": {0: free, 2: free, 3: free}, "sizes": {0: free}},
    )
    assert program is not None
    program.model.metadata_props[METADATA] = json.dumps(meaning)
    program.save(str(path))


def some_images(predictor: Predictor, folder: str | None, most: int) -> Iterable[NDArray[np.uint8]]:
    """Pixels of images to compare on: of a folder, or of the val split of the model's data."""
    if folder is not None:
        require(Path(folder).is_dir(), f"images: {folder} is not a folder")
        names = list_images(Path(folder))[:most]
        if not names:
            raise DataError(f"images={folder}: holds no images")
        for name in names:
            yield read_pixels(Path(folder) / name, 100.0, key="images")
        return
    try:
        dataset = DATASETS.build(predictor.config.data).read("val")
    except DataError as error:
        raise DataError(f"{error}; images=FOLDER names others to compare on") from None
    for index in range(min(most, len(dataset))):
        yield dataset.image(index)


def compare(
    predictor: Predictor, graph: GraphPredictor, images: Sequence[NDArray[np.uint8]]
) -> Agreement:
    """How the two agree on (H, W, 3) images, alone and several at a time, at every score."""
    pairs = []
    for batch_size in (1, 3):
        ours = predictor(images, threshold=0.0, batch_size=batch_size)
        theirs = graph(images, threshold=0.0, batch_size=batch_size)
        pairs += [matched(a, b) for a, b in zip(ours, theirs, strict=True)]
    unmatched, scores, boxes = zip(*pairs, strict=True)
    return Agreement(
        len(images), sum(len(d) for d in ours) * 2, sum(unmatched), max(scores), max(boxes)
    )


def matched(ours: Detections, theirs: Detections) -> tuple[int, float, float]:
    """Detections of either without a partner; the largest difference of a score and of a box."""
    left, score, box, unmatched = set(range(len(theirs))), 0.0, 0.0, 0
    for i in range(len(ours)):
        partner = max(
            (j for j in left if theirs.labels[j] == ours.labels[i]),
            key=lambda j: _iou(ours.boxes[i], theirs.boxes[j]),
            default=None,
        )
        difference = 1.0 if partner is None else abs(ours.scores[i] - theirs.scores[partner])
        is_same = partner is not None and _iou(ours.boxes[i], theirs.boxes[partner]) >= MIN_IOU
        if partner is None or not is_same or difference > MAX_SCORE_DIFFERENCE:
            unmatched += 1
            continue
        left.remove(partner)
        score = max(score, float(difference))
        box = max(box, float(np.abs(ours.boxes[i] - theirs.boxes[partner]).max()))
    return unmatched + len(left), score, box


def _iou(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Of two boxes (4,)."""
    sides = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    shared = float(np.prod(sides))
    return shared / (float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - shared)
