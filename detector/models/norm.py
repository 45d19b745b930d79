"""Normalisation that does not depend on the other images of a batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

NUM_GROUPS = 32
"""Groups of a group norm (Wu and He 2018, arXiv 1803.08494, table 3)."""


def group_norm(channels: int) -> nn.GroupNorm:
    """A group norm of 32 groups, or of the most that divide `channels` and 32."""
    return nn.GroupNorm(math.gcd(NUM_GROUPS, channels), channels)


class FrozenBatchNorm(nn.Module):
    """Batch norm with constant statistics and constant scale and shift, in training as well.

    Its tensors have the names of `nn.BatchNorm2d`, so that the state dict of one fits.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W) of the type of `x`."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        # In the type of x: float32 factors would turn bfloat16 activations into float32 ones.
        scale, shift = (t.to(x.dtype)[:, None, None] for t in (scale, shift))
        return torch.addcmul(shift, x, scale)
