"""From a config to the parts of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from detector.config import Config, from_plain
from detector.config.model import AnchorConfig
from detector.config.registry import AUGMENTATIONS, DATASETS, MATCHERS
from detector.config.schema import Plug
from detector.data.loader import evaluation_batches
from detector.errors import ConfigError, OutOfMemory
from detector.layouts import Objectness, Sigmoid, Softmax
from detector.models.anchors import AnchorGenerator
from detector.models.detector import build_detector
from detector.runtime.distributed import World
from detector.training import setup
from detector.training.setup import (
    build,
    count_steps,
    estimate_prior,
    split_batch,
    synchronized,
    with_rhythm,
)
from tests.training.tiny import tiny

WORLD = World(0, 1, torch.device("cpu"))


def config(**changes: Any) -> Config:
    return from_plain(tiny(Path("unused"), **changes))


@pytest.mark.parametrize(
    ("batch_size", "micro_batch", "world_size", "expected"),
    [(8, None, 1, (8, 1)), (8, 2, 1, (2, 4)), (8, None, 2, (4, 1)), (8, 2, 2, (2, 2))],
)
def test_a_step_is_the_batch_size_however_it_is_split(
    batch_size: int, micro_batch: int | None, world_size: int, expected: tuple[int, int]
) -> None:
    given = config(batch_size=batch_size, micro_batch=micro_batch)
    assert split_batch(given, world_size) == expected


@pytest.mark.parametrize(
    ("changes", "world_size", "message"),
    [
        ({"batch_size": 6}, 4, "batch_size: 6 given, a multiple of 4 processes"),
        ({"batch_size": 8, "micro_batch": 3}, 1, "micro_batch: 3 given, a divisor of 8"),
    ],
)
def test_a_batch_that_cannot_be_split_is_refused(
    changes: dict[str, int], world_size: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        split_batch(config(**changes), world_size)


def test_epochs_become_steps_that_see_each_image_often_enough() -> None:
    given = config(steps=None, epochs=12.0, batch_size=8)
    assert count_steps(given, 205) == 308  # 12 * 205 / 8 = 307.5


@pytest.mark.parametrize(
    ("changes", "every"),
    [
        ({}, None),  # the generated set: only at the end
        ({"data": {"name": "held_out", "of": {"name": "generated"}}}, None),
        ({"data": {"name": "coco"}}, 7),  # 50 images, 8 a step
        ({"data": {"name": "held_out", "of": {"name": "coco"}}}, 7),
        ({"data": {"name": "coco"}, "steps": 5000}, 50),  # not more than 100 times
        ({"data": {"name": "coco"}, "evaluation": {"every": 3}}, 3),
        ({"data": {"name": "coco"}, "evaluation": {"every": None}}, None),
    ],
)
def test_data_of_ones_own_are_scored_once_an_epoch_unless_it_is_said(
    changes: dict[str, Any], every: int | None
) -> None:
    assert with_rhythm(config(batch_size=8, **changes), 50).every == every


@pytest.mark.parametrize("layout", [Sigmoid(4), Softmax(4), Objectness(4)])
def test_the_prior_from_data_is_the_share_of_positives(layout: Any) -> None:
    given = config()
    dataset = DATASETS.build(given.data).read("train")
    augment = AUGMENTATIONS.build(given.augment)
    matcher = MATCHERS.build(Plug("retinanet", {}))
    anchors = AnchorGenerator(AnchorConfig())
    positives = valid = 0
    for batch, targets in evaluation_batches(dataset, augment, images_per_group=1):
        matches = matcher(anchors.for_image(*batch.images.shape[-2:]), targets, None)
        for label in matches.labels.flatten().tolist():
            positives += label >= 0
            valid += label >= -1
    outputs = 4 if isinstance(layout, Sigmoid) else 1
    prior = estimate_prior(dataset, augment, anchors, matcher, layout)
    assert prior == pytest.approx(positives / (valid * outputs))


def test_the_prior_from_data_is_saved_as_a_number_and_sets_the_bias() -> None:
    plain = tiny(Path("unused"), prior="from_data")
    setup, state = build(from_plain(plain), plain, WORLD)
    prior = setup.plain["prior"]
    assert isinstance(prior, float)
    assert 0 < prior < 0.01
    bias = state.model.head.class_outputs.bias
    torch.testing.assert_close(bias.sigmoid(), torch.full_like(bias, prior), rtol=1e-4, atol=0)


def test_the_same_seed_makes_the_same_model() -> None:
    plain = tiny(Path("unused"))
    first, second = (build(from_plain(plain), plain, WORLD)[1].model for _ in range(2))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": {"name": "focal", "gamma": -1.0}}, r"loss\.gamma: -1\.0"),
        ({"optim": {"name": "adamw", "lr": 0.0}}, r"optim\.lr: 0\.0"),
    ],
)
def test_a_wrong_value_is_answered_before_the_data_are_read(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    plain = tiny(tmp_path, data={"name": "coco", "root": str(tmp_path / "nowhere")}, **changes)
    with pytest.raises(ConfigError, match=message):
        build(from_plain(plain), plain, WORLD)


def test_a_threshold_from_the_prior_is_a_number_in_the_saved_config() -> None:
    model = {"fpn": {"channels": 16}, "head": {"channels": 16, "num_convs": 1}}
    plain = tiny(Path("unused"), model=model | {"postprocess": {"score_threshold": "from_prior"}})
    setup, _ = build(from_plain(plain), plain, WORLD)
    # Four classes, each with a probability of 0.01 before training.
    assert setup.config.model.postprocess.score_threshold == pytest.approx(0.04)
    assert setup.plain["model"]["postprocess"] == {"score_threshold": pytest.approx(0.04)}
    assert plain["model"]["postprocess"] == {"score_threshold": "from_prior"}
    assert from_plain(setup.plain).model.postprocess == setup.config.model.postprocess


class TestSynchronizedBatchNorm:
    """Of several GPUs only the structure can be tried without them."""

    LIVE = Plug("resnet", {"arch": "resnet18", "norm": "batch"})

    def model(self, tmp_path: Path, backbone: Plug) -> tuple[Any, Config]:
        config = replace(from_plain(tiny(tmp_path)), backbone=backbone, sync_batchnorm=True)
        return build_detector(backbone, config.model, Sigmoid(2), 0.01), config

    def kinds(self, model: nn.Module) -> set[type[nn.Module]]:
        return {type(m) for m in model.modules() if isinstance(m, nn.modules.batchnorm._NormBase)}

    def test_live_batch_norm_of_several_gpus_is_replaced(self, tmp_path: Path) -> None:
        model, config = self.model(tmp_path, self.LIVE)
        assert self.kinds(model) == {nn.BatchNorm2d}
        before = model.state_dict()
        one = synchronized(model, config, World(0, 1, torch.device("cuda", 0)))
        assert self.kinds(one) == {nn.BatchNorm2d}
        two = synchronized(model, config, World(1, 2, torch.device("cuda", 1)))
        assert self.kinds(two) == {nn.SyncBatchNorm}
        assert two.state_dict().keys() == before.keys()  # so checkpoints fit either way
        off = replace(config, sync_batchnorm=False)
        model, _ = self.model(tmp_path, self.LIVE)
        assert synchronized(model, off, World(0, 2, torch.device("cuda", 0))) is model
        assert self.kinds(model) == {nn.BatchNorm2d}

    def test_it_is_refused_where_it_cannot_be(self, tmp_path: Path) -> None:
        cpu = World(0, 2, torch.device("cpu"))
        with pytest.raises(ConfigError, match="device is cpu; a GPU is needed"):
            synchronized(*self.model(tmp_path, self.LIVE), cpu)
        group = Plug("resnet", {"arch": "resnet18"})
        with pytest.raises(ConfigError, match="the model has no live batch norm"):
            synchronized(*self.model(tmp_path, group), World(0, 2, torch.device("cuda", 0)))

    def test_batch_norms_of_another_library_are_not_replaced(self, tmp_path: Path) -> None:
        """timm's has the activation in it, which torch's would lose."""
        pytest.importorskip("timm")
        gpu = World(0, 2, torch.device("cuda", 0))
        live = Plug("timm", {"arch": "test_efficientnet"})
        with pytest.raises(ConfigError, match="BatchNormAct2d in place of torch's"):
            synchronized(*self.model(tmp_path, live), gpu)
        frozen = Plug("timm", {"arch": "test_efficientnet", "norm": "frozen_batch"})
        with pytest.raises(ConfigError, match="the model has no live batch norm"):
            synchronized(*self.model(tmp_path, frozen), gpu)


def test_a_model_that_finds_no_memory_names_the_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What torch's allocator says: a run under a limit of the system is in tests/outsider.
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")

    monkeypatch.setattr(setup, "build_detector", refuse)
    plain = tiny(tmp_path)
    with pytest.raises(OutOfMemory, match=r"while the model is made; .*model\.fpn\.channels"):
        build(from_plain(plain), plain, WORLD)
