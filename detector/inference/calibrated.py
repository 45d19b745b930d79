"""What tools/calibrate.py stores in a checkpoint, and what the other tools read from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from detector.analysis.calibrators import Calibrator, Link
from detector.analysis.operating_points import OperatingPoints
from detector.config.schema import require
from detector.inference.detections import Detections

if TYPE_CHECKING:
    from detector.losses.base import ClassLoss


@dataclass(frozen=True)
class Calibration:
    """calibrator: None leaves scores as they are. raw, calibrated: operating points by criterion,
    for scores before and after it. note: on what all was fitted, in words.
    """

    calibrator: Calibrator | None
    raw: dict[str, OperatingPoints]
    calibrated: dict[str, OperatingPoints]
    note: str

    def selector(
        self, threshold: float | Literal["auto"], operating_point: str, *, calibrated: bool
    ) -> Callable[[Detections], Detections]:
        """What maps the scores of an image's detections and leaves out those below the threshold.

        threshold: a score, or "auto" for those of the classes at the operating point. calibrated:
        whether scores are mapped. Raises ConfigError where no calibrator or no such operating point
        is stored.
        """
        calibrator = self.calibrator if calibrated else None
        is_there = calibrator is not None or not calibrated
        require(is_there, "calibrated: true given, but method=none was stored")
        stored = self.calibrated if calibrated else self.raw
        require(
            operating_point in stored,
            f"operating_point: {operating_point!r} is not one of {', '.join(stored)}",
        )
        points = stored[operating_point]

        def select(found: Detections) -> Detections:
            scores = found.scores.astype(np.float64)
            if calibrator is not None:
                scores = calibrator(scores, found.labels)
            kept = (
                points.keep(scores, found.labels)
                if isinstance(threshold, str)
                else scores > threshold
            )
            order = np.argsort(-scores, kind="stable")  # each class has its own map
            order = order[kept[order]]
            mapped = scores.astype(found.scores.dtype)
            return replace(
                found, boxes=found.boxes[order], scores=mapped[order], labels=found.labels[order]
            )

        return select

    def to_dict(self) -> dict[str, Any]:
        """Strings, numbers, lists and dicts, for the checkpoint."""
        return {
            "calibrator": None if self.calibrator is None else self.calibrator.to_dict(),
            "raw": {name: points.to_dict() for name, points in self.raw.items()},
            "calibrated": {name: points.to_dict() for name, points in self.calibrated.items()},
            "note": self.note,
        }


def calibration_of(state: Mapping[str, Any], link: Link | None = None) -> Calibration:
    """A calibration from what `Calibration.to_dict` has made of it.

    link: the link inverse of the loss, for a calibrator that is made of it.
    """
    own = state["calibrator"]
    return Calibration(
        calibrator=None if own is None else Calibrator.from_dict(own, link=link),
        raw=_points(state["raw"]),
        calibrated=_points(state["calibrated"]),
        note=state["note"],
    )


def _points(state: Mapping[str, Any]) -> dict[str, OperatingPoints]:
    return {name: OperatingPoints.from_dict(points) for name, points in state.items()}


def link_of(loss: ClassLoss, rating: str | None = None) -> Link | None:
    """A loss's `link_inverse` on arrays; None where it is not known, or scores are rated too."""
    import torch  # here, since a calibration is applied where torch is not installed

    if rating is not None or loss.link_inverse(torch.full((1,), 0.5, dtype=torch.float64)) is None:
        return None

    @torch.no_grad()
    def link(scores: np.ndarray) -> np.ndarray:
        posterior = loss.link_inverse(torch.as_tensor(scores, dtype=torch.float64))
        assert posterior is not None
        return posterior.numpy()

    return link
