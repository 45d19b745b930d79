"""The losses outside detection: plain tensors of any shape, nothing reduced."""

from __future__ import annotations

import doctest
import inspect
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from detector.losses import functional
from tests.by_hand import gradient, random_logits

GAMMAS = [0.0, 0.25, 0.5, 1.0, 2.0, 5.0]
Loss = Callable[[Tensor, Tensor], Tensor]


def yes_or_no(gamma: float) -> dict[str, Loss]:
    """Losses of logits and boolean targets."""
    f = functional
    return {
        "sigmoid_cross_entropy": f.sigmoid_cross_entropy,
        "sigmoid_focal": lambda x, y: f.sigmoid_focal(x, y, alpha=0.25, gamma=gamma),
        "asymmetric": lambda x, y: f.sigmoid_focal(
            x, y, alpha=None, gamma=gamma, gamma_negative=4.0, clip=0.05, poly_epsilon=1.0
        ),
        "sigmoid_focal_star": lambda x, y: f.sigmoid_focal_star(
            x, y, alpha=0.25, gamma=max(gamma, 0.25), beta=1.0
        ),
        "sample_dependent_gamma": lambda x, y: f.sigmoid_focal(
            x,
            y,
            alpha=None,
            gamma=f.sample_dependent_gamma(x, y, gamma_hard=5.0, gamma_easy=gamma, threshold=0.2),
        ),
        "sigmoid_equalized_focal": lambda x, y: f.sigmoid_equalized_focal(
            x, y, torch.full_like(x, 4.0), alpha=0.25, gamma=max(gamma, 0.25)
        ),
        "alpha_balanced": lambda x, y: f.alpha_balanced(f.sigmoid_cross_entropy(x, y), y, 0.75),
        "soft_cross_entropy": lambda x, y: f.soft_cross_entropy(x, y.to(x.dtype)),
        "sigmoid_mal": lambda x, y: f.sigmoid_mal(x, y.to(x.dtype), y == 1, gamma=gamma),
        "sigmoid_quality_focal": lambda x, y: f.sigmoid_quality_focal(x, y.to(x.dtype), beta=gamma),
        "sigmoid_varifocal": lambda x, y: f.sigmoid_varifocal(
            x, y.to(x.dtype), alpha=0.75, gamma=gamma
        ),
    }


def one_of_many(gamma: float) -> dict[str, Loss]:
    """Losses of logits (..., C) and labels (...)."""
    return {
        "softmax_cross_entropy": functional.softmax_cross_entropy,
        "softmax_focal": lambda x, y: functional.softmax_focal(x, y, alpha=0.25, gamma=gamma),
    }


def numbers(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """float64 normal numbers, also for the shape ()."""
    return random_logits(math.prod(shape), seed=seed).reshape(shape)


def test_the_worked_example_is_right() -> None:
    result = doctest.testmod(functional)
    assert result.failed == 0
    assert result.attempted > 10


def test_every_function_is_named_in_the_text_and_in_the_cases_here() -> None:
    cases = {*yes_or_no(2.0), *one_of_many(2.0)}
    for name in functional.__all__:
        assert f" {name}" in (functional.__doc__ or ""), name
        assert name in cases
    public = {name for name, value in vars(functional).items() if inspect.isfunction(value)}
    assert public == set(functional.__all__)


@pytest.mark.parametrize("shape", [(), (7,), (2, 3, 4), (2, 1, 5, 5), (0, 3)])
@pytest.mark.parametrize("name", yes_or_no(2.0))
def test_every_element_has_a_loss_of_its_own(name: str, shape: tuple[int, ...]) -> None:
    loss = yes_or_no(2.0)[name]
    logits, truth = numbers(shape), numbers(shape, seed=1) > 0
    whole = loss(logits, truth)
    assert whole.shape == logits.shape
    assert whole.dtype == torch.float64
    pairs = zip(logits.flatten(), truth.flatten(), strict=True)
    alone = [loss(x[None], y[None]).item() for x, y in pairs]
    # Vectorised and single elements may round apart.
    assert whole.flatten().tolist() == pytest.approx(alone, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("shape", [(), (7,), (2, 4, 5), (0, 3)])
@pytest.mark.parametrize("name", one_of_many(2.0))
def test_every_choice_has_a_loss_of_its_own(name: str, shape: tuple[int, ...]) -> None:
    loss = one_of_many(2.0)[name]
    logits = numbers((*shape, 4))
    labels = numbers(shape, seed=1).abs().long().clamp(max=3)
    whole = loss(logits, labels)
    assert whole.shape == shape
    rows = zip(logits.reshape(-1, 4), labels.flatten(), strict=True)
    alone = [loss(x, y).item() for x, y in rows]
    assert whole.flatten().tolist() == pytest.approx(alone, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("name", [*yes_or_no(2.0), *one_of_many(2.0)])
def test_any_precision_stays_itself_and_finite_at_the_extremes(
    name: str, gamma: float, dtype: torch.dtype
) -> None:
    values = [200.0, -200.0, 40.0, -40.0, 0.0]
    if name in yes_or_no(gamma):
        loss = yes_or_no(gamma)[name]
        logits = torch.tensor([values, values], dtype=dtype, requires_grad=True)
        truth = torch.tensor([[True], [False]]).expand(2, 5)
    else:
        loss = one_of_many(gamma)[name]
        logits = torch.tensor([values] * 5, dtype=dtype, requires_grad=True)
        truth = torch.arange(5)
    result = loss(logits, truth)
    assert result.dtype == dtype
    assert torch.isfinite(result).all()
    assert (result >= 0).all()
    assert torch.isfinite(gradient(result.float().sum(), logits)).all()
