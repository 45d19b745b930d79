"""The number by which losses are compared: one of COCO's, a class's AP, or recall at a price."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from detector.analysis.matching import AREAS, COCO_THRESHOLDS, EVERY_AREA, match
from detector.analysis.packing import Packed
from detector.config.schema import require
from detector.errors import ConfigError
from detector.laboratory.compare.resampling import OfClass, Resampled

AREA_OF = {"APs": "small", "APm": "medium", "APl": "large"}
IOUS_OF = {"AP50": (0.5,), "AP75": (0.75,)}
NAMES = ("AP", *IOUS_OF, *AREA_OF)

WRITTEN = "AP, AP50, AP75, APs, APm, APl, class:NAME, recall@precision=0.9 or recall@fppi=0.1"


@dataclass(frozen=True)
class Metric:
    """text: as the config has it, which is also the key of its numbers in results.json.

    only: the class it is of. price: "precision" or "fppi", at which recall is read; level: of it.
    """

    text: str = "AP"
    only: str | None = None
    price: str | None = None
    level: float = 0.0

    @property
    def words(self) -> str:
        """How sentences and heads of tables call it."""
        if self.only is not None:
            return f"AP of {self.only}"
        if self.price == "fppi":
            return f"recall at {self.level:g} false alarms per image"
        return f"recall at precision {self.level:g}" if self.price else self.text

    def of(self, packed: Packed) -> Resampled:
        """What the metric needs of a run, to be read on images drawn anew too. The class, where it
        is of one, is one of them."""
        label = None if self.only is None else packed.classes.index(self.only)
        if self.price is None:
            area = AREAS[AREA_OF[self.text]] if self.text in AREA_OF else EVERY_AREA
            ious = IOUS_OF.get(self.text, COCO_THRESHOLDS)
            return Resampled.of(packed, match(packed, ious, area=area), label)
        value = _recall_at_fppi if self.price == "fppi" else _recall_at_precision
        return Resampled.of(packed, match(packed, (0.5,)), None, value(self.level))


def parse(text: str) -> Metric:
    """The metric of a text. Raises ConfigError for one that is not among those `WRITTEN`."""
    if text in NAMES:
        return Metric(text)
    if text.startswith("class:") and text != "class:":
        return Metric(text, only=text.removeprefix("class:"))
    found = re.fullmatch(r"recall@(precision|fppi)=(\d*\.?\d+)", text)
    if not found:
        raise ConfigError(f"metric: {text!r} given, allowed: {WRITTEN}")
    price, level = found[1], float(found[2])
    is_share = price == "fppi" or level <= 1
    require(level > 0 and is_share, f"metric: {text!r} given, above 0 (a precision up to 1)")
    return Metric(text, price=price, level=level)


Value = Callable[[OfClass, np.ndarray], np.ndarray]


def _recall_at_fppi(level: float) -> Value:
    """(R,) the greatest recall of a class at so many of its false alarms per image at most."""

    def value(part: OfClass, weights: np.ndarray) -> np.ndarray:
        right, wrong = _sums(part, weights)
        is_allowed = wrong <= level * weights.sum(axis=1, keepdims=True)
        return _best(right, is_allowed, weights @ part.objects)

    return value


def _recall_at_precision(level: float) -> Value:
    """(R,) the greatest recall of a class at a precision of that or more."""

    def value(part: OfClass, weights: np.ndarray) -> np.ndarray:
        right, wrong = _sums(part, weights)
        return _best(right, right >= level * (right + wrong), weights @ part.objects)

    return value


def _sums(part: OfClass, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(R, L) right and wrong detections down to each of the L scores that occur, and none at all.

    Equal scores are kept or left out together, as a threshold does.
    """
    mine = weights[:, part.images] * part.counted[0]
    ends = np.flatnonzero(np.diff(part.scores, append=-np.inf))
    start = np.zeros((len(weights), 1))
    right = np.cumsum(mine * part.hits[0], axis=1)[:, ends]
    every = np.cumsum(mine, axis=1)[:, ends]
    return np.hstack([start, right]), np.hstack([start, every - right])


def _best(right: np.ndarray, is_allowed: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """(R,) recall at the best of the allowed thresholds, nan without an object."""
    most = np.where(is_allowed, right, 0.0).max(axis=1)
    return np.divide(most, objects, out=np.full(len(objects), np.nan), where=objects > 0)
