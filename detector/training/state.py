"""Everything that changes while training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from detector.criterion import Criterion
from detector.models.detector import Detector
from detector.optim.ema import EMA

NONE_YET = -1.0
"""The best metric of a run that has scored nothing."""


@dataclass
class State:
    """Everything that changes while training: exactly what a checkpoint saves.

    No random state, no scheduler, no loader: draws are keyed by (seed, epoch, image), rates are
    functions of the step.
    """

    model: Detector
    ema: EMA[Detector] | None
    criterion: Criterion
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler  # type: ignore[name-defined]
    step: int = 0
    best_metric: float = NONE_YET
    evaluated: int = 0
    """The step whose weights were scored last."""
    stale: int = 0
    """Evaluations since the best one."""
    images: str = ""
    """What the steps were made of: a chain over image ids and random keys, in their order."""
    skipped: int = 0
    """Steps whose gradient was not finite, and which changed no weight."""
    replaced: int = 0
    """Times that a file could not be decoded, and another image was taken in its place."""

    def state_dict(self) -> dict[str, Any]:
        """Plain containers and tensors."""
        return {
            "step": self.step,
            "best_metric": self.best_metric,
            "evaluated": self.evaluated,
            "stale": self.stale,
            "images": self.images,
            "skipped": self.skipped,
            "replaced": self.replaced,
            "model": self.model.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "criterion": self.criterion.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes back to a saved state, to the bit."""
        self.step = state["step"]
        self.best_metric = state["best_metric"]
        self.evaluated = state["evaluated"]
        self.stale = state.get("stale", 0)  # of older versions: without patience
        self.images = state.get("images", "")  # of older versions: unknown
        self.skipped = state.get("skipped", 0)
        self.replaced = state.get("replaced", 0)
        self.model.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.criterion.load_state_dict(state["criterion"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])

    @property
    def evaluated_model(self) -> Detector:
        """The model that is scored: averaged weights where there are any."""
        return self.model if self.ema is None else self.ema.model
