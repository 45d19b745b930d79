"""The focal paper's figure 4 as the report draws it, against sorting every sample."""

from __future__ import annotations

import math

import numpy as np
import pytest

from detector.laboratory.report.records import cumulative
from detector.training.probe import histograms
from tests.training.probe.test_histograms import logits_of_a_small_model


@pytest.mark.parametrize("gamma", histograms.GAMMAS)
def test_the_curve_of_two_seeds_is_that_of_all_their_losses_in_order(gamma: float) -> None:
    logits = logits_of_a_small_model().clip(-30, 30)
    at = histograms.edges()
    parts = [{"background": histograms.histogram(half, at)} for half in np.array_split(logits, 2)]
    found = cumulative(parts, "background")
    assert found is not None
    x, y = found[f"{gamma:g}"]
    losses = sorted(
        (1 / (1 + math.exp(u))) ** gamma * math.log1p(math.exp(-u)) for u in logits.tolist()
    )
    sums = np.cumsum([0.0, *losses])
    places = np.rint(x * len(losses)).astype(int)
    assert len(places) > 100
    # At the edges of bins; 1e-6: sums of some thousand float64 numbers differ by 1e-12.
    assert x == pytest.approx(places / len(losses), abs=1e-6)
    assert y == pytest.approx(sums[places] / sums[-1], abs=1e-6)
