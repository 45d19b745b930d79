"""A backbone of a thousand weights, for checkpoints that are small enough to be kept with the code.

A module of its own because a checkpoint names the plugins that it was made with: those in
`tests/training/old_checkpoint` name this one, so it stays where it is and as it is.
"""

from __future__ import annotations

from torch import Tensor, nn

from detector.config.registry import BACKBONES
from detector.models.backbones.base import Backbone


@BACKBONES.register("tiny")
class TinyBackbone(Backbone):
    """Three convolutions, each with a batch norm: the maps of C3, C4 and C5."""

    def __init__(self, *, channels: int = 8) -> None:
        super().__init__()
        self.c3 = block(3, channels, 8)
        self.c4 = block(channels, channels, 2)
        self.c5 = block(channels, channels, 2)
        self.out_channels = (channels, channels, channels)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """C3, C4 and C5 of normalised images (N, 3, H, W)."""
        c3 = self.c3(images)
        c4 = self.c4(c3)
        return c3, c4, self.c5(c4)


def block(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """A convolution whose cells do not overlap, with batch norm and ReLU."""
    conv = nn.Conv2d(in_channels, out_channels, stride, stride, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU())
