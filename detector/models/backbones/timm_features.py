"""Any network of timm that gives maps of stride 8, 16 and 32 (Wightman 2019, the extra `timm`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from detector.config.registry import BACKBONES
from detector.config.schema import require
from detector.errors import ConfigError, did_you_mean
from detector.models.backbones.base import Backbone
from detector.models.backbones.torchvision import check_fit, read_file

STRIDES = (4, 8, 16, 32)
"""Of C2 to C5; the first may be missing."""

EXAMPLE = (1, 3, 96, 160)
"""Shape of the image by which a network is looked at: no square, and of odd sides at stride 32."""

SWIN = {"strict_img_size": False}
"""Without it a Swin takes images of one size only. Windows are then padded."""


@BACKBONES.register("timm")
class TimmBackbone(Backbone):
    """A network of timm's with `features_only`, and the mean and deviation it was trained with.

    arch: one of timm's names, with a tag of weights or without: convnext_atto, resnet50.a1_in1k.
    weights: null is from scratch; else DEFAULT (those of the tag in `arch`, or timm's first), a tag
    such as a1_in1k, or the path of a file (.safetensors, or a state dict of torch's) with the names
    of timm's. norm: of batch norms, the others are as they are: batch is live; frozen_batch keeps
    statistics, scale and shift, fixed_batch the statistics alone; auto is batch from scratch and
    frozen_batch with weights. frozen_stages: how many of the strides that the network has maps of,
    from the image upwards, stay as they are; null is 0 from scratch and 2 with weights.

    A stage is what the map of its stride needs and no map before it does, as the gradient finds.
    What no map needs is frozen. Dropout and stochastic depth are off: their draws would come from
    no key, and a resumed run would be another one. Raises ConfigError for a network that has no
    maps of stride 8, 16 and 32 or takes no images of every size.
    """

    def __init__(
        self,
        *,
        arch: str = "resnet18",
        weights: str | None = None,
        norm: Literal["auto", "batch", "frozen_batch", "fixed_batch"] = "auto",
        frozen_stages: int | None = None,
    ) -> None:
        super().__init__()
        require_known(arch)
        self.arch, self.weights = arch, weights
        self.tag = None if weights is None else named_tag(arch, weights)
        self.net = create(arch)
        for module in self.net.modules():
            without_draws(module)
        config = self.net.pretrained_cfg
        self.pixel_mean = tuple(255 * x for x in config["mean"])
        self.pixel_std = tuple(255 * x for x in config["std"])

        # What the network does with an image says more than its description.
        strides: list[int] = self.net.feature_info.reduction()
        channels: list[int] = self.net.feature_info.channels()
        missing = [s for s in STRIDES[1:] if s not in strides]
        require(
            not missing,
            f"arch: {arch} given, whose maps have the strides {strides}; 8, 16 and 32 are needed",
        )
        maps = self._example()
        self.is_channels_last = maps[-1].shape[1] != channels[-1]
        self._require_sizes(strides, maps)
        self._stages = stages_of(self.net, strides, maps)
        last = {stride: i for i, stride in enumerate(strides)}
        c3, c4, c5 = (channels[last[s]] for s in STRIDES[1:])
        self.out_channels = (c3, c4, c5)
        self._indices = [last[s] for s in STRIDES[1:]]
        if 4 in last and not self._is_apart(maps, last[4]):
            self.c2_channels = channels[last[4]]
            self._indices.insert(0, last[4])
        self._freeze(norm, frozen_stages, maps)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """C3, C4 and C5 of normalised images (N, 3, H, W)."""
        c3, c4, c5 = self._maps(images)[-3:]
        return c3, c4, c5

    def from_c2(self, images: Tensor) -> tuple[Tensor, ...]:
        """C2 (stride 4) to C5 of normalised images (N, 3, H, W)."""
        return self._maps(images) if self.c2_channels else super().from_c2(images)

    def stage_of(self) -> dict[str, int]:
        """The stage of each parameter by its name; what no map needs belongs to the last."""
        return {f"net.{name}": stage for name, stage in self._stages.items()}

    def train(self, mode: bool = True) -> TimmBackbone:
        """As for any module, except that frozen batch norms stay in evaluation mode."""
        super().train(mode)
        for module in self._still:
            module.eval()
        return self

    def load_pretrained(self) -> None:
        """Reads the weights that the option names. Raises ConfigError where that fails."""
        if self.weights is None:
            return
        if self.tag is not None:
            trained = download(self.arch, self.tag)
        else:
            tensors = read_tensors(Path(self.weights))
            check_whole(self.arch, tensors, self.weights)
            trained = create(self.arch, pretrained_cfg_overlay={"state_dict": tensors}, load=True)
        self.net.load_state_dict(trained.state_dict())

    def _maps(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = self.net(images)
        kept = [maps[i] for i in self._indices]
        return tuple(x.permute(0, 3, 1, 2) if self.is_channels_last else x for x in kept)

    def _example(self) -> list[Tensor]:
        """The maps of an image of zeros, in evaluation, with their gradients' graph."""
        self.net.eval()
        try:
            maps = self.net(torch.zeros(EXAMPLE))
        except (AssertionError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            size = f"{EXAMPLE[2]} x {EXAMPLE[3]}"
            raise ConfigError(
                f"arch: {self.arch} given, which takes no image of {size} pixels ({reason}); a "
                "network for images of every size is needed"
            ) from None
        finally:
            self.net.train()
        return list(maps)

    def _require_sizes(self, strides: Sequence[int], maps: Sequence[Tensor]) -> None:
        """Raises ConfigError where a map has not the size of its stride."""
        for stride, x in zip(strides, maps, strict=True):
            size = tuple(x.shape[1:3] if self.is_channels_last else x.shape[2:])
            wanted = (EXAMPLE[2] // stride, EXAMPLE[3] // stride)
            require(
                stride not in STRIDES or size == wanted,
                f"arch: {self.arch} given, whose map of stride {stride} is {size} for an image of "
                f"{EXAMPLE[2]} x {EXAMPLE[3]}; {wanted} is needed",
            )

    def _is_apart(self, maps: Sequence[Tensor], index: int) -> bool:
        """Whether a map needs weights that C3 to C5 do not: they would have no gradient there."""
        rest = set().union(*(needed(maps[i]) for i in self._indices))
        return not needed(maps[index]) <= rest

    def _freeze(self, norm: str, frozen_stages: int | None, maps: Sequence[Tensor]) -> None:
        """Settles which parameters train and which batch norms keep their statistics."""
        count = max(self._stages.values()) + 1
        default = 0 if self.weights is None else 2
        self.frozen_stages = default if frozen_stages is None else frozen_stages
        require(
            0 <= self.frozen_stages <= count,
            f"frozen_stages: {frozen_stages} given, 0 to {count} are allowed",
        )
        if norm == "auto":
            norm = "batch" if self.weights is None else "frozen_batch"
        used = set().union(*(needed(maps[i]) for i in self._indices))
        for name, parameter in self.net.named_parameters():
            is_frozen = self._stages[name] < self.frozen_stages
            parameter.requires_grad_(not is_frozen and id(parameter) in used)
        self._still: list[nn.Module] = []
        for module in self.net.modules():
            if not isinstance(module, _BatchNorm):
                continue
            if norm == "frozen_batch":
                module.requires_grad_(False)
            parameters = list(module.parameters())
            is_frozen = bool(parameters) and not any(p.requires_grad for p in parameters)
            if norm == "fixed_batch" or is_frozen:
                self._still.append(module)
        self.train()


def library() -> Any:
    """timm. Raises ConfigError where it is not installed."""
    try:
        import timm
    except ImportError:
        raise ConfigError(
            "name: timm needs a package that is not installed: pip install 'dense-detector[timm]'"
        ) from None
    return timm


def create(arch: str, *, load: bool = False, **options: Any) -> Any:
    """timm's network with its maps. load: its weights are read, from where the options say."""
    if arch.startswith(("swin_", "swinv2_")):
        options |= SWIN
    try:
        return library().create_model(arch, pretrained=load, features_only=True, **options)
    except (RuntimeError, TypeError, AssertionError, AttributeError, NotImplementedError) as error:
        if load:
            raise
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"arch: {arch} given, of which timm makes no maps ({reason})") from None


def require_known(arch: str) -> None:
    """Raises ConfigError for what is none of timm's names."""
    timm = library()
    base = arch.partition(".")[0]
    if not timm.is_model(base):
        hint = did_you_mean(base, timm.list_models())
        raise ConfigError(
            f"arch: {arch} is none of timm's names{hint}; "
            "python -c 'import timm; print(timm.list_models())' lists them"
        )


def tags_of(arch: str) -> list[str]:
    """The tags of an architecture's weights, without those that have no tag."""
    base = arch.partition(".")[0]
    names = library().list_pretrained(f"{base}.*")
    return [name.partition(".")[2] for name in names if name.partition(".")[0] == base]


def named_tag(arch: str, weights: str) -> str | None:
    """The tag that `weights` names; None for a file. Raises ConfigError for what is neither."""
    base, _, own = arch.partition(".")
    tags = tags_of(arch)
    if weights == "DEFAULT" and tags:
        return own or library().get_pretrained_cfg(base).tag
    if weights in tags:
        return weights
    path = Path(weights)
    if len(path.parts) > 1 or path.suffix or path.exists():
        return None
    raise ConfigError(
        f"weights: {weights} is neither a file nor DEFAULT nor one of {', '.join(tags) or 'none'}, "
        f"which are timm's for {base}{did_you_mean(weights, tags)}"
    )


def download(arch: str, tag: str) -> Any:
    """timm's network with weights of its own, from its cache where they are there.

    Raises ConfigError where they are not and cannot be fetched.
    """
    name = f"{arch.partition('.')[0]}.{tag}"
    try:
        return create(name, load=True)
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        source = library().get_pretrained_cfg(name)
        address = f"https://huggingface.co/{source.hf_hub_id}" if source.hf_hub_id else source.url
        raise ConfigError(
            f"backbone.weights: {name} could not be downloaded ({reason}); fetch it from {address} "
            "where there is a network and name the file with backbone.weights=FILE"
        ) from None


def read_tensors(path: Path) -> Mapping[str, Tensor]:
    """The tensors of a file, by name; no code in it is run. Raises ConfigError."""
    if path.suffix != ".safetensors":
        return read_file(path)
    require(path.is_file(), f"backbone.weights: the file {path} does not exist")
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"backbone.weights: {path} cannot be read ({error})") from None


def check_whole(arch: str, tensors: Mapping[str, Tensor], source: str) -> None:
    """Raises ConfigError unless a file holds the whole of a network, but for its classifier.

    timm itself loads what fits and passes over the rest, so that a wrong file would train from
    scratch without a word.
    """
    whole = library().create_model(arch, pretrained=False)
    named = whole.pretrained_cfg.get("classifier") or ()
    heads = tuple(f"{name}." for name in ([named] if isinstance(named, str) else named))
    wanted, given = (
        {k: v for k, v in state.items() if not (heads and k.startswith(heads))}
        for state in (whole.state_dict(), tensors)
    )
    check_fit(given, wanted, f"{source} for arch={arch}")


def without_draws(module: nn.Module) -> None:
    """Switches the random draws of a module off: dropout, and paths that are left out."""
    for key in ("drop_prob", "p"):
        if (
            isinstance(getattr(module, key, None), float)
            and "drop" in type(module).__name__.lower()
        ):
            setattr(module, key, 0.0)


def needed(output: Tensor) -> set[int]:
    """`id` of each parameter that an output of a network depends on, by the graph of autograd."""
    seen, found, waiting = set(), set(), [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if (leaf := getattr(node, "variable", None)) is not None:
            found.add(id(leaf))
        waiting.extend(following for following, _ in node.next_functions)
    return found


def stages_of(net: nn.Module, strides: Sequence[int], maps: Sequence[Tensor]) -> dict[str, int]:
    """The stage of each parameter, by name: the first of the strides whose maps need it.

    Stages are counted from the image upwards; what no map needs belongs to the last one.
    """
    ordered = sorted(set(strides))
    first: dict[int, int] = {}
    for stride, output in sorted(zip(strides, maps, strict=True), key=lambda pair: -pair[0]):
        first |= dict.fromkeys(needed(output), ordered.index(stride))
    last = len(ordered) - 1
    return {name: first.get(id(value), last) for name, value in net.named_parameters()}
