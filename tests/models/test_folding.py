"""Frozen batch norms folded into convolutions: the same numbers, names and gradients."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detector.config.model import FPNConfig, HeadConfig, ModelConfig
from detector.config.schema import Plug
from detector.layouts import Sigmoid
from detector.models.detector import Detector, build_detector
from detector.models.folding import NormedConv2d, pairs
from detector.models.norm import FrozenBatchNorm
from detector.structures import Batch

SMALL = ModelConfig(fpn=FPNConfig(channels=8), head=HeadConfig(channels=8, num_convs=1))

BACKBONES = [
    ("resnet", "resnet18"),
    ("resnet", "resnet50"),
    ("resnet", "resnext50_32x4d"),
    ("mobilenet", "mobilenet_v3_small"),
    ("torchvision", "mobilenet_v2"),
    ("torchvision", "efficientnet_b0"),
    ("torchvision", "regnet_x_400mf"),
]


def build(kind: str, fold: bool, **options: Any) -> Detector:
    """A small detector whose frozen batch norms all do something."""
    torch.manual_seed(0)
    options = {"norm": "frozen_batch", **options}
    model = build_detector(Plug(kind, options), SMALL, Sigmoid(3), 0.01, fold=fold)
    generator = torch.Generator().manual_seed(1)
    for norm in norms(model):
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            with torch.no_grad():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return model


def norms(model: nn.Module) -> list[FrozenBatchNorm]:
    return [m for m in model.modules() if isinstance(m, FrozenBatchNorm)]


def make_batch(side: int = 64) -> Batch:
    images = torch.randint(
        256, (2, 3, side, side), generator=torch.manual_seed(0), dtype=torch.uint8
    )
    return Batch(images, torch.tensor([[side, side]] * 2), torch.ones(2, 2), (1, 2))


def outcome(model: nn.Module) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Logits and deltas, and the gradient of their mean square by the name of the parameter."""
    predictions = model(make_batch())
    outputs = [predictions.logits, predictions.deltas]
    torch.stack([x.double().square().mean() for x in outputs]).sum().backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return [x.detach() for x in outputs], gradients


@pytest.mark.parametrize(("kind", "arch"), BACKBONES)
@pytest.mark.parametrize("norm", ["frozen_batch", "fixed_batch"])
def test_outputs_and_gradients_are_those_of_the_plain_path(kind: str, arch: str, norm: str) -> None:
    plain, folded = (build(kind, fold, arch=arch, norm=norm).double() for fold in (False, True))
    assert all(norm.is_folded for norm in norms(folded))
    assert not any(norm.is_folded for norm in norms(plain))
    (outputs, gradients), (wanted, gradients_wanted) = outcome(folded), outcome(plain)
    for ours, theirs in zip(outputs, wanted, strict=True):
        # float64: the same products in another order, through at most 80 layers.
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    assert gradients.keys() == gradients_wanted.keys()
    for name, gradient in gradients.items():
        scale = gradients_wanted[name].abs().max().item()
        torch.testing.assert_close(gradient, gradients_wanted[name], rtol=1e-9, atol=1e-12 * scale)


def test_half_precision_keeps_its_type_and_is_as_near_as_the_plain_path() -> None:
    models = [build("resnet", fold, arch="resnet18") for fold in (True, False)]
    exact = copy.deepcopy(models[0]).double()(make_batch()).logits
    errors = []
    for model in models:
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(make_batch()).logits
        assert logits.dtype == torch.bfloat16
        errors.append((logits - exact).abs().mean().item())
    # One rounding less after each convolution; the two draws of roundings may differ by chance.
    assert errors[0] < 1.25 * errors[1]


def test_the_state_dict_and_what_is_drawn_are_those_of_the_plain_path() -> None:
    states = []
    for fold in (False, True):
        torch.manual_seed(0)
        plug = Plug("resnet", {"arch": "resnet18", "norm": "fixed_batch"})
        model = build_detector(plug, SMALL, Sigmoid(3), 0.01, fold=fold)
        states.append((model.state_dict(), [*dict(model.named_parameters())], torch.rand(1)))
    (plain, names, draw), (folded, names_folded, draw_folded) = states
    assert plain.keys() == folded.keys()
    assert all(torch.equal(value, folded[key]) for key, value in plain.items())
    assert names == names_folded
    assert torch.equal(draw, draw_folded)


def test_weights_that_are_loaded_or_changed_later_count() -> None:
    model, other = (build("resnet", True, arch="resnet18").eval() for _ in range(2))
    with torch.no_grad():
        for tensor in other.state_dict().values():
            tensor.mul_(1.5)
        wanted = other(make_batch()).logits
        assert not torch.equal(model(make_batch()).logits, wanted)
        model.load_state_dict(other.state_dict())
        assert torch.equal(model(make_batch()).logits, wanted)


def test_a_copy_has_norms_of_its_own() -> None:
    model = build("resnet", True, arch="resnet18").eval()
    twin = copy.deepcopy(model)
    convs = [m for m in twin.modules() if isinstance(m, NormedConv2d)]
    assert len(convs) == len(norms(twin)) == 20
    assert {id(conv.norm) for conv in convs} == {id(norm) for norm in norms(twin)}
    before = model(make_batch()).logits
    with torch.no_grad():
        for norm in norms(twin):
            norm.weight.mul_(2)
    assert torch.equal(model(make_batch()).logits, before)
    assert not torch.equal(twin(make_batch()).logits, before)


def test_live_norms_stay_and_frozen_stages_stay_in_evaluation_mode() -> None:
    live = build("resnet", True, arch="resnet18", norm="batch")
    assert not [m for m in live.modules() if isinstance(m, NormedConv2d)]
    frozen = build("resnet", True, arch="resnet18", frozen_stages=2).train()
    fold = [m.training for m in frozen.modules()]
    assert fold == [
        m.training
        for m in build("resnet", False, frozen_stages=2, arch="resnet18").train().modules()
    ]


def test_norms_of_a_tower_that_levels_share_stay() -> None:
    head = HeadConfig(channels=8, num_convs=1, norm="batch")
    config = ModelConfig(fpn=FPNConfig(channels=8), head=head)
    plug = Plug("resnet", {"arch": "resnet18", "norm": "frozen_batch"})
    model = build_detector(plug, config, Sigmoid(3), 0.01).eval()
    found = pairs(model, model.pyramid)
    assert {norm for _, norm in found} == set(norms(model))


class Crossed(nn.Module):
    """Three convolutions with norms; what else happens between them is chosen."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3), FrozenBatchNorm(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1), FrozenBatchNorm(4)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.conv1(images)
        first = self.bn1(x.add_(1) if self.what == "changed" else x)
        second = self.conv2(first)
        outputs = [self.bn2(second)]
        if self.what == "used":
            outputs[0] = outputs[0] + second
        if self.what == "given out":
            outputs.append(second)
        if self.what == "shared":
            outputs.append(self.bn2(self.conv2(first + 1)))
        return outputs


@pytest.mark.parametrize(
    ("what", "wanted"),
    [("nothing", 2), ("changed", 1), ("used", 1), ("given out", 1), ("shared", 1)],
)
def test_only_a_convolution_that_nothing_but_its_norm_sees_is_a_pair(
    what: str, wanted: int
) -> None:
    net = Crossed(what)
    found = pairs(net, net)
    assert len(found) == wanted
    own = {net.conv1: net.bn1, net.conv2: net.bn2}
    assert all(own[conv] is norm for conv, norm in found)
    assert net.training


def test_a_compiler_follows_a_folded_convolution_as_a_whole() -> None:
    model = build("resnet", True, arch="resnet18")
    x = torch.randn(1, 3, 64, 64, generator=torch.manual_seed(0))
    compiled = torch.compile(model.backbone, backend="eager", fullgraph=True)
    for ours, theirs in zip(compiled(x), model.backbone(x), strict=True):
        assert torch.equal(ours, theirs)
