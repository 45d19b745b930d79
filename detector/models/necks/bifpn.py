"""Pyramid with paths in both directions and weighted sums. Tan et al. 2020, arXiv 1911.09070."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detector.config.model import FPNConfig
from detector.config.ranges import Above
from detector.config.registry import NECKS
from detector.config.schema import require
from detector.models.necks.base import Extra, HalvingConv, Neck, Norm, enlarged, with_norm


@NECKS.register("bifpn")
class BiFPN(Neck):
    """`num_layers` times from the coarsest level to the finest and back, with learned weights.

    norm: after each convolution; batch in the paper, group here, so that a gradient does not depend
    on how a batch is split. extra: P6 from C5 by a 1 x 1 convolution and the maximum of 3 x 3 cells
    at stride 2, and P7 from P6 by that maximum, as in the paper's code (pooling), or both by 3 x 3
    convolutions of stride 2. num_layers: 3 as in EfficientDet-D0 (table 1). `p6_source` and
    `p7_relu` of `model.fpn` mean nothing here.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        config: FPNConfig,
        levels: tuple[int, int] = (3, 7),
        *,
        norm: Norm = "group",
        extra: Extra = "pooling",
        num_layers: Annotated[int, Above(0)] = 3,
    ) -> None:
        super().__init__(in_channels, config, levels)
        count = len(in_channels) + self.num_extra
        require(count > 1, f"model.anchors.levels: {list(levels)} given, bifpn needs two or more")
        width = config.channels
        self.lateral = nn.ModuleList(with_norm(nn.Conv2d(c, width, 1), norm) for c in in_channels)
        self.extra = nn.ModuleList()
        for i in range(self.num_extra):
            channels = in_channels[-1] if i == 0 else width
            if extra == "convolution":
                self.extra.append(with_norm(HalvingConv(channels, width), norm))
            elif i == 0:
                self.extra.append(
                    nn.Sequential(with_norm(nn.Conv2d(channels, width, 1), norm), Halving())
                )
            else:
                self.extra.append(Halving())
        self.layers = nn.ModuleList(BiFPNLayer(width, count, norm) for _ in range(num_layers))
        self.initialize(config)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """[P3, P4, P5, P6, P7] of (C3, C4, C5), or the levels there are."""
        pyramid = [lateral(c) for lateral, c in zip(self.lateral, features, strict=True)]
        coarse = features[-1]
        for extra in self.extra:
            coarse = extra(coarse)
            pyramid.append(coarse)
        for layer in self.layers:
            pyramid = layer(pyramid)
        return pyramid


class BiFPNLayer(nn.Module):
    """Equations of section 3.3: for each level between, with sums weighted as in `Fusion`,

        T_l = conv(fuse(P_l, up(T_l+1))),    O_l = conv(fuse(P_l, T_l, down(O_l-1)))

    the coarsest T is P itself, the finest O is T. up takes the nearest cell, down the maximum of
    3 x 3 cells at stride 2.
    """

    def __init__(self, width: int, num_levels: int, norm: Norm) -> None:
        super().__init__()
        self.up = nn.ModuleList(Fusion(width, 2, norm) for _ in range(num_levels - 1))
        self.down = nn.ModuleList(
            Fusion(width, 3 if i < num_levels - 1 else 2, norm) for i in range(1, num_levels)
        )
        self.halve = Halving()

    def forward(self, pyramid: Sequence[Tensor]) -> list[Tensor]:
        """Levels -> levels of the same shapes, finest first."""
        between = list(pyramid)
        for i in reversed(range(len(pyramid) - 1)):
            between[i] = self.up[i]([pyramid[i], enlarged(between[i + 1], pyramid[i])])
        outputs = [between[0]]
        for i, down in enumerate(self.down, start=1):
            finer = self.halve(outputs[-1])
            is_last = i == len(pyramid) - 1
            parts = [pyramid[i], finer] if is_last else [pyramid[i], between[i], finer]
            outputs.append(down(parts))
        return outputs


class Fusion(nn.Module):
    """Fast normalized fusion, sum of w_i x_i over (1e-4 + sum of w_i), w = relu of a parameter.

    Then swish, a depthwise 3 x 3 and a 1 x 1 convolution, and the norm. All w begin at 1.
    """

    def __init__(self, width: int, num_inputs: int, norm: Norm) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_inputs))
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.pointwise = with_norm(nn.Conv2d(width, width, 1), norm)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (N, C, H, W), as many as there are weights -> (N, C, H, W)."""
        weight = F.relu(self.weight)
        weight = weight / (weight.sum() + 1e-4)
        # In the type of the maps: float32 factors would turn bfloat16 maps into float32 ones.
        parts = [w.to(x.dtype) * x for w, x in zip(weight, maps, strict=True)]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return self.pointwise(self.depthwise(F.silu(total)))


class Halving(nn.Module):
    """The maximum of 3 x 3 cells around every second one."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H / 2, W / 2), rounded up."""
        return F.max_pool2d(x, 3, stride=2, padding=1)
