"""torchvision's ResNets without their classifier.

He et al. 2016, arXiv 1512.03385; Xie et al. 2017, arXiv 1611.05431 (ResNeXt).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model, get_model_weights
from torchvision.models.resnet import Bottleneck

from detector.errors import ConfigError, did_you_mean
from detector.models.backbones.base import Backbone
from detector.models.norm import FrozenBatchNorm, group_norm
from detector.registry import BACKBONES
from detector.schema import require

Norm = Literal["auto", "batch", "frozen_batch", "fixed_batch", "group"]

BATCH_NORMS: dict[str, Callable[..., nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "frozen_batch": FrozenBatchNorm,
    "fixed_batch": partial(FrozenBatchNorm, is_affine_trained=True),
}

STAGES = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))
"""Modules of the stages that `frozen_stages` counts, from the image upwards."""

NOT_NEEDED = ("fc.weight", "fc.bias")


@BACKBONES.register("resnet")
class ResNet(Backbone):
    """A ResNet whose tensors have torchvision's names.

    arch: one of torchvision's. weights: null is from scratch; else a name of torchvision's such as
    IMAGENET1K_V2 or DEFAULT, or the path of a file with a state dict of torchvision's.
    norm: auto is group norm from scratch (it does not depend on how a batch is split) and frozen
    batch norm with weights (Lin et al. 2017 and the code that followed). fixed_batch: constant
    statistics, but scale and shift are trained (mmdetection).
    norm_eps: of the batch norms; 0 is what torchvision's first COCO weights were trained with.
    frozen_stages: how many of stem, layer1, ..., layer4 stay as they are; null is 0 from scratch
    and 2 with weights (torchvision, detectron2).
    stride_in_1x1: a bottleneck halves its map in the first 1 x 1 convolution, as published and in
    Caffe's weights; torchvision's do in the 3 x 3 one. Changes nothing in ResNet-18 and 34.
    """

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
        super().__init__()
        self.arch = arch
        self.weights = None if weights is None else named_weights(arch, weights)
        net: Any = get_model(arch, weights=None, norm_layer=norm_layer(norm, weights, norm_eps))
        if stride_in_1x1:
            move_strides(net)
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self.layer1, self.layer2 = net.layer1, net.layer2
        self.layer3, self.layer4 = net.layer3, net.layer4
        expansion: int = net.layer4[-1].expansion
        self.out_channels = (128 * expansion, 256 * expansion, 512 * expansion)
        default = 0 if weights is None else 2
        self.frozen_stages = default if frozen_stages is None else frozen_stages
        require(
            0 <= self.frozen_stages <= len(STAGES),
            f"frozen_stages: {frozen_stages} given, 0 to {len(STAGES)} are allowed",
        )
        for module in self._frozen_modules():
            module.requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """C3, C4 and C5 of normalised images (N, 3, H, W)."""
        # The maximum and ReLU may change places; on a quarter of the pixels ReLU costs less.
        c2 = self.layer1(self.relu(self.maxpool(self.bn1(self.conv1(images)))))
        c3 = self.layer2(c2)
        c4 = self.layer3(c3)
        return c3, c4, self.layer4(c4)

    def train(self, mode: bool = True) -> ResNet:
        """As for any module, except that frozen stages stay in evaluation mode."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    def load_pretrained(self) -> None:
        """Reads the weights that the option names. Raises ConfigError where that fails."""
        if self.weights is None:
            return
        source = self.weights
        tensors = read_file(source) if isinstance(source, Path) else download(source)
        state = {key: value for key, value in tensors.items() if key not in NOT_NEEDED}
        if isinstance(self.bn1, FrozenBatchNorm):
            state = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
        check_fit(state, self.state_dict(), f"{self.weights} for arch={self.arch}")
        self.load_state_dict(state)

    def _frozen_modules(self) -> list[nn.Module]:
        names = [name for stage in STAGES[: self.frozen_stages] for name in stage]
        return [self.get_submodule(name) for name in names]


def move_strides(net: nn.Module) -> None:
    """Moves the stride of each bottleneck from its 3 x 3 to its first 1 x 1 convolution."""
    for block in net.modules():
        if isinstance(block, Bottleneck):
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride


def norm_layer(norm: Norm, weights: str | None, eps: float) -> Callable[[int], nn.Module]:
    """What makes a norm layer from its channels. Raises ConfigError for group norm with weights."""
    require(eps >= 0, f"norm_eps: {eps} given, at least 0 is needed")
    require(
        norm != "group" or weights is None,
        f"norm: group with weights={weights} given; those weights were trained with batch norm and "
        "mean nothing to group norm, so take auto, batch or frozen_batch",
    )
    if norm == "auto":
        norm = "group" if weights is None else "frozen_batch"
    return group_norm if norm == "group" else partial(BATCH_NORMS[norm], eps=eps)


def named_weights(arch: str, weights: str) -> WeightsEnum | Path:
    """torchvision's entry of a name, or the path. Raises ConfigError for what is neither."""
    names: Mapping[str, WeightsEnum] = get_model_weights(arch).__members__
    if weights in names:
        return names[weights]
    path = Path(weights)
    if len(path.parts) > 1 or path.suffix or path.exists():
        return path
    raise ConfigError(
        f"weights: {weights} is neither a file nor one of {', '.join(names)}, "
        f"which are torchvision's for {arch}{did_you_mean(weights, names)}"
    )


def download(weights: Any) -> Mapping[str, Tensor]:
    """torchvision's state dict, from its cache where it is there. Raises ConfigError.

    No code is run, neither of a download nor of whatever lies in the cache under its name.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    try:
        return weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except UnpicklingError:
        name = Path(weights.url).name
        raise ConfigError(
            f"backbone.weights: {folder / name} holds more than tensors, or is damaged; remove it"
        ) from None
    except (OSError, RuntimeError, EOFError) as error:
        raise ConfigError(
            f"backbone.weights: {weights.name} could not be downloaded ({error}); put "
            f"{weights.url} into {folder}, or name a copy of it with backbone.weights=FILE"
        ) from None


def read_file(path: Path) -> Mapping[str, Tensor]:
    """The state dict in a file; no code in it is run. Raises ConfigError."""
    require(path.is_file(), f"backbone.weights: the file {path} does not exist")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError:  # torch's own words advise to switch the protection off
        raise ConfigError(
            f"backbone.weights: {path} cannot be read (it holds more than tensors, or is damaged)"
        ) from None
    except (OSError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"backbone.weights: {path} cannot be read ({reason})") from None
    is_state = isinstance(state, Mapping) and all(isinstance(v, Tensor) for v in state.values())
    require(is_state, f"backbone.weights: {path} holds no state dict (names and tensors)")
    return state


def check_fit(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], what: str) -> None:
    """Raises ConfigError, naming the first few tensors that are missing, unknown or misshapen."""
    shapes = [
        f"{key} {tuple(given[key].shape)} instead of {tuple(wanted[key].shape)}"
        for key in wanted
        if key in given and given[key].shape != wanted[key].shape
    ]
    faults = {
        "missing": [key for key in wanted if key not in given],
        "unknown": [key for key in given if key not in wanted],
        "of another shape": shapes,
    }
    parts = [
        f"{len(keys)} {fault} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for fault, keys in faults.items()
        if keys
    ]
    require(not parts, f"backbone.weights: {what}: tensors do not fit: {'; '.join(parts)}")
