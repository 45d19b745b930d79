"""Optimizers by name. Rates are set each step by the schedule, which is a function of the step."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn

from detector.config.registry import OPTIMIZERS
from detector.config.schema import require
from detector.optim.groups import parameter_groups, require_factors


class OptimizerFactory(ABC):
    """lr: the rate that the schedule's factor multiplies.

    Options that all have: backbone_factor, layer_decay, as in `parameter_groups`.
    """

    lr: float

    @abstractmethod
    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """An optimizer of the parameters that want a gradient."""


@OPTIMIZERS.register("adamw")
class AdamW(OptimizerFactory):
    """Loshchilov and Hutter 2019, arXiv 1711.05101."""

    def __init__(
        self,
        *,
        lr: float = 2e-3,
        weight_decay: float = 0.05,
        betas: tuple[float, float] = (0.9, 0.999),
        backbone_factor: float = 1.0,
        layer_decay: float = 1.0,
    ) -> None:
        require(lr > 0, f"lr: {lr} given, above 0 is needed")
        require(weight_decay >= 0, f"weight_decay: {weight_decay} given, at least 0 is needed")
        require(all(0 <= b < 1 for b in betas), f"betas: {betas} given, 0 to below 1 is allowed")
        require_factors(backbone_factor, layer_decay)
        self.lr = lr
        self.backbone_factor, self.layer_decay = backbone_factor, layer_decay
        self.weight_decay = weight_decay
        self.betas = betas

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        groups = parameter_groups(
            model,
            self.weight_decay,
            backbone_factor=self.backbone_factor,
            layer_decay=self.layer_decay,
        )
        return torch.optim.AdamW(groups, lr=self.lr, betas=self.betas, fused=True)


@OPTIMIZERS.register("sgd")
class SGD(OptimizerFactory):
    """Gradient descent with momentum; the defaults are RetinaNet's for 16 images (section 4.1)."""

    def __init__(
        self,
        *,
        lr: float = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        nesterov: bool = False,
        backbone_factor: float = 1.0,
        layer_decay: float = 1.0,
    ) -> None:
        require(lr > 0, f"lr: {lr} given, above 0 is needed")
        require(0 <= momentum < 1, f"momentum: {momentum} given, 0 to below 1 is allowed")
        require(weight_decay >= 0, f"weight_decay: {weight_decay} given, at least 0 is needed")
        require(momentum > 0 or not nesterov, "nesterov: true given, momentum above 0 is needed")
        require_factors(backbone_factor, layer_decay)
        self.lr = lr
        self.backbone_factor, self.layer_decay = backbone_factor, layer_decay
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.nesterov = nesterov

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        groups = parameter_groups(
            model,
            self.weight_decay,
            backbone_factor=self.backbone_factor,
            layer_decay=self.layer_decay,
        )
        return torch.optim.SGD(
            groups, lr=self.lr, momentum=self.momentum, nesterov=self.nesterov, fused=True
        )
