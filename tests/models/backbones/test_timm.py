"""Networks of timm's: strides, gradients, weights; three in `make test`, the others `slow`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from detector.config.model import FPNConfig, HeadConfig, ModelConfig
from detector.config.registry import BACKBONES
from detector.config.schema import Plug
from detector.errors import ConfigError
from detector.inference.export import export
from detector.layouts import Sigmoid
from detector.models.backbones import timm_features
from detector.models.backbones.timm_features import TimmBackbone
from detector.models.detector import build_detector
from detector.runs import checkpoint
from tests.training.tiny import go, tiny

timm = pytest.importorskip("timm")
safetensors = pytest.importorskip("safetensors.torch")

FEW = ("test_convnext", "test_efficientnet", "test_resnet")
"""Tiny ones that timm keeps for tests, of three families."""

MANY = (
    "convnext_atto", "convnextv2_atto", "cs3darknet_s", "densenet121", "dla34", "dla46_c",
    "dpn48b", "edgenext_xx_small", "efficientnet_es", "efficientnet_lite0", "efficientvit_b0",
    "ese_vovnet19b_dw", "fasternet_t0", "fastvit_t8", "fbnetc_100", "gernet_s", "ghostnet_050",
    "hardcorenas_a", "hgnetv2_b0", "inception_next_atto", "lcnet_035", "legacy_seresnet18",
    "mambaout_femto", "mixnet_s", "mnasnet_small", "mobilenetv2_035", "mobilenetv3_small_050",
    "mobilenetv4_conv_small_035", "mobileone_s0", "nf_regnet_b0", "poolformer_s12", "pvt_v2_b0",
    "regnetx_002", "regnety_002", "regnetz_005", "repghostnet_050", "repvgg_a0", "repvit_m0_9",
    "resnet10t", "resnest14d", "resnetv2_18", "rexnet_100", "skresnet18", "starnet_s050",
    "swin_tiny_patch4_window7_224", "tinynet_e", "tiny_vit_5m_224", "vgg11",
)  # fmt: skip
NAMES = [*FEW, *(pytest.param(name, marks=pytest.mark.slow) for name in MANY)]


def build(arch: str, **options: Any) -> TimmBackbone:
    return BACKBONES.build(Plug("timm", {"arch": arch, **options}))


def test_there_are_forty_names_and_more() -> None:
    assert len({*FEW, *MANY}) >= 43


@pytest.mark.parametrize("arch", NAMES)
class TestContract:
    def test_maps_have_the_strides_and_the_channels_that_are_declared(self, arch: str) -> None:
        backbone = build(arch).eval()
        with torch.no_grad():
            maps = backbone(torch.zeros(2, 3, 64, 96))
        assert [tuple(x.shape) for x in maps] == [
            (2, c, 64 // s, 96 // s)
            for c, s in zip(backbone.out_channels, (8, 16, 32), strict=True)
        ]
        if backbone.c2_channels:
            with torch.no_grad():
                c2, *_ = backbone.from_c2(torch.zeros(2, 3, 64, 96))
            assert c2.shape == (2, backbone.c2_channels, 16, 24)

    @pytest.mark.parametrize("frozen", [0, 2])
    def test_a_gradient_reaches_all_that_is_not_frozen(self, arch: str, frozen: int) -> None:
        torch.manual_seed(0)
        backbone = build(arch, frozen_stages=frozen).train()
        sum(x.square().mean() for x in backbone(torch.randn(2, 3, 64, 96))).backward()  # type: ignore[union-attr]
        trained = {name: p for name, p in backbone.named_parameters() if p.requires_grad}
        assert trained
        for name, parameter in trained.items():
            assert parameter.grad is not None, name
            assert bool(parameter.grad.isfinite().all()), name
        stages = backbone.stage_of()
        assert stages.keys() == dict(backbone.named_parameters()).keys()
        assert min(stages[name] for name in trained) == frozen

    @pytest.mark.long
    def test_a_run_is_resumed_to_the_bit_and_its_model_exported(
        self, arch: str, tmp_path: Path
    ) -> None:
        pytest.importorskip("onnxruntime")
        whole = {"backbone": {"name": "timm", "arch": arch}, "save_every": 2, "steps": 4}
        go(tiny(tmp_path / "whole", **whole))
        parts = tiny(tmp_path / "parts", **whole)
        last = tmp_path / "whole" / "checkpoints" / "step_000000002.pt"
        go({**parts, "resume": str(last)})
        once, twice = (
            checkpoint.load(tmp_path / name / "checkpoints" / "last.pt")["model"]
            for name in ("whole", "parts")
        )
        assert once.keys() == twice.keys()
        assert all(torch.equal(once[key], twice[key]) for key in once)
        done = export(tmp_path / "whole" / "checkpoints" / "last.pt", tmp_path / "graph.onnx")
        assert done.path.is_file()
        agreement = done.agreement
        assert agreement is not None
        assert agreement.is_same, agreement


def test_stages_are_what_the_map_of_a_stride_needs_first() -> None:
    """By the construction of a ResNet: stem, then one layer a stride."""
    stages = build("resnet10t").stage_of()
    of_layers = {"layer1": 1, "layer2": 2, "layer3": 3, "layer4": 4}
    for name, stage in stages.items():
        layer = name.split(".")[1]
        assert stage == of_layers.get(layer, 0), name


def test_what_only_other_maps_need_is_frozen() -> None:
    """HRNet makes its map of stride 4 by layers of its own, which get no gradient from C3 to C5."""
    backbone = build("hrnet_w18_small")
    assert backbone.c2_channels is None
    frozen = [name for name, p in backbone.named_parameters() if not p.requires_grad]
    assert frozen
    sum(x.mean() for x in backbone(torch.randn(1, 3, 64, 64))).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None for p in backbone.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("norm", "are_live", "is_affine_trained"),
    [("auto", True, True), ("batch", True, True), ("fixed_batch", False, True),
     ("frozen_batch", False, False)],
)  # fmt: skip
def test_batch_norms_are_as_the_option_says(
    norm: str, are_live: bool, is_affine_trained: bool
) -> None:
    backbone = build("test_resnet", norm=norm).train()
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    before = [m.running_mean.clone() for m in norms]  # type: ignore[union-attr]
    backbone(torch.randn(2, 3, 64, 64))
    for module, mean in zip(norms, before, strict=True):
        assert torch.equal(module.running_mean, mean) != are_live  # type: ignore[arg-type]
        assert module.weight.requires_grad == is_affine_trained


def test_the_norms_of_frozen_stages_keep_their_statistics() -> None:
    backbone = build("test_resnet", frozen_stages=2).train()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    backbone(torch.randn(2, 3, 64, 64))
    moved = [key for key, value in backbone.state_dict().items() if not value.equal(before[key])]
    stages = backbone.stage_of()
    assert moved
    for key in moved:
        assert stages[key.rpartition(".")[0] + ".weight"] >= 2, key


def test_nothing_is_drawn_in_training() -> None:
    backbone = build("swin_tiny_patch4_window7_224").train()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        first, second = backbone(images)[-1], backbone(images)[-1]
    assert torch.equal(first, second)


def test_images_are_normalised_as_the_network_was_trained() -> None:
    """TensorFlow's MobileNets take pixels from -1 to 1."""
    plug = Plug("timm", {"arch": "tf_mobilenetv3_small_minimal_100"})
    small = ModelConfig(fpn=FPNConfig(channels=8), head=HeadConfig(channels=8, num_convs=1))
    model = build_detector(plug, small, Sigmoid(1), 0.01)
    images = torch.tensor([0.0, 127.5, 255.0]).repeat(1, 3, 1, 1)
    pixels = model.normalize(images, torch.tensor([[1, 3]]))
    assert pixels[0, :, 0].tolist() == [[-1.0, 0.0, 1.0]] * 3


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_local_file_loads_whole(suffix: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    net = timm.create_model("test_resnet", pretrained=False)
    path = tmp_path / f"weights{suffix}"
    state = net.state_dict()
    (torch.save if suffix == ".pth" else safetensors.save_file)(state, path)
    torch.manual_seed(2)
    backbone = build("test_resnet", weights=str(path)).eval()
    backbone.load_pretrained()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = net.eval().forward_features(images)
        assert torch.equal(backbone(images)[-1], expected)


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    """timm alone would load what fits, which is nothing, and say nothing."""
    other = timm.create_model("test_efficientnet", pretrained=False)
    torch.save(other.state_dict(), tmp_path / "other.pth")
    with pytest.raises(ConfigError, match=r"^backbone\.weights: .*other\.pth for arch=test_resnet"):
        build("test_resnet", weights=str(tmp_path / "other.pth")).load_pretrained()


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^backbone\.weights: the file no/such\.safetensors"):
        build("test_resnet", weights="no/such.safetensors").load_pretrained()


def test_without_a_network_it_is_said_where_the_weights_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    backbone = build("test_resnet", weights="DEFAULT")
    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(ConfigError) as caught:
        backbone.load_pretrained()
    message = str(caught.value)
    assert message.startswith("backbone.weights: test_resnet.r160_in1k could not be downloaded")
    assert "(no network)" in message
    assert "https://huggingface.co/timm/test_resnet.r160_in1k" in message
    assert "backbone.weights=FILE" in message


def test_a_tag_is_taken_with_the_name_or_as_weights() -> None:
    assert build("resnet10t", weights="DEFAULT").tag == build("resnet10t", weights="c3_in1k").tag
    assert build("resnet10t.c3_in1k", weights="DEFAULT").tag == "c3_in1k"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arch": "resnet19"}, r"arch: resnet19 is none of timm's names.*resnet18"),
        ({"arch": "resnet10t", "weights": "c4_in1k"}, r"weights: c4_in1k is neither .*c3_in1k"),
        ({"arch": "vit_tiny_patch16_224"}, r"strides \[16, 16, 16\]; 8, 16 and 32 are needed"),
        ({"arch": "maxvit_tiny_tf_224"}, r"takes no image of 96 x 160 pixels"),
        ({"arch": "test_resnet", "frozen_stages": 6}, r"frozen_stages: 6 given, 0 to 5"),
    ],
)
def test_what_cannot_be_is_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^backbone\..*{message}") as caught:
        build(**options)
    assert "\n" not in str(caught.value)


def test_without_timm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(ConfigError, match=r"pip install 'dense-detector\[timm\]'"):
        timm_features.library()
