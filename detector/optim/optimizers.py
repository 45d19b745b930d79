"""Optimizers by name. Rates are set each step by the schedule, which is a function of the step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated

import torch
from torch import nn

from detector.config.ranges import Above, AtLeast, Between
from detector.config.registry import OPTIMIZERS
from detector.config.schema import require
from detector.optim.groups import parameter_groups


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
        lr: Annotated[float, Above(0)] = 2e-3,
        weight_decay: Annotated[float, AtLeast(0)] = 0.05,
        betas: Annotated[tuple[float, float], Between(0, 1, is_below=True)] = (0.9, 0.999),
        backbone_factor: Annotated[float, Between(0, 1, is_above=True)] = 1.0,
        layer_decay: Annotated[float, Between(0, 1, is_above=True)] = 1.0,
    ) -> None:
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
        lr: Annotated[float, Above(0)] = 0.01,
        momentum: Annotated[float, Between(0, 1, is_below=True)] = 0.9,
        weight_decay: Annotated[float, AtLeast(0)] = 1e-4,
        nesterov: bool = False,
        backbone_factor: Annotated[float, Between(0, 1, is_above=True)] = 1.0,
        layer_decay: Annotated[float, Between(0, 1, is_above=True)] = 1.0,
    ) -> None:
        require(momentum > 0 or not nesterov, "nesterov: true given, momentum above 0 is needed")
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
