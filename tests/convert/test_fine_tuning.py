"""`weights=FILE`: training starts from the weights of others, on other classes."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torchvision.models import resnet18

from detector.config import Config, from_plain
from detector.config.registry import LOSSES
from detector.convert.coco import CLASSES
from detector.convert.convert import convert
from detector.convert.sources import SourceName
from detector.errors import ConfigError
from detector.layouts import Layout
from detector.models.detector import Detector, build_detector
from detector.runs import checkpoint
from detector.training.weights import start_from
from tests.commands import Command
from tests.convert.foreign import empty, preset, save_state
from tests.convert.inverse import theirs_of

CLASS_LAYER = ("head.class_outputs.weight", "head.class_outputs.bias")
FOUR = ("cat", "dog", "bird", "fish")
NUM_BACKBONE = 100
"""Tensors of ResNet-18 without its classifier: 20 convolutions, and four of each norm's."""

RUN = (
    "backbone=resnet18", "data=generated", "data.num_train=4", "data.num_val=2",
    "data.image_size=64", "augment.min_size=64", "augment.max_size=64", "steps=1", "batch_size=2",
    "precision=float32", "device=cpu", "loader.num_workers=0", "tensorboard=false",
    "ema.enabled=false", "output_dir=run",
)  # fmt: skip


@pytest.fixture(scope="module", params=get_args(SourceName))
def converted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A source and the checkpoint of a file of theirs, with ResNet-18 to be quick."""
    return request.param, make_checkpoint(request.param, tmp_path_factory.mktemp(request.param))


def make_checkpoint(source: SourceName, folder: Path) -> Path:
    torch.manual_seed(1)
    model, plain = empty(source, "backbone=resnet18")
    theirs = theirs_of(source, model.state_dict())
    path, output = folder / "theirs.pth", folder / "ours.pt"
    if source == "detectron2":
        path = folder / "theirs.pkl"
        arrays = {name: value.numpy() for name, value in theirs.items()}
        path.write_bytes(pickle.dumps({"model": arrays, "__author__": "test"}))
    else:
        torch.save({"meta": {"epoch": 12}, "state_dict": theirs}, path)
    convert(source, str(path), str(output), plain)
    return output


def new_model(
    source: str, loss: str = "focal", num_classes: int = 4
) -> tuple[Detector, Config, Layout]:
    """As a run makes it before it looks at `weights`."""
    config = from_plain(preset(source, "backbone=resnet18", f"loss={loss}"))
    layout = LOSSES.build(config.loss, num_classes).layout
    torch.manual_seed(2)
    model = build_detector(config.backbone, config.model, layout, 0.01, pretrained=False)
    return model, config, layout


def copied(model: Detector) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def counts(table: str) -> dict[str, tuple[int, int]]:
    """Tensors and loaded ones of each part."""
    rows = [line.split() for line in table.splitlines()[1:] if not line.startswith("differs")]
    return {row[0]: (int(row[1]), int(row[2])) for row in rows}


def test_all_but_the_class_layer_is_kept(converted: tuple[Any, Path]) -> None:
    source, path = converted
    model, config, layout = new_model(source)
    before, saved = copied(model), checkpoint.load(path)["model"]
    table = start_from(str(path), model, config, layout, FOUR)
    for name, value in model.state_dict().items():
        wanted = before[name] if name in CLASS_LAYER else saved[name]
        assert torch.equal(value, wanted), name
    assert not torch.equal(before["fpn.p6.weight"], saved["fpn.p6.weight"])
    lines = {line.split()[0]: line for line in table.splitlines()}
    assert lines["head.class_outputs"].endswith(
        " 2       0  made anew: for 4 classes; those of the file are 80 others"
    )
    found = counts(table)
    assert found.pop("head.class_outputs") == (2, 0)
    assert found["backbone"] == (NUM_BACKBONE, NUM_BACKBONE)
    assert all(loaded == num > 0 for num, loaded in found.values())
    assert set(found) == {
        "backbone",
        "fpn",
        "head.class_tower",
        "head.box_tower",
        "head.box_outputs",
    }
    assert "differs" not in table


def test_the_same_classes_keep_their_layer_and_other_layouts_do_not(
    converted: tuple[Any, Path],
) -> None:
    source, path = converted
    model, config, layout = new_model(source, num_classes=80)
    table = start_from(str(path), model, config, layout, CLASSES)
    saved = checkpoint.load(path)["model"]
    assert all(torch.equal(model.state_dict()[name], saved[name]) for name in saved)
    assert counts(table)["head.class_outputs"] == (2, 2)
    model, config, layout = new_model(source, loss="softmax_focal", num_classes=80)
    table = start_from(str(path), model, config, layout, CLASSES)
    assert counts(table)["head.class_outputs"] == (2, 0)
    assert "made anew: for loss=softmax_focal, whose outputs mean something else" in table


def test_another_preset_is_told_what_differs(tmp_path: Path) -> None:
    """It fits in every shape, and would see the images otherwise."""
    path = make_checkpoint("mmdet", tmp_path)
    model, config, layout = new_model("detectron2")
    table = start_from(str(path), model, config, layout, FOUR)
    assert "differs: model.fpn.p7_relu was False, is True" in table
    assert "differs: model.coder.clamp was both, is upper" in table
    assert "differs: backbone.norm was fixed_batch, is frozen_batch" in table


def test_another_model_is_refused_and_its_tensors_named(tmp_path: Path) -> None:
    path = make_checkpoint("torchvision_v2", tmp_path)
    model, config, layout = new_model("torchvision_v1")
    before = copied(model)
    with pytest.raises(ConfigError) as caught:
        start_from(str(path), model, config, layout, FOUR)
    message = str(caught.value)
    assert re.search(r"do not fit: .*of another shape \(.*fpn\.p6\.weight", message)
    assert "differs: model.fpn.p6_source was c5, is p5" in message  # what it was made with
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_train_starts_from_a_converted_file(tmp_path: Path, command: Command) -> None:
    path = make_checkpoint("detectron2", tmp_path)
    done = command("train", "model=detectron2", f"weights={path}", *RUN)
    assert done.code == 0, done.err
    assert f"backbone                 {NUM_BACKBONE}     {NUM_BACKBONE}" in done.out
    assert "made anew: for 4 classes; those of the file are 80 others" in done.out
    saved, trained = (checkpoint.load(p)["model"] for p in (path, Path("run/checkpoints/last.pt")))
    frozen = [n for n in saved if n.startswith(("backbone.conv1", "backbone.layer1"))]
    assert frozen
    assert all(torch.equal(saved[name], trained[name]) for name in frozen)
    assert not torch.equal(saved["fpn.p6.weight"], trained["fpn.p6.weight"])
    # One step of AdamW moves no weight by more than about its rate; drawn anew it would be far.
    assert (saved["fpn.p6.weight"] - trained["fpn.p6.weight"]).abs().max() < 1e-2


def test_train_starts_from_a_classifier_of_torchvision(tmp_path: Path, command: Command) -> None:
    """Only the backbone is loaded; the last layer for 1000 classes is passed over."""
    torch.manual_seed(3)
    state = resnet18(weights=None).state_dict()
    for name, value in state.items():
        if name.endswith("running_mean"):
            value.uniform_(-0.1, 0.1)
    weights = save_state(tmp_path / "resnet18.pth", state)
    options = ("model=small", "backbone.norm=frozen_batch", "backbone.frozen_stages=5")
    done = command("train", f"weights={weights}", *options, *RUN)
    assert done.code == 0, done.err
    found = counts(
        "\n".join(
            x for x in done.out.splitlines() if x.startswith(("weights ", "back", "fpn ", "head."))
        )
    )
    assert found.pop("backbone") == (NUM_BACKBONE, NUM_BACKBONE)
    assert found
    assert all(loaded == 0 < num for num, loaded in found.values())
    assert "made anew: the file has none" in done.out
    trained = checkpoint.load(Path("run/checkpoints/last.pt"))["model"]
    names = [name for name in state if not name.startswith("fc.") and "num_batches" not in name]
    assert all(torch.equal(trained[f"backbone.{name}"], state[name]) for name in names)
