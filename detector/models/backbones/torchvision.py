"""What backbones of torchvision's share: norms, frozen stages, and weights trained on ImageNet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model, get_model_weights

from detector.config.schema import require
from detector.errors import ConfigError, did_you_mean
from detector.models.backbones.base import Backbone
from detector.models.norm import FrozenBatchNorm, group_norm
from detector.runtime import archive
from detector.runtime.pickles import Unreadable

Norm = Literal["auto", "batch", "frozen_batch", "fixed_batch", "group"]

BATCH_NORMS: dict[str, Callable[..., nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "frozen_batch": FrozenBatchNorm,
    "fixed_batch": partial(FrozenBatchNorm, is_affine_trained=True),
}

CLASSIFIERS = ("fc.", "classifier.")
"""What the names of a classifier's tensors begin with, in torchvision's files."""


class TorchvisionBackbone(Backbone):
    """A network of torchvision's without its classifier, whose tensors keep torchvision's names.

    stages: names of the modules that `frozen_stages` counts, from the image upwards.

    Options that all have:

    arch: one of torchvision's. weights: null is from scratch; else a name of torchvision's such as
    IMAGENET1K_V2 or DEFAULT, or the path of a file with a state dict of torchvision's.
    norm: auto is group norm from scratch (it does not depend on how a batch is split) and frozen
    batch norm with weights (Lin et al. 2017 and the code that followed). fixed_batch: constant
    statistics, but scale and shift are trained (mmdetection). norm_eps: of the batch norms.
    frozen_stages: how many of the stages stay as they are; null is 0 from scratch and 2 with
    weights (torchvision, detectron2).
    """

    stages: Sequence[tuple[str, ...]]

    def __init__(self, arch: str, weights: str | None) -> None:
        super().__init__()
        self.arch, self.asked = arch, weights
        self.weights = None if weights is None else named_weights(arch, weights)

    def make(self, norm: Norm, eps: float) -> Any:
        """torchvision's network, from scratch."""
        return get_model(self.arch, weights=None, norm_layer=norm_layer(norm, self.asked, eps))

    def freeze(self, frozen_stages: int | None) -> None:
        """To be called by a constructor once its modules are there."""
        default = 0 if self.weights is None else 2
        self.frozen_stages = default if frozen_stages is None else frozen_stages
        require(
            0 <= self.frozen_stages <= len(self.stages),
            f"frozen_stages: {frozen_stages} given, 0 to {len(self.stages)} are allowed",
        )
        for module in self._frozen_modules():
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> TorchvisionBackbone:
        """As for any module, except that frozen stages stay in evaluation mode."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    def stage_of(self) -> dict[str, int]:
        """The stage of each parameter by its name, 0 for those next to the image."""
        return {
            f"{module}.{name}": number
            for number, modules in enumerate(self.stages)
            for module in modules
            for name, _ in self.get_submodule(module).named_parameters()
        }

    def load_pretrained(self) -> None:
        """Reads the weights that the option names. Raises ConfigError where that fails."""
        if self.weights is None:
            return
        source = self.weights
        tensors = read_file(source) if isinstance(source, Path) else download(source)
        state = {key: value for key, value in tensors.items() if not key.startswith(CLASSIFIERS)}
        if any(isinstance(module, FrozenBatchNorm) for module in self.modules()):
            state = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
        check_fit(state, self.state_dict(), f"{self.weights} for arch={self.arch}")
        self.load_state_dict(state)

    def _frozen_modules(self) -> list[nn.Module]:
        names = [name for stage in self.stages[: self.frozen_stages] for name in stage]
        return [self.get_submodule(name) for name in names]


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
        with open(path, "rb") as file:
            state = archive.read(file, legacy=True)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(f"backbone.weights: {path} cannot be read ({reason})") from None
    except Unreadable as error:
        raise ConfigError(f"backbone.weights: {path} cannot be read ({error})") from None
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
