"""Curves of histograms against sorting every sample."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from detector.training.probe import histograms


def logits_of_a_small_model() -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3)).double()
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    images = torch.randn(2, 3, 24, 24, generator=generator, dtype=torch.float64)
    return model(images).detach().flatten().numpy()


@pytest.mark.parametrize("gamma", histograms.GAMMAS)
def test_the_curve_at_the_edges_is_that_of_the_sorted_losses(gamma: float):
    logits = logits_of_a_small_model().clip(-30, 30)
    at = histograms.edges(400)
    x, y = histograms.curve(histograms.histogram(logits, at), f"{gamma:g}")
    losses = []
    for u in logits.tolist():
        rest = 1 / (1 + math.exp(u))
        losses.append(rest**gamma * math.log1p(math.exp(-u)))
    ordered = np.cumsum([0.0, *sorted(losses)])
    for i, edge in enumerate(at[::-1]):
        above = int((logits >= edge).sum()) if i < len(at) - 1 else len(logits)
        # 1e-6: sums of some thousand float64 numbers in another order differ by 1e-12.
        assert x[i] == pytest.approx(above / len(logits), abs=1e-6)
        assert y[i] == pytest.approx(ordered[above] / ordered[-1], abs=1e-6)


def test_histograms_of_parts_add_up_to_that_of_the_whole():
    logits, at = logits_of_a_small_model(), histograms.edges(100)
    whole = histograms.histogram(logits, at)
    parts = [histograms.histogram(part, at) for part in np.array_split(logits, 3)]
    assert np.sum([p["counts"] for p in parts], axis=0).tolist() == whole["counts"]
    for gamma, losses in whole["losses"].items():
        # Sums in another order: float64 rounding alone.
        assert np.sum([p["losses"][gamma] for p in parts], axis=0) == pytest.approx(losses)


def test_logits_far_out_are_counted_and_finite():
    part = histograms.histogram(np.array([-1000.0, 1000.0]), histograms.edges(4))
    assert part["counts"] == [1, 0, 0, 1]
    assert part["losses"]["0"] == [1000.0, 0, 0, 0]


def test_nothing_counted_has_no_share():
    x, y = histograms.curve(histograms.histogram(np.array([]), histograms.edges(4)), "2")
    assert x.tolist() == y.tolist() == [0.0] * 5
