"""Feature pyramid.

Lin et al. 2017, arXiv 1612.03144; P6 and P7 as in Lin et al. 2017, arXiv 1708.02002, section 4.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from detector.config.model import FPNConfig
from detector.config.registry import NECKS
from detector.models.necks.base import Extra, Neck, Norm, enlarged, with_norm


@NECKS.register("fpn")
class FPN(Neck):
    """Each level is its map of the backbone and the coarser level enlarged, then convolved.

    norm: after each of these convolutions; levels have norms of their own. extra: how the levels
    after P5 are made, by convolutions (`model.fpn` says of what) or by pooling.
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
        width = config.channels
        self.lateral = nn.ModuleList(with_norm(nn.Conv2d(c, width, 1), norm) for c in in_channels)
        self.output = nn.ModuleList(
            with_norm(nn.Conv2d(width, width, 3, padding=1), norm) for _ in in_channels
        )
        self.add_coarser(in_channels[-1], config, extra)
        self.initialize(config)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """[P3, P4, P5, P6, P7] of (C3, C4, C5), or the levels there are."""
        merged = [lateral(c) for lateral, c in zip(self.lateral, features, strict=True)]
        for fine in reversed(range(len(merged) - 1)):
            merged[fine] = merged[fine] + enlarged(merged[fine + 1], merged[fine])
        pyramid = [output(p) for output, p in zip(self.output, merged, strict=True)]
        return [*pyramid, *self.coarser(features[-1], pyramid[-1])]
