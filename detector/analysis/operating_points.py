"""Which detections to show: a threshold per class, by what a user wants of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from detector.analysis import lrp
from detector.analysis.matching import Outcomes
from detector.analysis.sweeps import Sweep, sweep
from detector.errors import ConfigError

CRITERIA = ("lrp", "f1", "cost", "fppi")


@dataclass(frozen=True)
class OperatingPoints:
    """A threshold per class; a detection is kept from that score on, None keeps none.

    criterion: what they are best in, in words; own (K,): false where the threshold is that of all
    classes together; the rest describes each class at its threshold on the data it was chosen on,
    None where it is not defined.
    """

    criterion: str
    thresholds: tuple[float | None, ...]
    pooled: float | None
    own: tuple[bool, ...]
    precision: tuple[float | None, ...]
    recall: tuple[float | None, ...]

    def keep(self, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """(S,) bool: which detections with scores (S,) and labels (S,) in [0, K) to show."""
        limits = [np.inf if threshold is None else threshold for threshold in self.thresholds]
        return np.asarray(scores) >= np.array(limits)[labels]

    def to_dict(self) -> dict[str, Any]:
        """Strings, numbers and lists, for a checkpoint or JSON."""
        return {name: _plain(value) for name, value in vars(self).items()}

    @staticmethod
    def from_dict(state: Mapping[str, Any]) -> OperatingPoints:
        """What `to_dict` gave."""
        return OperatingPoints(
            criterion=state["criterion"],
            thresholds=tuple(state["thresholds"]),
            pooled=state["pooled"],
            own=tuple(state["own"]),
            precision=tuple(state["precision"]),
            recall=tuple(state["recall"]),
        )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def choose(
    found: Outcomes,
    criterion: str,
    *,
    miss: float = 1.0,
    false_alarm: float = 1.0,
    rate: float = 0.1,
    min_objects: int = 1,
) -> OperatingPoints:
    """The best threshold of each class on these detections; of equally good ones the highest.

    criterion: "lrp", the least localisation recall precision error at the IoU of `found`; "f1",
    the greatest F1; "cost", the least of miss x objects missed + false_alarm x false positives
    (a calibrated score p is then kept from false_alarm / (miss + false_alarm) on); "fppi", the most
    objects found at no more than `rate` false positives of the class per image. A class with
    fewer than `min_objects` objects takes the threshold that is best for all classes together.
    Raises ConfigError for another criterion and for costs that are not positive.
    """
    if criterion not in CRITERIA:
        raise ConfigError(f"operating_points: {criterion!r} is not one of {', '.join(CRITERIA)}")
    if not (0 < miss < np.inf and 0 < false_alarm < np.inf):
        raise ConfigError(
            f"operating_points: costs of a miss {miss} and a false alarm {false_alarm} given, "
            "finite ones above 0 are needed"
        )
    if not 0 < rate < np.inf:
        raise ConfigError(f"operating_points: rate {rate} given, a finite one above 0 is needed")
    if criterion == "fppi":
        cost = _within(rate * found.num_images)
        words = f"most found at {rate:g} false alarms of a class per image, IoU {found.threshold:g}"
    else:
        cost, words = _costs(criterion, found.threshold, miss, false_alarm)
    together = sweep(found)
    pooled = _finite(together.thresholds[together.lowest(cost(together))])
    sweeps = [sweep(found, k) for k in range(len(found.classes))]
    own = tuple(sums.num_objects >= max(min_objects, 1) for sums in sweeps)
    thresholds = tuple(
        _finite(sums.thresholds[sums.lowest(cost(sums))]) if enough else pooled
        for sums, enough in zip(sweeps, own, strict=True)
    )
    reached = lrp.at_thresholds(found, thresholds)
    return OperatingPoints(
        criterion=words,
        thresholds=thresholds,
        pooled=pooled,
        own=own,
        precision=tuple(_complement(value.false_positives) for value in reached),
        recall=tuple(_complement(value.false_negatives) for value in reached),
    )


def _costs(
    criterion: str, tau: float, miss: float, false_alarm: float
) -> tuple[Callable[[Sweep], np.ndarray], str]:
    """The cost (L,) to make small, and its name in words."""
    if criterion == "lrp":
        return lambda sums: lrp.errors(sums, tau), f"optimal LRP at IoU {tau:g}"
    if criterion == "f1":
        return lambda sums: -f1(sums), f"greatest F1 at IoU {tau:g}"
    return (
        lambda sums: miss * sums.missed + false_alarm * sums.wrong,
        f"least cost at IoU {tau:g}: {miss:g} a miss, {false_alarm:g} a false alarm",
    )


def _within(false_alarms: float) -> Callable[[Sweep], np.ndarray]:
    """The cost (L,) of which the least is the most found with so many false alarms at most."""
    return lambda sums: np.where(sums.wrong <= false_alarms, -sums.right, np.inf)


def f1(sums: Sweep) -> np.ndarray:
    """(L,) 2 right / (2 right + wrong + missed), 0 where there is nothing at all."""
    everything = 2 * sums.right + sums.wrong + sums.missed
    return np.divide(
        2 * sums.right, everything, out=np.zeros_like(everything), where=everything > 0
    )


def _finite(threshold: float) -> float | None:
    return float(threshold) if np.isfinite(threshold) else None


def _complement(value: float | None) -> float | None:
    return None if value is None else 1 - value
