"""A dense one-stage detector in which the loss is the only thing that changes.

    model = detector.load("best.pt")
    detections = model("image.jpg", threshold=0.3)
    run = detector.train("loss=ssd", "data=coco", "data.root=DIR")

The names below are the public ones; each is imported when it is first used, so that importing the
package itself takes no time. What lies deeper may change.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detector.box_losses.base import BoxLoss
    from detector.cli.train import train
    from detector.config.registry import BACKBONES, BOX_LOSSES, LOSSES, MATCHERS
    from detector.criterion.criterion import Criterion
    from detector.errors import ConfigError, DataError, UserError
    from detector.inference.detections import Detections
    from detector.inference.evaluate import evaluate
    from detector.inference.load import load
    from detector.inference.predictor import Predictor
    from detector.layouts import Layout, Objectness, Sigmoid, Softmax
    from detector.losses.base import ClassLoss
    from detector.matchers.base import Matcher
    from detector.structures import Anchors, Batch, Matches, Predictions, Targets
    from detector.training.run import Run

# albumentations would ask the package index for a newer version whenever it is imported.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

__version__ = "0.1.0"

__all__ = [
    "BACKBONES",
    "BOX_LOSSES",
    "LOSSES",
    "MATCHERS",
    "Anchors",
    "Batch",
    "BoxLoss",
    "ClassLoss",
    "ConfigError",
    "Criterion",
    "DataError",
    "Detections",
    "Layout",
    "Matcher",
    "Matches",
    "Objectness",
    "Predictions",
    "Predictor",
    "Run",
    "Sigmoid",
    "Softmax",
    "Targets",
    "UserError",
    "__version__",
    "evaluate",
    "load",
    "train",
]

_HOMES = {
    "detector.box_losses.base": ("BoxLoss",),
    "detector.cli.train": ("train",),
    "detector.config.registry": ("BACKBONES", "BOX_LOSSES", "LOSSES", "MATCHERS"),
    "detector.criterion.criterion": ("Criterion",),
    "detector.errors": ("ConfigError", "DataError", "UserError"),
    "detector.inference.detections": ("Detections",),
    "detector.inference.evaluate": ("evaluate",),
    "detector.inference.load": ("load",),
    "detector.inference.predictor": ("Predictor",),
    "detector.layouts": ("Layout", "Objectness", "Sigmoid", "Softmax"),
    "detector.losses.base": ("ClassLoss",),
    "detector.matchers.base": ("Matcher",),
    "detector.structures": ("Anchors", "Batch", "Matches", "Predictions", "Targets"),
    "detector.training.run": ("Run",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
