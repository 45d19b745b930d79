"""The average by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from detector.config import EMAConfig
from detector.optim.ema import EMA


def test_the_average_follows_the_formula_with_its_warm_up() -> None:
    model = nn.Linear(1, 1, bias=False)
    ema = EMA(model, EMAConfig(decay=0.25))
    values = [1.0, 2.0, 4.0, 8.0]
    for step, value in enumerate(values):
        nn.init.constant_(model.weight, value)
        ema.update(model, step)
    # The first update copies; then decay = min(0.25, (1 + t) / (10 + t)) at t = 1, 2, 3.
    expected = 1.0
    for t, value in [(1, 2.0), (2, 4.0), (3, 8.0)]:
        decay = min(0.25, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * value
    assert float(ema.model.weight) == pytest.approx(expected, rel=1e-6)


def test_its_state_comes_back_to_the_bit() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 3)
    ema, other = EMA(model, EMAConfig()), EMA(model, EMAConfig())
    for step in range(3):
        nn.init.normal_(model.weight)
        ema.update(model, step)
    other.load_state_dict(ema.state_dict())
    nn.init.normal_(model.weight)
    ema.update(model, 3)
    other.update(model, 3)
    assert torch.equal(ema.model.weight, other.model.weight)


def test_it_wants_no_gradient() -> None:
    ema = EMA(nn.Linear(2, 2), EMAConfig())
    assert not any(p.requires_grad for p in ema.model.parameters())
