"""Feature pyramid P3 to P7.

Lin et al. 2017, arXiv 1612.03144; P6 and P7 as in Lin et al. 2017, arXiv 1708.02002, section 4.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detector.config.model import FPNConfig
from detector.config.schema import require


class FPN(nn.Module):
    """P3 to P7, all of `config.channels` channels, from C3, C4 and C5.

    in_channels: of C3, C4, C5. P6 is a stride-2 convolution of C5 or P5, P7 one of relu(P6) or P6.
    """

    def __init__(self, in_channels: Sequence[int], config: FPNConfig) -> None:
        super().__init__()
        width = config.channels
        require(width > 0, f"model.fpn.channels: {width} given, at least 1 is needed")
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1) for c in in_channels)
        self.output = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in in_channels)
        self.p6_from_c5, self.p7_relu = config.p6_source == "c5", config.p7_relu
        p6_channels = in_channels[-1] if self.p6_from_c5 else width
        self.p6 = HalvingConv(p6_channels, width)
        self.p7 = HalvingConv(width, width)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                if config.init == "xavier_uniform":
                    nn.init.xavier_uniform_(module.weight)
                else:
                    nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """[P3, P4, P5, P6, P7] of (C3, C4, C5), each (N, channels, H_l, W_l)."""
        merged = [lateral(c) for lateral, c in zip(self.lateral, features, strict=True)]
        for fine in reversed(range(len(merged) - 1)):
            size = merged[fine].shape[-2:]
            merged[fine] = merged[fine] + F.interpolate(merged[fine + 1], size=size)
        pyramid = [output(p) for output, p in zip(self.output, merged, strict=True)]
        p6 = self.p6(features[-1] if self.p6_from_c5 else pyramid[-1])
        return [*pyramid, p6, self.p7(F.relu(p6) if self.p7_relu else p6)]


class HalvingConv(nn.Conv2d):
    """A 3 x 3 convolution with stride 2, in float32 for maps of one column on a CPU.

    There oneDNN's gradient of the weight of such a convolution in bfloat16 is NaN or any number,
    and another one at each call (seen in torch 2.15; maps of two columns and more are right). P6
    has one column where images are at most 64 px wide.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, stride=2, padding=1)

    def forward(self, input: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H / 2, W / 2), rounded up."""
        if input.shape[-1] > 1 or input.device.type != "cpu":
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.to(self.weight.dtype))
