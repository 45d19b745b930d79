"""Detections whose posterior is known: what measures say of them, and which calibrator mends it.

Posteriors are uniform on [0, 1] and a detection scores f(posterior). Where f never crosses the
identity inside a bin, the error in the population is E|f(p) - p|, whatever the bins.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import expit, logit

from detector.analysis import calibration, calibrators
from detector.analysis.analysis import counted
from detector.analysis.calibrators import Calibrator
from detector.analysis.matching import Outcomes
from detector.analysis.packing import pack
from tests.analysis.made import drawn_set

SEEDS = range(20)
LEAST = 17
"""Of 20 intervals at 95 %: fewer cover the truth once in 60 sets of 20, and the seeds are fixed."""

Map = Callable[[np.ndarray], np.ndarray]


def same(p: np.ndarray) -> np.ndarray:
    return p


def shifted(p: np.ndarray) -> np.ndarray:
    """Log-odds plus 1: too sure everywhere."""
    return expit(logit(p) + 1)


def sharpened(p: np.ndarray) -> np.ndarray:
    """Log-odds times 2: too sure on either side of a half."""
    return expit(2 * logit(p))


def focal_posterior(s: np.ndarray) -> np.ndarray:
    """The posterior at which the focal loss (alpha 0.25, gamma 2) is least for the score s.

    The root of eta L'(1) + (1 - eta) L'(0) = 0 of the two branches of Lin et al., equation 5.
    """
    s = np.clip(s, 1e-9, 1 - 1e-9)
    right = (1 - s) ** 2 / s - 2 * (1 - s) * np.log(s)
    wrong = s**2 / (1 - s) - 2 * s * np.log1p(-s)
    return 0.75 * wrong / (0.75 * wrong + 0.25 * right)


def focal(p: np.ndarray) -> np.ndarray:
    grid = np.linspace(0, 1, 100001)
    return np.interp(p, focal_posterior(grid), grid)


def sets(distortion: Map, *, iou: float = 1.0) -> list[dict[float, Outcomes]]:
    return [counted(pack(*drawn_set(seed, distortion, iou=iou))) for seed in SEEDS]


def covered(name: str, truth: float, found: list[dict[float, Outcomes]]) -> int:
    """In how many of the sets the interval of a measure holds the truth; values must be near."""
    number = 0
    for seed, one in enumerate(found):
        measure = calibration.measure(one, draws=200, seed=seed)[name]
        assert measure.value is not None
        assert measure.low is not None
        assert measure.high is not None
        # 5,400 detections: a gap of 540 has a deviation of 0.02, their weighted sum of 0.007,
        # and absolute values add up to 0.02 where the truth is 0.
        assert measure.value == pytest.approx(truth, abs=0.035)
        number += measure.low <= truth <= measure.high
    return number


@pytest.mark.parametrize("name", ["D-ECE", "D-ECE equal mass", "LaECE", "LaECE_0"])
def test_calibrated_scores_measure_nothing_but_noise(name: str) -> None:
    """With IoU 1, the posterior of an object is the mean IoU too."""
    found = sets(same)
    assert covered(name, 0.0, found) >= LEAST
    floors = [calibration.measure(one, draws=200)[name].floor for one in found]
    assert all(floor is not None and 0.005 < floor < 0.06 for floor in floors)


def test_proper_scores_of_calibrated_scores_are_the_entropy() -> None:
    """E p(1 - p) = 1 / 6, and E of the binary entropy = 1 / 2 nat."""
    found = sets(same)
    assert covered("Brier", 1 / 6, found) >= LEAST
    assert covered("NLL", 1 / 2, found) >= LEAST


@pytest.mark.parametrize(
    ("distortion", "truth"),
    [
        # Integral of sqrt(p) - p.
        (np.sqrt, 1 / 6),
        # e p / (1 + (e - 1) p) integrates to e / (e - 1) (1 - 1 / (e - 1)).
        (shifted, np.e / (np.e - 1) * (1 - 1 / (np.e - 1)) - 1 / 2),
        # Twice the integral over [1/2, 1] of p^2 / (p^2 + (1 - p)^2) - p.
        (sharpened, (np.log(2) - 1 / 2) / 2),
    ],
    ids=["root", "shift", "sharp"],
)
def test_distorted_scores_measure_their_distortion(distortion: Map, truth: float) -> None:
    direct = quad(lambda p: abs(float(distortion(np.array(p))) - p), 0, 1, points=[0.5])[0]
    assert direct == pytest.approx(truth, abs=1e-7)
    found = sets(distortion)
    assert covered("D-ECE", truth, found) >= LEAST
    assert covered("LaECE_0", truth, found) >= LEAST


def test_loose_boxes_are_an_error_of_the_localisation_aware_measures_alone() -> None:
    """Scores are posteriors, IoUs 0.8: a score p promises p and 0.8 p is kept, E 0.2 p = 0.1."""
    found = sets(same, iou=0.8)
    assert covered("D-ECE", 0.0, found) >= LEAST
    for name in ("LaECE", "LaECE_0"):
        assert covered(name, 0.1, found) >= LEAST


def mended(kind: str, found: Outcomes) -> Calibrator:
    if kind == "link_inverse":
        return calibrators.link_inverse(focal_posterior)
    return calibrators.fit(kind, found)


@pytest.mark.parametrize(
    ("distortion", "kind"),
    [
        (sharpened, "temperature"),
        (shifted, "platt"),
        (sharpened, "platt"),
        (np.sqrt, "isotonic"),
        (shifted, "isotonic"),
        (focal, "link_inverse"),
        (focal, "isotonic"),
    ],
)
def test_the_right_calibrator_removes_the_distortion(distortion: Map, kind: str) -> None:
    """Fitted on one half of the images, measured on the other: nothing but noise is left."""
    number = 0
    for found in sets(distortion):
        half = found[0.5]
        first = np.arange(half.num_images) < 75
        fitted, rest = mended(kind, half.on_images(first)), half.on_images(~first)
        before, after = (
            calibration.measure(dict.fromkeys(calibration.TAUS, part), draws=200)["D-ECE"]
            for part in (rest, calibrators.apply(rest, fitted))
        )
        assert before.low is not None
        assert after.low is not None
        assert before.low > 0.04
        assert after.value is not None
        assert after.value < 0.05
        number += after.low == 0
    # Maps fitted on 2,700 detections add their own scatter to that of the measure.
    assert number >= LEAST - 3


def test_a_wrong_calibrator_does_not() -> None:
    """A temperature cannot take back a shift."""
    found = counted(pack(*drawn_set(0, shifted)))[0.5]
    first = np.arange(found.num_images) < 75
    fitted = calibrators.fit("temperature", found.on_images(first))
    rest = calibrators.apply(found.on_images(~first), fitted)
    left = calibration.measure(dict.fromkeys(calibration.TAUS, rest), draws=200)["D-ECE"]
    assert left.low is not None
    assert left.low > 0.03


def test_calibrating_to_overlap_removes_the_localisation_aware_error() -> None:
    found = counted(pack(*drawn_set(0, same, iou=0.8)))[0.0]
    first = np.arange(found.num_images) < 75
    fitted = calibrators.fit("isotonic", found.on_images(first), target="iou")
    rest = found.on_images(~first)
    before, after = (
        calibration.measure(dict.fromkeys(calibration.TAUS, part), draws=200)["LaECE_0"]
        for part in (rest, calibrators.apply(rest, fitted))
    )
    assert before.value == pytest.approx(0.1, abs=0.02)
    assert after.low == 0
