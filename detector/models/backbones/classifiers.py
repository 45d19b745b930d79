"""torchvision's other classifiers as backbones, cut where their maps are halved.

MobileNetV2: Sandler et al. 2018, arXiv 1801.04381. EfficientNet: Tan and Le 2019, arXiv 1905.11946
(V2: 2104.00298). RegNet: Radosavovic et al. 2020, arXiv 2003.13678. ConvNeXt: Liu et al. 2022,
arXiv 2201.03545.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torchvision.models import get_model, list_models

from detector.config.registry import BACKBONES
from detector.config.schema import require
from detector.errors import did_you_mean
from detector.models.backbones.mobilenet import last_channels
from detector.models.backbones.torchvision import Norm, TorchvisionBackbone, norm_layer

FAMILIES = ("mobilenet_v2", "efficientnet", "regnet", "convnext")
"""Beginnings of the names of torchvision's that are taken."""

WITH_STOCHASTIC_DEPTH = ("efficientnet", "convnext")

Step = tuple[str, nn.Module]
"""A module of a chain, after its name in the network."""


@BACKBONES.register("torchvision")
class Classifier(TorchvisionBackbone):
    """A MobileNetV2, EfficientNet, RegNet or ConvNeXt; the options of `TorchvisionBackbone`.

    A map of a stride is the last one before the next halving, C5 with the widening 1 x 1
    convolution that MobileNetV2 and EfficientNet have after it. A stage, of which `frozen_stages`
    counts, is what has one stride: 2, 4, 8, 16, 32; ConvNeXt begins with 4 and so has four.

    ConvNeXt has layer norm and keeps it: only `norm: auto` is allowed there. norm_eps: null is that
    of the architecture. Stochastic depth is off: its draws would come from no key, and a resumed
    run would be another one.
    """

    def __init__(
        self,
        *,
        arch: str = "mobilenet_v2",
        weights: str | None = None,
        norm: Norm = "auto",
        frozen_stages: int | None = None,
        norm_eps: float | None = None,
    ) -> None:
        _require_known(arch)
        super().__init__(arch, weights)
        depth = {"stochastic_depth_prob": 0.0} if arch.startswith(WITH_STOCHASTIC_DEPTH) else {}
        net: Any = get_model(arch, weights=None, **depth)
        if arch.startswith("convnext"):
            _require_its_own_norm(arch, norm, norm_eps)
        else:
            replace_batch_norms(net, norm, weights, norm_eps)

        # The modules keep torchvision's names, so that its weights fit.
        if arch.startswith("regnet"):
            self.stem, self.trunk_output = net.stem, net.trunk_output
            chain = [("stem", self.stem), *named(self.trunk_output, "trunk_output")]
        else:
            self.features: nn.Sequential = net.features
            chain = named(self.features, "features")
        strided = split_at_strides(chain)
        self.stages = [tuple(name for name, _ in steps) for steps in strided]
        self.c2_channels, *others = (last_channels(steps[-1][1]) for steps in strided[-4:])
        c3, c4, c5 = others
        self.out_channels = (c3, c4, c5)
        self.freeze(frozen_stages)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """C3, C4 and C5 of normalised images (N, 3, H, W)."""
        _, c3, c4, c5 = self.from_c2(images)
        return c3, c4, c5

    def from_c2(self, images: Tensor) -> tuple[Tensor, ...]:
        """C2 (stride 4) to C5 of normalised images (N, 3, H, W)."""
        maps = []
        x = images
        for names in self.stages:
            for name in names:
                x = self.get_submodule(name)(x)
            maps.append(x)
        return tuple(maps[-4:])


def named(chain: nn.Sequential, prefix: str) -> list[Step]:
    """The modules of a chain after their names, such as features.0."""
    return [(f"{prefix}.{name}", module) for name, module in chain.named_children()]


def split_at_strides(chain: list[Step]) -> list[list[Step]]:
    """The steps of each stride, from the image upwards."""
    parts: list[list[Step]] = []
    for name, module in chain:
        if any(isinstance(m, nn.Conv2d) and m.stride != (1, 1) for m in module.modules()):
            parts.append([])
        parts[-1].append((name, module))
    return parts


def replace_batch_norms(net: nn.Module, norm: Norm, weights: str | None, eps: float | None) -> None:
    """Puts norms of another kind in the place of a network's batch norms, new ones of its sizes.

    eps: of batch norms; None: of each one that which it has. The rest as for `norm_layer`.
    """
    for parent in list(net.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                make = norm_layer(norm, weights, child.eps if eps is None else eps)
                setattr(parent, name, make(child.num_features))


def _require_known(arch: str) -> None:
    """Raises ConfigError for a name that is not among the families' of torchvision."""
    known = [name for name in list_models(module=None) if name.startswith(FAMILIES)]
    require(
        arch in known,
        f"arch: {arch} is none of torchvision's that are taken{did_you_mean(arch, known)}; "
        f"allowed: {', '.join(known)}",
    )


def _require_its_own_norm(arch: str, norm: Norm, eps: float | None) -> None:
    """Raises ConfigError for options of a batch norm where there is none."""
    given = {"norm": (norm, "auto"), "norm_eps": (eps, None)}
    for key, (value, allowed) in given.items():
        require(
            value == allowed,
            f"{key}: {value} with arch={arch} given; it keeps its layer norm, so only "
            f"{allowed or 'null'} is allowed",
        )
