"""What tools/calibrate.py stores in a checkpoint, and what the other tools read from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from detector.config import from_plain
from detector.errors import ConfigError
from detector.evaluation.calibrators import Calibrator, Link
from detector.evaluation.operating_points import OperatingPoints
from detector.losses.base import ClassLoss
from detector.registry import LOSSES

KEY = "calibration"
"""Of the checkpoint."""


@dataclass(frozen=True)
class Calibration:
    """calibrator: None leaves scores as they are. raw, calibrated: operating points by criterion,
    for scores before and after it. note: on what all was fitted, in words.
    """

    calibrator: Calibrator | None
    raw: dict[str, OperatingPoints]
    calibrated: dict[str, OperatingPoints]
    note: str

    def to_dict(self) -> dict[str, Any]:
        """Strings, numbers, lists and dicts, for the checkpoint."""
        return {
            "calibrator": None if self.calibrator is None else self.calibrator.to_dict(),
            "raw": {name: points.to_dict() for name, points in self.raw.items()},
            "calibrated": {name: points.to_dict() for name, points in self.calibrated.items()},
            "note": self.note,
        }


def calibration_of(saved: Mapping[str, Any], path: str) -> Calibration:
    """What a checkpoint holds. Raises ConfigError where it holds nothing of the kind."""
    if KEY not in saved:
        raise ConfigError(
            f"checkpoint: {path} has no calibrator and no operating points; tools/calibrate.py "
            "writes a copy that has"
        )
    state = saved[KEY]
    loss = LOSSES.build(from_plain(saved["config"]).loss, len(saved["classes"]))
    own = state["calibrator"]
    return Calibration(
        calibrator=None if own is None else Calibrator.from_dict(own, link=link_of(loss)),
        raw=_points(state["raw"]),
        calibrated=_points(state["calibrated"]),
        note=state["note"],
    )


def _points(state: Mapping[str, Any]) -> dict[str, OperatingPoints]:
    return {name: OperatingPoints.from_dict(points) for name, points in state.items()}


def link_of(loss: ClassLoss) -> Link | None:
    """A loss's `link_inverse` on arrays; None where it is not known."""
    if loss.link_inverse(torch.full((1,), 0.5, dtype=torch.float64)) is None:
        return None

    @torch.no_grad()
    def link(scores: np.ndarray) -> np.ndarray:
        posterior = loss.link_inverse(torch.as_tensor(scores, dtype=torch.float64))
        assert posterior is not None
        return posterior.numpy()

    return link
