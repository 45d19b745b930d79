"""Feature pyramid with a second path, from fine to coarse. Liu et al. 2018, arXiv 1803.01534."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from detector.config.model import FPNConfig
from detector.config.registry import NECKS
from detector.models.necks.base import Extra, HalvingConv, Neck, Norm, enlarged, with_norm


@NECKS.register("pafpn")
class PAFPN(Neck):
    """A feature pyramid P, and then N with N_3 = P_3 and N_l+1 = conv(P_l+1 + down(N_l)).

    down is a 3 x 3 convolution of stride 2 (Liu et al. 2018, section 3.1, figure 2). As in
    mmdetection's PAFPN, no activation follows a convolution, and the sum is handed down before its
    own convolution. norm: after each convolution. extra: how the levels after N5 are made, by
    convolutions (`model.fpn` says of what; p5 is N5 here) or by pooling.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        config: FPNConfig,
        levels: tuple[int, int] = (3, 7),
        *,
        norm: Norm = "none",
        extra: Extra = "convolution",
    ) -> None:
        super().__init__(in_channels, config, levels)
        width, steps = config.channels, range(len(in_channels) - 1)
        self.lateral = nn.ModuleList(with_norm(nn.Conv2d(c, width, 1), norm) for c in in_channels)
        self.output = nn.ModuleList(conv(width, norm) for _ in in_channels)
        self.down = nn.ModuleList(with_norm(HalvingConv(width, width), norm) for _ in steps)
        self.path = nn.ModuleList(conv(width, norm) for _ in steps)
        self.add_coarser(in_channels[-1], config, extra)
        self.initialize(config)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """[N3, N4, N5, N6, N7] of (C3, C4, C5), or the levels there are."""
        merged = [lateral(c) for lateral, c in zip(self.lateral, features, strict=True)]
        for fine in reversed(range(len(merged) - 1)):
            merged[fine] = merged[fine] + enlarged(merged[fine + 1], merged[fine])
        sums = [output(p) for output, p in zip(self.output, merged, strict=True)]
        for i, down in enumerate(self.down):
            sums[i + 1] = sums[i + 1] + down(sums[i])
        pyramid = [sums[0], *(path(x) for path, x in zip(self.path, sums[1:], strict=True))]
        return [*pyramid, *self.coarser(features[-1], pyramid[-1])]


def conv(width: int, norm: Norm) -> nn.Module:
    """A 3 x 3 convolution of a level, with its norm."""
    return with_norm(nn.Conv2d(width, width, 3, padding=1), norm)
