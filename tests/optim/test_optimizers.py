"""Which parameters decay, and which values are allowed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from detector.errors import ConfigError
from detector.optim.groups import parameter_groups
from detector.optim.optimizers import SGD, AdamW


def test_weights_decay_and_biases_norms_and_frozen_parameters_do_not() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Conv2d(4, 4, 1))
    model[2].requires_grad_(False)
    decaying, plain = parameter_groups(model, 0.1)
    assert [p.shape for p in decaying["params"]] == [model[0].weight.shape]
    assert len(plain["params"]) == 3
    assert (decaying["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)


def test_sgd_makes_the_step_of_the_formula() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 2.0)
    optimizer = SGD(lr=0.1, momentum=0.9, weight_decay=0.5).build(model)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.ones(1, 1)).sum().backward()
        optimizer.step()
    # v1 = 1 + 0.5 * 2 = 2, w = 1.8; v2 = 0.9 * 2 + 1 + 0.5 * 1.8 = 3.7, w = 1.43
    assert model.weight.item() == pytest.approx(1.43, rel=1e-6)


@pytest.mark.parametrize(
    "options", [{"lr": 0.0}, {"weight_decay": -1.0}, {"betas": (0.9, 1.0)}, {"lr": -1.0}]
)
def test_adamw_refuses_values_out_of_range(options: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        AdamW(**options)


def test_nesterov_needs_momentum() -> None:
    with pytest.raises(ConfigError, match="nesterov"):
        SGD(momentum=0.0, nesterov=True)
