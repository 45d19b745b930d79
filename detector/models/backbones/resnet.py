"""torchvision's ResNets without their classifier.

He et al. 2016, arXiv 1512.03385; Xie et al. 2017, arXiv 1611.05431 (ResNeXt).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from detector.config.registry import BACKBONES
from detector.models.backbones.torchvision import Norm, TorchvisionBackbone

STAGES = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))


@BACKBONES.register("resnet")
class ResNet(TorchvisionBackbone):
    """A ResNet; the options of `TorchvisionBackbone`, and:

    norm_eps: 0 is what torchvision's first COCO weights were trained with.
    stride_in_1x1: a bottleneck halves its map in the first 1 x 1 convolution, as published and in
    Caffe's weights; torchvision's do in the 3 x 3 one. Changes nothing in ResNet-18 and 34.
    """

    stages = STAGES

    def __init__(
        self,
        *,
        arch: Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnext50_32x4d"] = (
            "resnet50"
        ),
        weights: str | None = None,
        norm: Norm = "auto",
        frozen_stages: int | None = None,
        norm_eps: float = 1e-5,
        stride_in_1x1: bool = False,
    ) -> None:
        super().__init__(arch, weights)
        net = self.make(norm, norm_eps)
        if stride_in_1x1:
            move_strides(net)
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self.layer1, self.layer2 = net.layer1, net.layer2
        self.layer3, self.layer4 = net.layer3, net.layer4
        expansion: int = net.layer4[-1].expansion
        self.c2_channels = 64 * expansion
        self.out_channels = (128 * expansion, 256 * expansion, 512 * expansion)
        self.freeze(frozen_stages)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """C3, C4 and C5 of normalised images (N, 3, H, W)."""
        _, c3, c4, c5 = self.from_c2(images)
        return c3, c4, c5

    def from_c2(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """C2 (stride 4) to C5 of normalised images (N, 3, H, W)."""
        # The maximum and ReLU may change places; on a quarter of the pixels ReLU costs less.
        c2 = self.layer1(self.relu(self.maxpool(self.bn1(self.conv1(images)))))
        c3 = self.layer2(c2)
        c4 = self.layer3(c3)
        return c2, c3, c4, self.layer4(c4)


def move_strides(net: nn.Module) -> None:
    """Moves the stride of each bottleneck from its 3 x 3 to its first 1 x 1 convolution."""
    for block in net.modules():
        if isinstance(block, Bottleneck):
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
