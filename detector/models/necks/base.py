"""What a neck is, and what necks share: convolutions with their norm, and levels beyond C5."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detector.config.model import FPNConfig
from detector.config.schema import require
from detector.models.norm import group_norm

Norm = Literal["none", "group", "batch"]
Extra = Literal["convolution", "pooling"]

LAST_OF_BACKBONE = 5
"""Level of the coarsest map of a backbone, C5."""


class Neck(nn.Module, ABC):
    """Makes the levels of a pyramid, all of `config.channels` channels, from maps of a backbone.

    in_channels: of the maps from the first level to C5, finest first. config: what all necks have.
    levels: the first and the last one, 3 and 7 for P3 to P7.

    To add one: a file in this folder with a subclass under `@NECKS.register("name")`, whose options
    are the keyword-only arguments of its constructor, and a yaml in `configs/neck`.
    """

    def __init__(
        self, in_channels: Sequence[int], config: FPNConfig, levels: tuple[int, int] = (3, 7)
    ) -> None:
        super().__init__()
        width = config.channels
        require(width > 0, f"model.fpn.channels: {width} given, at least 1 is needed")
        first, last = levels
        assert len(in_channels) == LAST_OF_BACKBONE + 1 - first, (in_channels, levels)
        self.width = width
        self.num_extra = last - LAST_OF_BACKBONE

    @abstractmethod
    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """The levels, finest first, each (N, channels, H_l, W_l) with H_l half of the one before.

        features: the backbone's maps from the first level to C5, finest first.
        """

    def add_coarser(self, c5_channels: int, config: FPNConfig, extra: Extra) -> None:
        """Makes what `coarser` needs: `p6` and `p7`, or nothing for pooling."""
        self.is_pooled = extra == "pooling"
        self.p6_from_c5, self.p7_relu = config.p6_source == "c5", config.p7_relu
        if extra == "convolution" and self.num_extra > 0:
            self.p6 = HalvingConv(c5_channels if self.p6_from_c5 else self.width, self.width)
        if extra == "convolution" and self.num_extra > 1:
            self.p7 = HalvingConv(self.width, self.width)

    def coarser(self, c5: Tensor, p5: Tensor) -> list[Tensor]:
        """The levels after P5, as many as there are.

        By convolution as in Lin et al. 2017, arXiv 1708.02002, section 4: P6 of C5 or P5, P7 of
        relu(P6) or P6. By pooling every second cell of the level before, as P6 is made in Lin et
        al. 2017, arXiv 1612.03144, section 4.1.
        """
        made: list[Tensor] = []
        for i in range(self.num_extra):
            if self.is_pooled:
                made.append(F.max_pool2d(made[-1] if made else p5, 1, stride=2))
            elif i == 0:
                made.append(self.p6(c5 if self.p6_from_c5 else p5))
            else:
                made.append(self.p7(F.relu(made[0]) if self.p7_relu else made[0]))
        return made

    def initialize(self, config: FPNConfig) -> None:
        """Draws the weights of all convolutions anew, by `config.init`; biases are 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                if config.init == "xavier_uniform":
                    nn.init.xavier_uniform_(module.weight)
                else:
                    nn.init.kaiming_uniform_(module.weight, a=1)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


class HalvingConv(nn.Conv2d):
    """A 3 x 3 convolution with stride 2, in float32 for maps of one column on a CPU.

    There oneDNN's gradient of the weight of such a convolution in bfloat16 is NaN or any number,
    and another one at each call (seen in torch 2.15; maps of two columns and more are right). P6
    has one column where images are at most 64 px wide.
    """

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 3, stride=2, padding=1, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H / 2, W / 2), rounded up."""
        if input.shape[-1] > 1 or input.device.type != "cpu":
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.to(self.weight.dtype))


def with_norm(conv: nn.Conv2d, norm: Norm) -> nn.Module:
    """A convolution, followed by its norm where there is one; it has then no bias of its own."""
    if norm == "none":
        return conv
    conv.bias = None
    channels = conv.out_channels
    return nn.Sequential(
        conv, group_norm(channels) if norm == "group" else nn.BatchNorm2d(channels)
    )


def enlarged(coarse: Tensor, fine: Tensor) -> Tensor:
    """A map at the size of the finer one, each cell the nearest one of the coarser."""
    return F.interpolate(coarse, size=fine.shape[-2:])
