"""Averaged weights."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from detector.config import EMAConfig

M = TypeVar("M", bound=nn.Module)


class EMA(Generic[M]):
    """An exponential moving average of a model's weights; its buffers are copied.

    The decay rises as (1 + t) / (10 + t) to its value, so that a short run is not an average with
    its random start (TensorFlow's `ExponentialMovingAverage`).
    """

    def __init__(self, model: M, config: EMAConfig) -> None:
        self._limit = config.decay
        self._decay = 0.0
        self._averaged = AveragedModel(model, multi_avg_fn=self._average)
        self._averaged.requires_grad_(False)

    @property
    def model(self) -> M:
        """The model with averaged weights."""
        return self._averaged.module  # type: ignore[return-value]

    def update(self, model: nn.Module, step: int) -> None:
        """Takes in the weights after optimizer step `step` (0, 1, ...)."""
        self._decay = min(self._limit, (1 + step) / (10 + step))
        self._averaged.update_parameters(model)

    def state_dict(self) -> dict[str, Tensor]:
        return self._averaged.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._averaged.load_state_dict(state)

    def _average(self, averaged: Any, current: Any, count: Tensor | int) -> None:
        get_ema_multi_avg_fn(self._decay)(averaged, current, count)
