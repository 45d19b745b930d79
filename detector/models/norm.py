"""Normalisation that does not depend on the other images of a batch."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from detector.structures import promote

NUM_GROUPS = 32
"""Groups of a group norm (Wu and He 2018, arXiv 1803.08494, table 3)."""


class GroupNorm(nn.GroupNorm):
    """Group norm; the same numbers as `nn.GroupNorm` but sooner for channels-last maps on a CPU.

    There torch takes 140 ms to go backward through a ResNet-18 on eight images of 256 px in
    bfloat16, more than through its convolutions; `ChannelsLastGroupNorm` takes a fifth of that.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W) of the type and order of memory of the input."""
        is_plain = input.is_contiguous()
        is_last = input.is_contiguous(memory_format=torch.channels_last)
        if torch.compiler.is_compiling():  # which makes one pass of it and what surrounds it
            return super().forward(input)
        if input.device.type != "cpu" or is_plain or not is_last or not torch.is_grad_enabled():
            return super().forward(input)
        return ChannelsLastGroupNorm.apply(  # type: ignore[return-value]
            input, self.weight, self.bias, self.num_groups, self.eps
        )


def group_norm(channels: int) -> GroupNorm:
    """A group norm of 32 groups, or of the most that divide `channels` and 32.

    A group has two channels at least: on the single cell of a coarse level one channel alone would
    be normalised to 0, and torch refuses that for a batch of one image.
    """
    groups = math.gcd(NUM_GROUPS, channels)
    return GroupNorm(groups // 2 if groups == channels > 1 else groups, channels)


class ChannelsLastGroupNorm(torch.autograd.Function):
    """torch's group norm with a backward made for maps in channels-last order.

    With y = weight * h + bias, h = (x - mean) * rstd, and averages over the m values of a group:

        dx = rstd * (weight * dy - average(weight * dy) - h * average(weight * dy * h))

    which is linear in dy and x, with one factor for each channel of each image.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, num_groups: int, eps: float
    ) -> Tensor:
        n, c, h, w = x.shape
        y, mean, rstd = torch.native_group_norm(x, weight, bias, n, c, h * w, num_groups, eps)
        ctx.save_for_backward(x, weight, mean, rstd)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight, mean, rstd = ctx.saved_tensors
        n, c, h, w = x.shape
        mean, rstd = (promote(t).reshape(n, -1, 1) for t in (mean, rstd))
        scale = promote(weight).reshape(1, mean.shape[1], -1)
        pixels, dy_pixels = (t.permute(0, 2, 3, 1).reshape(n, h * w, c) for t in (x, dy))

        # (N, groups, channels of a group): sums over pixels of dy and of dy * h.
        sums = torch.stack([_sums(*image) for image in zip(pixels, dy_pixels, strict=True)])
        total, product = sums.reshape(n, 2, *scale.shape[1:]).unbind(1)
        product = (product - mean * total) * rstd

        m = scale.shape[-1] * h * w
        slope = -(rstd**2) * (scale * product).sum(-1, keepdim=True) / m
        shift = -slope * mean - rstd * (scale * total).sum(-1, keepdim=True) / m
        of_dy, of_x, constant = (
            t.expand(n, *scale.shape[1:]).reshape(n, c) for t in (rstd * scale, slope, shift)
        )
        dx = torch.empty_like(pixels)
        for i in range(n):
            # Image by image, so that what is in float32 stays in the processor's cache.
            linear = torch.addcmul(constant[i], promote(pixels[i]), of_x[i])
            dx[i] = linear.addcmul_(promote(dy_pixels[i]), of_dy[i])
        dx = dx.view(n, h, w, c).permute(0, 3, 1, 2)
        d_weight, d_bias = (t.sum(0).flatten().to(weight.dtype) for t in (product, total))
        return dx, d_weight, d_bias, None, None


def _sums(pixels: Tensor, dy: Tensor) -> Tensor:
    """(2, C) sums over the pixels (P, C) of dy and of dy * x, in float32 or better."""
    dy = promote(dy)
    return torch.stack([dy.sum(0), (dy * promote(pixels)).sum(0)])


class FrozenBatchNorm(nn.Module):
    """Batch norm with constant statistics and constant scale and shift, in training as well.

    Its tensors have the names of `nn.BatchNorm2d`, so that the state dict of one fits.
    is_affine_trained: scale and shift are parameters (mmdetection's `norm_eval`). is_folded: the
    convolution before it does its work already (`detector.models.folding`), so it passes its input.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    is_folded: bool = False

    def __init__(
        self, channels: int, eps: float = 1e-5, *, is_affine_trained: bool = False
    ) -> None:
        super().__init__()
        self.eps = eps
        for name, value in (("weight", torch.ones(channels)), ("bias", torch.zeros(channels))):
            if is_affine_trained:
                self.register_parameter(name, nn.Parameter(value))
            else:
                self.register_buffer(name, value)
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W) of the type of `x`."""
        if self.is_folded:
            return x
        scale, shift = self.factors()
        # In the type of x: float32 factors would turn bfloat16 activations into float32 ones.
        scale, shift = (t.to(x.dtype)[:, None, None] for t in (scale, shift))
        return torch.addcmul(shift, x, scale)

    def factors(self) -> tuple[Tensor, Tensor]:
        """(C,) scale and (C,) shift: what it makes of x is scale * x + shift."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale
