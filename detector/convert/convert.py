"""From a file of another framework to a checkpoint of this one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import detector
from detector.config import from_plain
from detector.config.registry import LOSSES
from detector.convert.coco import CATEGORY_IDS, CLASSES
from detector.convert.files import read_state
from detector.convert.sources import SOURCES, SourceName, to_ours
from detector.errors import ConfigError
from detector.models.detector import Detector, build_detector
from detector.runs import checkpoint


def convert(source: SourceName, weights: str, output: str, plain: dict[str, Any]) -> None:
    """Writes a checkpoint that is enough to evaluate, to predict and to train from.

    weights: their file, trained on COCO. plain: the composed config that the checkpoint will hold,
    with `model=SOURCE`. Raises ConfigError for a file that is not that framework's RetinaNet on
    COCO, and where `output` exists or cannot be written.
    """
    path = Path(output)
    require_free(path)
    theirs = read_state(Path(weights))
    model = empty_model(plain)
    model.load_state_dict(to_ours(SOURCES[source], theirs, model.state_dict(), weights))
    checkpoint.save(path, content(model, plain))


def empty_model(plain: dict[str, Any]) -> Detector:
    """The model of a config with the classes of COCO, its weights not read."""
    config = from_plain(plain)
    layout = LOSSES.build(config.loss, len(CLASSES)).layout
    return build_detector(
        config.backbone, config.model, layout, 0.01, neck=config.neck, pretrained=False
    )


def content(model: Detector, plain: dict[str, Any]) -> dict[str, Any]:
    """What a run would save that has not begun; of its data nothing but the classes is known."""
    return {
        "detector_version": detector.__version__,
        "torch_version": str(torch.__version__),
        "config": plain,
        "classes": list(CLASSES),
        "category_ids": list(CATEGORY_IDS),
        "fingerprint": None,
        "evaluator": plain["evaluation"]["evaluator"],
        "step": 0,
        "model": model.state_dict(),
        "ema": None,
    }


def require_free(path: Path) -> None:
    """Raises ConfigError where the file exists, or its folder does not."""
    if path.exists():
        raise ConfigError(f"output: {path} exists already")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"output: {path.absolute().parent} is not a folder")
