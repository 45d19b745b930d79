"""A run of seconds: small generated images, a thin pyramid."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

TINY: dict[str, Any] = {
    "loss": {"name": "focal", "weight": 1.0, "alpha": 0.25, "gamma": 2.0},
    "box_loss": {"name": "smooth_l1", "weight": 1.0},
    "matcher": {"name": "retinanet"},
    "backbone": {"name": "resnet", "arch": "resnet18"},
    "data": {"name": "generated", "num_train": 10, "num_val": 3, "image_size": 64, "max_size": 32},
    "augment": {"name": "albumentations", "horizontal_flip": 0.5},
    "optim": {"name": "adamw", "lr": 1e-3},
    "schedule": {"name": "cosine"},
    "model": {
        "fpn": {"channels": 16},
        "head": {"channels": 16, "num_convs": 1},
    },
    "loader": {"num_workers": 0},
    "precision": "float32",
    "device": "cpu",
    "steps": 6,
    "batch_size": 4,
    "log_every": 1,
    "save_every": None,
    "tensorboard": False,
}


def tiny(output_dir: Path, **changes: Any) -> dict[str, Any]:
    """The plain config with top-level keys replaced."""
    return copy.deepcopy(TINY) | {"output_dir": str(output_dir)} | changes
