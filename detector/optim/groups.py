"""Which parameters share a rate and a weight decay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from detector.config.schema import require

BACKBONE = "backbone."
"""What the names of a backbone's parameters begin with in a model."""


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    *,
    backbone_factor: float = 1.0,
    layer_decay: float = 1.0,
) -> list[dict[str, Any]]:
    """Groups for an optimizer: weights of two or more dimensions decay; biases and norms do not.

    Two groups where both factors are 1, in the order in which checkpoints hold their state. Else a
    pair for each factor on the rate, which a group has as `factor`, rates that differ most from the
    head's first. Stage i of the n of a backbone, counted from the image, has the factor

        backbone_factor * layer_decay^(n - i)

    (Bao et al. 2021, BEiT, arXiv 2106.08254, with stages in place of layers); all else has 1.
    Raises ConfigError where `layer_decay` is given and the backbone tells no stages.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if backbone_factor == layer_decay == 1.0:
        return _pair([p for _, p in named], weight_decay)
    factor = _factors(model, backbone_factor, layer_decay)
    groups = []
    for value in sorted({factor(name) for name, _ in named}):
        pair = _pair([p for name, p in named if factor(name) == value], weight_decay)
        groups += [{**group, "factor": value} for group in pair if group["params"]]
    return groups


def _pair(parameters: list[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """A group that decays and one that does not."""
    return [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]


def _factors(
    model: nn.Module, backbone_factor: float, layer_decay: float
) -> Callable[[str], float]:
    """What gives the factor of a parameter by its name in the model."""
    stages: dict[str, int] = model.backbone.stage_of()  # type: ignore[union-attr, operator]
    require(
        bool(stages) or layer_decay == 1.0,
        f"optim.layer_decay: {layer_decay} given, but this backbone tells no stages; take 1.0, or "
        "optim.backbone_factor, which needs none",
    )
    count = max(stages.values(), default=-1) + 1

    def factor(name: str) -> float:
        if not name.startswith(BACKBONE):
            return 1.0
        stage = stages.get(name.removeprefix(BACKBONE), 0)
        return backbone_factor * layer_decay ** (count - stage)

    return factor
