"""The dense one-stage detector: backbone, pyramid, anchors, shared head."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from detector.config.model import ModelConfig
from detector.config.registry import BACKBONES, NECKS
from detector.config.schema import Plug, require
from detector.layouts import Layout
from detector.models.anchors import AnchorGenerator
from detector.models.backbones.base import Backbone, require_channels
from detector.models.coder import BoxCoder, SideCoder, build_coder
from detector.models.folding import fold_frozen_norms
from detector.models.head import Head
from detector.models.necks.base import Neck
from detector.structures import Anchors, Batch, Predictions

AnyCoder = BoxCoder | SideCoder

Outputs = tuple[Tensor, Tensor, list[tuple[int, int]]]
"""Logits (N, A, D), deltas (N, A, B), and height and width of the map of each level."""


class Detector(nn.Module):
    """RetinaNet (Lin et al. 2017, arXiv 1708.02002) with class outputs of any layout."""

    pixel_mean: Tensor
    pixel_std: Tensor
    compiled: Callable[..., Outputs] | None = None
    """What stands in for `outputs` in training; not in evaluation, whose modes it does not know."""

    def __init__(
        self, backbone: Backbone, fpn: Neck, head: Head, anchors: AnchorGenerator, coder: AnyCoder
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.fpn = fpn
        self.head = head
        self.anchors = anchors
        self.coder = coder
        for name in ("pixel_mean", "pixel_std"):
            values = torch.tensor(getattr(backbone, name))[:, None, None]
            self.register_buffer(name, values, persistent=False)

    def forward(self, batch: Batch) -> Predictions:
        """What the model says, in training and evaluation alike."""
        if self.compiled is None or not self.training:
            logits, deltas, sizes = self.outputs(batch.images, batch.sizes)
        else:
            logits, deltas, sizes = self.compiled(self, batch.images, batch.sizes)
        height, width = batch.images.shape[-2:]
        anchors = self.anchors(sizes, logits.device, (height, width))
        return Predictions(logits, deltas, anchors, self.coder)

    def outputs(self, images: Tensor, sizes: Tensor) -> Outputs:
        """All that is computed from pixels, as `normalize` takes them: tensors alone."""
        features = self.pyramid(self.normalize(images, sizes))
        logits, deltas = self.head(features)
        return logits, deltas, [(x.shape[-2], x.shape[-1]) for x in features]

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """The levels, finest first, of normalised images (N, 3, H, W)."""
        first, _ = self.anchors.config.levels
        if first == 2:
            return self.fpn(self.backbone.from_c2(images))
        return self.fpn(self.backbone(images)[first - 3 :])

    def anchors_for(self, batch: Batch) -> Anchors:
        """The anchors that `forward` will give for this batch; a matcher can work before it."""
        height, width = batch.images.shape[-2:]
        return self.anchors.for_image(height, width, batch.images.device)

    def normalize(self, images: Tensor, sizes: Tensor) -> Tensor:
        """(N, 3, H, W) in the model's type: less the mean, divided by the deviation, padding 0.

        images: pixels from 0 to 255, uint8 or float. sizes: (N, 2), height and width that count.
        The padding is set after normalising: black borders would not be 0, and a convolution's own
        padding is.
        """
        pixels = (images.to(self.pixel_mean.dtype) - self.pixel_mean) / self.pixel_std
        rows = torch.arange(images.shape[-2], device=images.device) >= sizes[:, :1]
        columns = torch.arange(images.shape[-1], device=images.device) >= sizes[:, 1:]
        padding = rows[:, None, :, None] | columns[:, None, None, :]
        # In place, since `masked_fill` would lose the channels-last order of memory.
        return pixels.masked_fill_(padding, 0)


DEFAULT_NECK = Plug("fpn", {})


def build_detector(
    backbone: Plug,
    model: ModelConfig,
    layout: Layout,
    prior: float,
    *,
    neck: Plug = DEFAULT_NECK,
    pretrained: bool = True,
    fold: bool = True,
) -> Detector:
    """The detector of a config, its class outputs beginning at the probability `prior`.

    pretrained: False leaves the backbone's weights unread, for where a checkpoint follows. fold:
    frozen batch norms of the backbone are a part of its convolutions.
    Raises ConfigError.
    """
    body: Backbone = BACKBONES.build(backbone)
    if pretrained:
        body.load_pretrained()
    anchors = AnchorGenerator(model.anchors)
    levels = model.anchors.levels
    channels = channels_from(body, levels[0])
    coder = build_coder(model.coder)
    head = Head(
        model.fpn.channels,
        anchors.num_per_cell,
        layout.num_outputs,
        layout.initial_bias(prior),
        model.head,
        len(anchors.strides),
        box_bias=coder.box_layout.initial_bias(),
    )
    # After the head: the order in which weights are drawn makes the numbers of a run.
    fpn: Neck = NECKS.build(neck, channels, model.fpn, levels)
    if fold:
        fold_frozen_norms(body, body if body.c2_channels is None else body.from_c2)
    return Detector(body, fpn, head, anchors, coder)


def channels_from(backbone: Backbone, first: int) -> tuple[int, ...]:
    """The channels of a backbone's maps from a level, 2 for C2, to C5. Raises ConfigError."""
    channels = require_channels(backbone)
    if first > 2:
        return channels[first - 3 :]
    require(
        backbone.c2_channels is not None,
        "model.anchors.levels: a first level of 2 given, but this backbone has no map of stride 4; "
        "3 to 5 are allowed",
    )
    assert backbone.c2_channels is not None
    return (backbone.c2_channels, *channels)
