"""Calibrators: from the score a detection has to the one it should have had.

Fitted after NMS on images that neither trained the detector nor measure it. One map per class, and
one for all classes together that stands in where a class has too few detections. What they learn is
held in lists and floats, so that a checkpoint can carry it.

Temperature: Guo et al. 2017, arXiv 1706.04599. Platt 1999, "Probabilistic outputs for support
vector machines". Isotonic: Zadrozny and Elkan 2002. All four as used on detections by Kuzucu et al.
2024, arXiv 2405.20459.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import isotonic_regression, minimize
from scipy.special import expit

from detector.analysis.matching import Outcomes
from detector.errors import ConfigError, DataError

MIN_DETECTIONS = 50
"""Classes with fewer get the map of all classes; our choice."""

SLOPES = (1e-2, 1e2)
"""Of log-odds. Never 0: a flat map would throw the order away. The upper end stops a fit to
detections that one threshold separates, whose best slope is infinite."""

INTERCEPTS = (-50.0, 50.0)

EPSILON = 1e-12
"""Scores are kept this far from 0 and 1 while a line is fitted."""

KINDS = ("link_inverse", "temperature", "platt", "isotonic")
TARGETS = ("hit", "iou")

Link = Callable[[np.ndarray], np.ndarray]


def log_odds(scores: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)) in double precision, -inf at 0 and inf at 1."""
    with np.errstate(divide="ignore"):
        return np.log(scores) - np.log1p(-scores)


@dataclass(frozen=True)
class Line:
    """sigmoid(slope x log-odds + intercept); rises strictly as far as a double can tell."""

    slope: float
    intercept: float

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        return expit(self.slope * log_odds(scores) + self.intercept)


@dataclass(frozen=True)
class Steps:
    """Straight lines between points, flat outside: (P,) rising scores, (P,) values that never fall.

    Flat where isotonic regression pooled detections: they get one score, and since equal scores are
    ranked by image, AP may change a little.
    """

    scores: tuple[float, ...]
    values: tuple[float, ...]

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        return np.interp(scores, self.scores, self.values)


Map = Line | Steps


def fit_line(scores: np.ndarray, targets: np.ndarray, *, with_intercept: bool) -> Line:
    """Least cross entropy of targets (S,) in [0, 1] given scores (S,): Platt, or a temperature.

    The problem is convex, so where it starts does not matter. Temperature T is 1 / slope.
    """
    x = log_odds(np.clip(scores, EPSILON, 1 - EPSILON))

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        slope, intercept = parameters
        z = slope * x + intercept
        error = expit(z) - targets
        value = np.mean(np.logaddexp(0, z) - targets * z)
        return float(value), np.array([np.mean(error * x), np.mean(error)])

    bounds = [SLOPES, INTERCEPTS if with_intercept else (0.0, 0.0)]
    # The defaults stop at a relative gain of 2e-9, some 1e-4 away in the slope.
    options = {"ftol": 1e-15, "gtol": 1e-9, "maxiter": 500}
    found = minimize(
        loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=bounds, options=options
    )
    return Line(float(found.x[0]), float(found.x[1]))


def fit_steps(scores: np.ndarray, targets: np.ndarray) -> Steps:
    """Isotonic regression (pool adjacent violators) of targets (S,) in [0, 1] on scores (S,)."""
    points, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    means = np.bincount(place, weights=targets) / counts
    fitted = isotonic_regression(means, weights=counts.astype(np.float64))
    # Two points a block are enough: within it the line between them is flat.
    ends = np.union1d(fitted.blocks[:-1], fitted.blocks[1:] - 1)
    values = np.clip(fitted.x[ends], 0.0, 1.0)
    return Steps(tuple(points[ends].tolist()), tuple(values.tolist()))


@dataclass(frozen=True)
class Calibrator:
    """Maps scores (S,) in [0, 1] with labels (S,) in [0, K) to calibrated scores (S,).

    maps: one per class; None where `pooled` stands in. For kind "link_inverse" there are none,
    and `link` maps all scores. target: what was fitted, whether a detection is a true positive at
    `threshold` ("hit") or its IoU ("iou"); counts (K,) detections of each class that it was
    fitted on.
    """

    kind: str
    target: str | None = None
    threshold: float | None = None
    maps: tuple[Map | None, ...] = ()
    pooled: Map | None = None
    counts: tuple[int, ...] = ()
    link: Link | None = None

    def __call__(self, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        scores = np.asarray(scores, dtype=np.float64)
        if self.link is not None:
            return np.clip(np.asarray(self.link(scores), dtype=np.float64), 0.0, 1.0)
        assert self.pooled is not None
        result = self.pooled(scores)
        for k, own in enumerate(self.maps):
            if own is not None:
                mine = labels == k
                result[mine] = own(scores[mine])
        return result

    @property
    def fallbacks(self) -> tuple[int, ...]:
        """The classes for which the map of all classes stands in."""
        return tuple(k for k, own in enumerate(self.maps) if own is None)

    def to_dict(self) -> dict[str, Any]:
        """Strings, numbers, lists and dicts; a link is a function and has to be given again."""
        return {
            "kind": self.kind,
            "target": self.target,
            "threshold": self.threshold,
            "maps": [_map_to_dict(own) for own in self.maps],
            "pooled": _map_to_dict(self.pooled),
            "counts": list(self.counts),
        }

    @staticmethod
    def from_dict(state: Mapping[str, Any], *, link: Link | None = None) -> Calibrator:
        """What `to_dict` gave. Raises ConfigError for another kind or without its link."""
        if state["kind"] == "link_inverse":
            return link_inverse(link)
        _require_known(state["kind"], KINDS, "kind")
        return Calibrator(
            kind=state["kind"],
            target=state["target"],
            threshold=state["threshold"],
            maps=tuple(_map_from_dict(own) for own in state["maps"]),
            pooled=_map_from_dict(state["pooled"]),
            counts=tuple(state["counts"]),
        )


def link_inverse(link: Link | None) -> Calibrator:
    """The calibrator that needs no data: the inverse of what the loss does to a probability.

    link: scores (S,) to posteriors (S,), such as a loss's `link_inverse` on arrays. Raises
    ConfigError where the loss has none.
    """
    if link is None:
        raise ConfigError(
            f"calibrator: link_inverse is not known for this loss; allowed: {', '.join(KINDS[1:])}"
        )
    return Calibrator(kind="link_inverse", link=link)


def fit(
    kind: str, found: Outcomes, *, target: str = "hit", min_detections: int = MIN_DETECTIONS
) -> Calibrator:
    """A calibrator of `kind` temperature, platt or isotonic, fitted on held-out detections.

    found: for target "hit" at the IoU at which a detection shall count (D-ECE: 0.5), for "iou" at
    0 (LaECE_0). A class with fewer than `min_detections`, or whose targets are all equal, takes
    the map of all. Raises DataError where all together do not suffice either.
    """
    _require_known(kind, KINDS[1:], "kind")
    _require_known(target, TARGETS, "target")
    targets = found.hits.astype(np.float64) if target == "hit" else found.ious
    if not len(found) or np.ptp(targets) == 0:
        raise DataError(
            f"calibrator: {len(found)} detections, {int(found.hits.sum())} of them true positives; "
            "right and wrong ones are needed to fit"
        )
    counts = np.bincount(found.labels, minlength=len(found.classes))
    maps: list[Map | None] = []
    for k, count in enumerate(counts):
        mine = found.labels == k
        enough = count >= max(min_detections, 2) and np.ptp(targets[mine]) > 0
        maps.append(_fit_map(kind, found.scores[mine], targets[mine]) if enough else None)
    return Calibrator(
        kind=kind,
        target=target,
        threshold=found.threshold,
        maps=tuple(maps),
        pooled=_fit_map(kind, found.scores, targets),
        counts=tuple(counts.tolist()),
    )


def apply(found: Outcomes, calibrator: Calibrator) -> Outcomes:
    """The same detections with calibrated scores.

    Matches stay, since no map turns the order of two detections of a class around.
    """
    return replace(found, scores=calibrator(found.scores, found.labels))


def _fit_map(kind: str, scores: np.ndarray, targets: np.ndarray) -> Map:
    if kind == "isotonic":
        return fit_steps(scores, targets)
    return fit_line(scores, targets, with_intercept=kind == "platt")


def _require_known(name: str, allowed: Sequence[str], what: str) -> None:
    if name not in allowed:
        raise ConfigError(f"calibrator.{what}: {name!r} is not one of {', '.join(allowed)}")


def _map_to_dict(own: Map | None) -> dict[str, Any] | None:
    if own is None:
        return None
    if isinstance(own, Line):
        return {"slope": own.slope, "intercept": own.intercept}
    return {"scores": list(own.scores), "values": list(own.values)}


def _map_from_dict(state: Mapping[str, Any] | None) -> Map | None:
    if state is None:
        return None
    if "slope" in state:
        return Line(float(state["slope"]), float(state["intercept"]))
    return Steps(tuple(state["scores"]), tuple(state["values"]))
