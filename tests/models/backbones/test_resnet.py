"""torchvision's ResNets: norms, frozen stages, weights, and what a user is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import ResNet18_Weights

from detector.config.registry import BACKBONES
from detector.config.schema import Plug
from detector.errors import ConfigError
from detector.models.backbones.resnet import ResNet
from detector.models.norm import FrozenBatchNorm, GroupNorm

ARCHS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnext50_32x4d")


def build(**options: Any) -> ResNet:
    return BACKBONES.build(Plug("resnet", {"arch": "resnet18", **options}))


def norms(model: nn.Module) -> set[type[nn.Module]]:
    kinds = (nn.BatchNorm2d, FrozenBatchNorm, nn.GroupNorm)
    return {type(m) for m in model.modules() if isinstance(m, kinds)}


@pytest.fixture(scope="module")
def reference() -> Any:
    """torchvision's ResNet-18 in evaluation, with the statistics of a little data."""
    torch.manual_seed(0)
    net = torchvision.models.resnet18(weights=None)
    with torch.no_grad():
        net.train()(torch.randn(4, 3, 64, 64))
    return net.eval()


@pytest.fixture
def weights(reference: Any, tmp_path: Path) -> str:
    path = tmp_path / "resnet18.pth"
    torch.save(reference.state_dict(), path)
    return str(path)


def features(net: Any, images: Tensor) -> list[Tensor]:
    x = net.maxpool(net.relu(net.bn1(net.conv1(images))))
    maps = []
    for layer in (net.layer1, net.layer2, net.layer3, net.layer4):
        x = layer(x)
        maps.append(x)
    return maps[1:]


@pytest.mark.parametrize("arch", ARCHS)
def test_every_architecture_has_the_channels_it_declares(arch: str) -> None:
    wide = arch not in ("resnet18", "resnet34")
    backbone = build(arch=arch)
    assert backbone.out_channels == ((512, 1024, 2048) if wide else (128, 256, 512))
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, 32, 32))
    assert [x.shape[1] for x in maps] == list(backbone.out_channels)


def test_there_is_no_classifier() -> None:
    assert not [key for key in build().state_dict() if key.startswith("fc")]


def test_the_default_is_group_norm_from_scratch_and_frozen_batch_norm_with_weights() -> None:
    assert norms(build()) == {GroupNorm}
    assert norms(build(weights="DEFAULT")) == {FrozenBatchNorm}
    assert norms(build(norm="batch")) == {nn.BatchNorm2d}


def test_a_local_file_gives_the_features_of_torchvision(reference: Any, weights: str) -> None:
    backbone = build(weights=weights)
    backbone.load_pretrained()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for ours, theirs in zip(backbone(images), features(reference, images), strict=True):
            # Frozen norms multiply in another order: float32 rounding over 18 layers.
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("norm", ["batch", "frozen_batch"])
def test_every_tensor_of_a_file_arrives(reference: Any, weights: str, norm: str) -> None:
    backbone = build(weights=weights, norm=norm)
    backbone.load_pretrained()
    state = reference.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in backbone.state_dict().items())


def test_building_reads_no_weights_for_a_checkpoint_may_follow() -> None:
    assert norms(build(weights="there/is/no/such/file.pth")) == {FrozenBatchNorm}


@pytest.mark.parametrize(("frozen", "first_trained"), [(0, "conv1"), (1, "layer1"), (3, "layer3")])
def test_frozen_stages_have_no_gradient(frozen: int, first_trained: str) -> None:
    backbone = build(frozen_stages=frozen)
    sum(x.mean() for x in backbone(torch.randn(1, 3, 64, 64))).backward()  # type: ignore[union-attr]
    trained = [name for name, p in backbone.named_parameters() if p.grad is not None]
    assert trained[0].startswith(first_trained)
    assert trained == [name for name, p in backbone.named_parameters() if p.requires_grad]


def test_stem_and_first_layer_are_frozen_where_weights_are_given() -> None:
    assert build().frozen_stages == 0
    assert build(weights="DEFAULT").frozen_stages == 2
    assert build(weights="DEFAULT", frozen_stages=0).frozen_stages == 0
    assert not [p for p in build(frozen_stages=5).parameters() if p.requires_grad]


def test_the_batch_norms_of_frozen_stages_keep_their_statistics() -> None:
    backbone = build(norm="batch", frozen_stages=2).train()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    backbone(torch.randn(2, 3, 64, 64))
    moved = {key for key, value in backbone.state_dict().items() if not value.equal(before[key])}
    assert not [key for key in moved if key.startswith(("bn1", "layer1"))]
    assert any(key.startswith("layer2") for key in moved)
    assert not backbone.layer1.training
    assert backbone.layer2.training


@pytest.mark.parametrize("given", [-1, 6])
def test_a_number_of_stages_that_there_are_not_is_refused(given: int) -> None:
    with pytest.raises(ConfigError, match=rf"^backbone\.frozen_stages: {given} given, 0 to 5"):
        build(frozen_stages=given)


def test_group_norm_with_weights_is_refused_with_the_reason() -> None:
    with pytest.raises(
        ConfigError, match=r"^backbone\.norm: group with weights=DEFAULT.*batch norm"
    ):
        build(norm="group", weights="DEFAULT")


def test_an_unknown_name_lists_those_of_the_architecture() -> None:
    with pytest.raises(ConfigError) as caught:
        build(arch="resnet50", weights="IMAGNET1K_V1")
    message = str(caught.value)
    assert message.startswith("backbone.weights: IMAGNET1K_V1")
    assert "IMAGENET1K_V1, IMAGENET1K_V2, DEFAULT" in message
    assert "did you mean" in message


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^backbone\.weights: the file no/such\.pth"):
        build(weights="no/such.pth").load_pretrained()


@pytest.mark.parametrize("content", [b"", b"not a state dict"])
def test_a_file_of_another_kind_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(
        ConfigError, match=r"^backbone\.weights: .*weights\.pth cannot be read"
    ) as caught:
        build(weights=str(path)).load_pretrained()
    assert "weights_only" not in str(caught.value)


def test_a_file_without_names_and_tensors_is_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"model": {"conv1.weight": torch.zeros(1)}}, path)
    with pytest.raises(ConfigError, match="holds no state dict"):
        build(weights=str(path)).load_pretrained()


def test_tensors_that_do_not_fit_are_named(reference: Any, tmp_path: Path) -> None:
    state = reference.state_dict()
    del state["layer1.0.conv1.weight"]
    state["extra"] = torch.zeros(1)
    state["conv1.weight"] = torch.zeros(64, 3, 3, 3)
    path = tmp_path / "weights.pth"
    torch.save(state, path)
    with pytest.raises(ConfigError) as caught:
        build(weights=str(path)).load_pretrained()
    message = str(caught.value)
    assert "\n" not in message
    assert "1 missing (layer1.0.conv1.weight)" in message
    assert "1 unknown (extra)" in message
    assert "conv1.weight (64, 3, 3, 3) instead of (64, 3, 7, 7)" in message


def test_weights_of_another_architecture_are_refused(weights: str) -> None:
    with pytest.raises(ConfigError, match=r"for arch=resnet34: tensors do not fit: .*missing"):
        build(arch="resnet34", weights=weights).load_pretrained()


class Touch:
    """Touches a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_code_in_the_cache_of_downloads_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    cached = tmp_path / "checkpoints" / Path(ResNet18_Weights.DEFAULT.url).name
    cached.parent.mkdir()
    torch.save({"conv1.weight": Touch(tmp_path / "touched")}, cached)
    with pytest.raises(ConfigError, match=rf"{cached.name} holds more than tensors"):
        build(weights="DEFAULT").load_pretrained()
    assert not (tmp_path / "touched").exists()


def test_a_failed_download_says_where_a_file_may_be_put(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise URLError("no network")

    monkeypatch.setattr(ResNet18_Weights.DEFAULT, "get_state_dict", fail, raising=False)
    with pytest.raises(ConfigError) as caught:
        build(weights="IMAGENET1K_V1").load_pretrained()
    message = str(caught.value)
    assert message.startswith("backbone.weights: IMAGENET1K_V1 could not be downloaded")
    assert "no network" in message
    assert "https://download.pytorch.org/models/resnet18-" in message
    assert "backbone.weights=FILE" in message
