"""The head: what each anchor says of its class and of its box.

Lin et al. 2017, arXiv 1708.02002, section 4: two towers of convolutions, shared over levels but not
with one another.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detector.config.model import HeadConfig
from detector.config.schema import require
from detector.models.norm import group_norm


class Head(nn.Module):
    """Class outputs and box deltas of every anchor of every level.

    num_levels: of the pyramid, for norms of their own. num_anchors: of one cell. num_outputs: D, by
    the layout. bias: (D,), with which an anchor's class outputs begin. box_bias: (B,) the same of
    its box outputs, None for four zeros; the other biases begin at 0, weights with a deviation of
    0.01.
    """

    def __init__(
        self,
        in_channels: int,
        num_anchors: int,
        num_outputs: int,
        bias: Tensor,
        config: HeadConfig,
        num_levels: int = 5,
        *,
        box_bias: Tensor | None = None,
    ) -> None:
        super().__init__()
        require(config.channels > 0, f"model.head.channels: {config.channels} given, 1 is least")
        require(
            config.num_convs >= 0, f"model.head.num_convs: {config.num_convs} given, 0 is least"
        )
        self.num_outputs = num_outputs
        box_bias = torch.zeros(4) if box_bias is None else box_bias
        self.num_box_outputs = len(box_bias)
        self.class_tower = make_tower(in_channels, config, num_levels)
        self.box_tower = make_tower(in_channels, config, num_levels)
        width = config.channels if config.num_convs > 0 else in_channels
        self.class_outputs = nn.Conv2d(width, num_anchors * num_outputs, 3, padding=1)
        self.box_outputs = nn.Conv2d(width, num_anchors * len(box_bias), 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        with torch.no_grad():
            self.class_outputs.bias.copy_(bias.repeat(num_anchors))  # type: ignore[union-attr]
            self.box_outputs.bias.copy_(box_bias.repeat(num_anchors))  # type: ignore[union-attr]

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits (N, A, D) and deltas (N, A, B) of maps (N, C, H_l, W_l), finest first.

        The order of A is that of `AnchorGenerator`: level, row, column, anchor of the cell.
        """
        parts = [self.of_level(x, level) for level, x in enumerate(features)]
        logits, deltas = ([part[i] for part in parts] for i in (0, 1))
        return flatten_levels(logits, self.num_outputs), flatten_levels(
            deltas, self.num_box_outputs
        )

    def of_level(self, x: Tensor, level: int) -> tuple[Tensor, Tensor]:
        """Class and box outputs as maps, of the map of one level, 0 the finest."""
        return (
            self.class_outputs(self.class_tower(x, level)),
            self.box_outputs(self.box_tower(x, level)),
        )


class Tower(nn.Sequential):
    """Modules one after another, for the map of one level."""

    def forward(self, x: Tensor, level: int) -> Tensor:  # type: ignore[override]
        """(N, C, H, W) -> (N, channels, H, W). level: which of the levels, 0 the finest."""
        for module in self:
            x = module[level](x) if isinstance(module, LevelNorms) else module(x)
        return x


class LevelNorms(nn.ModuleList):
    """A batch norm for each level."""

    def __init__(self, channels: int, num_levels: int) -> None:
        super().__init__(nn.BatchNorm2d(channels) for _ in range(num_levels))


def make_tower(in_channels: int, config: HeadConfig, num_levels: int) -> Tower:
    """`num_convs` times: 3 x 3 convolution, norm where configured, ReLU."""
    layers: list[nn.Module] = []
    for i in range(config.num_convs):
        channels = in_channels if i == 0 else config.channels
        has_norm = config.norm != "none"
        layers.append(nn.Conv2d(channels, config.channels, 3, padding=1, bias=not has_norm))
        if config.norm == "group":
            layers.append(group_norm(config.channels))
        elif config.norm == "batch":
            layers.append(LevelNorms(config.channels, num_levels))
        layers.append(nn.ReLU(inplace=True))
    return Tower(*layers)


def flatten_levels(maps: Sequence[Tensor], width: int) -> Tensor:
    """(N, A, width) from maps (N, anchors * width, H_l, W_l).

    For maps in channels-last memory the reordering is a view; only the concatenation copies.
    """
    rows = [x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, width) for x in maps]
    return torch.cat(rows, 1)
