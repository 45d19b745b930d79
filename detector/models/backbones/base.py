"""What a backbone is. A new one is one file here and one yaml in `configs/backbone`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from detector.errors import ConfigError

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)
"""ImageNet's mean and deviation in RGB, for pixels from 0 to 255."""


class Backbone(nn.Module, ABC):
    """Turns images into three feature maps; the pyramid makes the coarser ones.

    out_channels: channels of C3, C4 and C5, set by the constructor.
    c2_channels: of the map of stride 4, for necks whose levels begin at P2; None: it has none. A
    backbone that sets it gives that map in `from_c2`.
    pixel_mean, pixel_std: by which images are normalised, for RGB from 0 to 255.

    To add one: a file in this folder with a subclass under `@BACKBONES.register("name")`. Its
    options are the keyword-only arguments of its constructor, which takes no other ones, and which
    builds the structure without reading any weights (a checkpoint may follow instead).
    """

    out_channels: tuple[int, int, int]
    c2_channels: int | None = None
    pixel_mean: tuple[float, ...] = PIXEL_MEAN
    pixel_std: tuple[float, ...] = PIXEL_STD

    @abstractmethod
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """C3, C4 and C5 of normalised images (N, 3, H, W), H and W multiples of 32.

        Shaped (N, out_channels[i], H / s, W / s) for the strides s = 8, 16, 32. Normalised means
        RGB less `pixel_mean`, divided by `pixel_std`; padding is 0.
        """

    def from_c2(self, images: Tensor) -> tuple[Tensor, ...]:
        """C2, C3, C4 and C5, where `c2_channels` is set; the last three as `forward` gives them."""
        raise NotImplementedError(f"{type(self).__name__} has no map of stride 4")

    def stage_of(self) -> dict[str, int]:
        """The stage of each parameter by its name, 0 for those next to the image.

        For rates that fall towards the image; without names in it there are none.
        """
        return {}

    def load_pretrained(self) -> None:
        """Reads the weights that the options name; nothing where they name none.

        Raises ConfigError, its key beginning with `backbone.`.
        """


def require_channels(backbone: nn.Module) -> tuple[int, int, int]:
    """`out_channels` of a backbone. Raises ConfigError where its constructor sets none."""
    given: Any = getattr(backbone, "out_channels", None)
    channels = tuple(given) if isinstance(given, tuple | list) else ()
    if len(channels) != 3 or not all(isinstance(c, int) and c > 0 for c in channels):
        raise ConfigError(
            f"backbone: {type(backbone).__name__} has out_channels {given!r}, its constructor "
            "has to set the channels of C3, C4 and C5, such as (128, 256, 512)"
        )
    return channels[0], channels[1], channels[2]
