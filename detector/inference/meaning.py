"""What an exported file says of itself: how to feed it, and what comes out. JSON, read as data."""

from __future__ import annotations

import json
from typing import Any

from detector.config import Config
from detector.config.schema import build
from detector.data.resizing import RESIZING
from detector.errors import ConfigError
from detector.inference.preprocess import PreprocessConfig

METADATA = "detector"
"""The key under which a file holds it."""

FORMAT_VERSION = 2

OUTPUTS = {
    "raw": ("logits", "deltas"),
    "detections": ("boxes", "scores", "labels", "counts"),
}
"""What comes out of a graph by the kind of its outputs; `detector/inference/modules.py` has the
shapes."""

NEEDED: dict[str, type | tuple[type, ...]] = {
    "format_version": int,
    "config": dict,
    "classes": list,
    "category_ids": list,
    "layout": str,
    "outputs": str,
    "precision": str,
    "threshold": (int, float),
    "calibrated": bool,
    "shape": (list, type(None)),
    "preprocessing": dict,
    "calibration": (dict, type(None)),
}
"""What there has to be, and of which type."""


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


def preprocessing(config: Config) -> dict[str, Any]:
    """How an image becomes what the graph takes, for a program that knows nothing of this one."""
    sizes = preprocess_config(config)
    return {
        "color": "RGB",
        "range": [0, 255],
        "layout": "NCHW",
        "min_size": sizes.min_size,
        "max_size": sizes.max_size,
        "size_rounding": sizes.size_rounding,
        "interpolation": sizes.interpolation,
        "pad": "right and bottom with 0",
        "pad_to_multiple": 32,
        "normalization": "inside",
        "exif_rotation": "not applied",
    }


def read_meaning(text: str, path: str) -> dict[str, Any]:
    """What the text of a file's metadata says. Raises ConfigError where it is not enough."""
    try:
        meaning = json.loads(text)
    except (ValueError, RecursionError):
        meaning = None
    if isinstance(meaning, dict) and isinstance(meaning.get("format_version"), int):
        version = meaning["format_version"]
        if version != FORMAT_VERSION:
            raise ConfigError(
                f"checkpoint: {path} has format {version}, {FORMAT_VERSION} is what this version "
                "reads"
            )
    if not isinstance(meaning, dict) or not _is_complete(meaning):
        raise ConfigError(
            f"checkpoint: {path} does not say what its outputs mean; `detector export` writes "
            "files that do"
        )
    return meaning


def _is_complete(meaning: dict[str, Any]) -> bool:
    """Whether all is there, of its type, and speaks of one number of classes."""
    if any(not isinstance(meaning.get(key, ...), kind) for key, kind in NEEDED.items()):
        return False
    names, ids, shape = meaning["classes"], meaning["category_ids"], meaning["shape"]
    is_named = all(isinstance(name, str) for name in names)
    is_counted = all(type(i) is int for i in ids) and len(names) == len(ids) > 0
    is_shaped = shape is None or (
        len(shape) == 3 and all(type(side) is int and side > 0 for side in shape)
    )
    return is_named and is_counted and is_shaped and meaning["outputs"] in OUTPUTS
