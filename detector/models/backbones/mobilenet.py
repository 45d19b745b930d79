"""torchvision's MobileNets without their classifier. Howard et al. 2019, arXiv 1905.02244."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from detector.config.registry import BACKBONES
from detector.models.backbones.torchvision import Norm, TorchvisionBackbone


@BACKBONES.register("mobilenet")
class MobileNet(TorchvisionBackbone):
    """A MobileNetV3; the options of `TorchvisionBackbone`.

    A map of a stride is the last one before the next halving, C5 with the widening 1 x 1
    convolution after it. A stage is what has one stride: 2, 4, 8, 16, 32.
    """

    def __init__(
        self,
        *,
        arch: Literal["mobilenet_v3_small", "mobilenet_v3_large"] = "mobilenet_v3_large",
        weights: str | None = None,
        norm: Norm = "auto",
        frozen_stages: int | None = None,
        norm_eps: float = 1e-3,
    ) -> None:
        super().__init__(arch, weights)
        self.features: nn.Sequential = self.make(norm, norm_eps).features
        self.starts = [i for i, block in enumerate(self.features) if halves(block)]
        ends = [*self.starts[1:], len(self.features)]
        self.stages = [
            tuple(f"features.{i}" for i in range(*span))
            for span in zip(self.starts, ends, strict=True)
        ]
        c2, c3, c4, c5 = (last_channels(self.features[end - 1]) for end in ends[-4:])
        self.c2_channels = c2
        self.out_channels = (c3, c4, c5)
        self.freeze(frozen_stages)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """C3, C4 and C5 of normalised images (N, 3, H, W)."""
        _, c3, c4, c5 = self.from_c2(images)
        return c3, c4, c5

    def from_c2(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """C2 (stride 4) to C5 of normalised images (N, 3, H, W)."""
        at_c3, at_c4, at_c5 = self.starts[-3:]
        c2 = self.features[:at_c3](images)
        c3 = self.features[at_c3:at_c4](c2)
        c4 = self.features[at_c4:at_c5](c3)
        return c2, c3, c4, self.features[at_c5:](c4)


def halves(block: nn.Module) -> bool:
    """Whether a block has a convolution of stride 2."""
    return any(isinstance(m, nn.Conv2d) and m.stride == (2, 2) for m in block.modules())


def last_channels(block: nn.Module) -> int:
    """The channels of what a block of torchvision's puts out."""
    if isinstance(block, Conv2dNormActivation):
        return block.out_channels
    return [m for m in block.modules() if isinstance(m, nn.Conv2d)][-1].out_channels
