"""The real yaml files, composed: they hold every key of the code, and nothing else."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import hydra
import pytest
import yaml
from omegaconf import OmegaConf

from detector.config import Config, LoaderConfig, check_parts, from_plain
from detector.config.compose import from_omegaconf, plain_values, to_yaml
from detector.config.model import FPNConfig, ModelConfig
from detector.config.registry import REGISTRIES
from detector.config.schema import LossPlug, Plug, options_of
from tests.shipped import is_a_strangers

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs"

STUDIES = {"imbalance_sweep"}
"""Presets that say who takes part in a comparison: for `tools/compare.py` alone."""

OPTIONS = sorted(
    (folder.name, file.stem)
    for folder in CONFIGS.iterdir()
    if folder.is_dir()
    for file in folder.glob("*.yaml")
    if file.stem not in STUDIES
)
PARTS = [(group, option) for group, option in OPTIONS if group in REGISTRIES]

CONTEXT: dict[str, tuple[Any, ...]] = {"loss": (3,), "neck": ((8, 16, 32), FPNConfig(channels=16))}
"""What is passed to a part before its options: to a loss the number of classes, to a neck the
channels of a backbone."""

CHOICES = {
    "arch", "root", "min_size", "max_size", "horizontal_flip", "scale_jitter", "color",
}  # fmt: skip
"""Options in which files for one class differ, or that have to be given."""


@pytest.fixture(autouse=True)
def in_configs() -> Iterator[None]:
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        yield


def compose(*overrides: str) -> dict[str, Any]:
    """Plain values of the composed config; what has to be given is given."""
    node = hydra.compose("train", [*overrides])
    for key in OmegaConf.missing_keys(node):
        OmegaConf.update(node, key, "/somewhere")
    return plain_values(node)


class TestEveryOption:
    @pytest.mark.parametrize(("group", "option"), OPTIONS)
    def test_composes_to_a_valid_config(self, group: str, option: str) -> None:
        check_parts(from_plain(compose(f"{group}={option}")))

    @pytest.mark.parametrize(("group", "option"), PARTS)
    def test_of_a_part_builds_it(self, group: str, option: str) -> None:
        plug = getattr(from_plain(compose(f"{group}={option}")), group)
        part = REGISTRIES[group].build(plug, *CONTEXT.get(group, ()))
        assert type(part) is REGISTRIES[group].get(plug.name)

    @pytest.mark.parametrize(("group", "option"), PARTS)
    def test_of_a_part_holds_every_option_of_its_class(self, group: str, option: str) -> None:
        values = compose(f"{group}={option}")[group]
        own = {"name", "weight"} if group in ("loss", "box_loss") else {"name"}
        assert set(values) == own | set(options_of(REGISTRIES[group].get(values["name"])))

    @pytest.mark.parametrize(("group", "option"), PARTS)
    def test_of_a_part_holds_the_defaults_of_its_class(self, group: str, option: str) -> None:
        """So that a yaml, the code and the documentation of the code say the same."""
        plug = getattr(from_plain(compose(f"{group}={option}")), group)
        cls = REGISTRIES[group].get(plug.name)
        options = options_of(cls)
        given = {k: v for k, v in REGISTRIES[group].check(plug).items() if k not in CHOICES}
        assert given == {key: options[key].default for key in given}
        assert getattr(plug, "weight", 1.0) == 1.0

    def test_has_a_class_and_every_class_has_one(self) -> None:
        for group, registry in REGISTRIES.items():
            files = [yaml.safe_load(f.read_text()) for f in (CONFIGS / group).glob("*.yaml")]
            names = {values.get(group, values)["name"] for values in files}
            assert names == set(registry.names)


class TestTrain:
    def test_holds_every_key_of_the_schema(self) -> None:
        assert keys(compose()) == keys_of(Config)

    @pytest.mark.parametrize("key", ["evaluation", "ema", "loader"])
    def test_holds_the_defaults_of_the_schema(self, key: str) -> None:
        defaults = {field.name: field.default for field in fields(Config)}
        assert compose()[key] == asdict(defaults[key])  # type: ignore[call-overload]

    def test_holds_the_plain_defaults_of_the_schema(self) -> None:
        values = compose()
        for field in fields(Config):
            if not isinstance(values[field.name], dict) and field.name != "steps":
                default = list(d) if isinstance(d := field.default, tuple) else d
                assert values[field.name] == default, field.name

    def test_the_full_model_is_that_of_the_schema(self) -> None:
        config = from_plain(compose("model=full"))
        assert config.model == ModelConfig()

    def test_every_key_is_explained_in_its_line(self) -> None:
        """Presets and `small` set keys that are explained where they are defined; a part that is
        not shipped may explain itself elsewhere."""
        for file in CONFIGS.rglob("*.yaml"):
            if "experiment" in file.parts or file.stem in ("small", "one_anchor"):
                continue
            if is_a_strangers(file.parent.name, file.stem):
                continue
            for line in file.read_text().splitlines():
                match = re.match(r"[ -]*([\w/ ]+): +[^ #]", line)
                if match and "- override" not in line and match[1] not in ("name", "arch"):
                    assert "  # " in line, f"{file}: {line}"

    def test_config_yaml_reads_back_as_it_was(self) -> None:
        values = compose()
        assert yaml.safe_load(to_yaml(values)) == values
        assert from_plain(yaml.safe_load(to_yaml(values))) == from_plain(values)

    def test_the_failing_experiment_of_plain_cross_entropy_composes(self) -> None:
        config, _ = from_omegaconf(
            hydra.compose("train", ["loss=cross_entropy", "prior=0.5", "optim=sgd", "clip=null"])
        )
        assert (config.loss.name, config.optim.name) == ("cross_entropy", "sgd")
        assert (config.prior, config.clip) == (0.5, None)

    def test_options_are_overrides(self) -> None:
        values = compose(
            "loss.gamma=1", "loss.alpha=0.5", "box_loss=giou", "backbone=resnet50", "data=coco",
            "data.root=/data/coco",
        )  # fmt: skip
        assert (values["loss"]["gamma"], values["loss"]["alpha"]) == (1, 0.5)
        assert (values["box_loss"]["name"], values["backbone"]["arch"]) == ("giou", "resnet50")
        assert values["data"]["root"] == "/data/coco"


class TestSwappingTheLoss:
    @pytest.mark.parametrize("loss", [name for group, name in OPTIONS if group == "loss"])
    def test_changes_the_loss_and_nothing_else(self, loss: str) -> None:
        before, after = compose("loss=focal"), compose(f"loss={loss}")
        changed = {key for key in before.keys() | after.keys() if before[key] != after[key]}
        expected = {
            "focal": set(),
            "yolo": {"loss", "box_loss"},
            "yolo_v1": {"loss", "box_loss", "matcher", "normalizer"},
        }
        assert changed == expected.get(loss, {"loss"})

    def test_brings_the_box_loss_of_yolo_along(self) -> None:
        assert compose("loss=yolo")["box_loss"] == compose("box_loss=yolo")["box_loss"]

    def test_brings_all_that_is_published_along_with_yolo_v1(self) -> None:
        values = compose("loss=yolo_v1")
        assert values["box_loss"] == compose("box_loss=yolo")["box_loss"]
        assert values["matcher"] == compose("matcher=yolo_cell")["matcher"]
        assert values["normalizer"] == "images"

    def test_keeps_what_is_asked_for_beside_yolo_v1(self) -> None:
        asked = ["box_loss=giou", "matcher=atss", "normalizer=positives"]
        for overrides in (["loss=yolo_v1", *asked], [*asked, "loss=yolo_v1"]):
            values = compose(*overrides)
            assert values["loss"]["name"] == "yolo_v1"
            assert (values["box_loss"]["name"], values["matcher"]["name"]) == ("giou", "atss")
            assert values["normalizer"] == "positives"

    @pytest.mark.parametrize(
        "overrides", [["loss=yolo", "box_loss=giou"], ["box_loss=giou", "loss=yolo"]]
    )
    def test_keeps_the_box_loss_that_is_asked_for(self, overrides: list[str]) -> None:
        values = compose(*overrides)
        assert (values["loss"]["name"], values["box_loss"]["name"]) == ("yolo", "giou")

    def test_takes_a_weight(self) -> None:
        config = from_plain(compose("loss=ssd", "loss.weight=2", "box_loss.weight=0.5"))
        assert (config.loss.weight, config.box_loss.weight) == (2.0, 0.5)
        assert "weight" not in config.loss.options


class TestPresets:
    def test_an_experiment_beats_the_defaults_and_the_command_beats_it(self) -> None:
        assert compose("experiment=smoke")["steps"] == 8
        assert compose("experiment=smoke", "steps=3")["steps"] == 3
        assert compose("experiment=smoke", "loss=ssd")["loss"]["name"] == "ssd"

    def test_coco_r50_1x_is_the_published_recipe(self) -> None:
        config = from_plain(compose("experiment=coco_r50_1x"))
        assert (config.steps, config.batch_size) == (90_000, 16)
        assert config.optim.options["lr"] == 0.01
        milestones = config.schedule.options["milestones"]
        assert [round(90_000 * share) for share in milestones] == [60_000, 80_000]
        assert round(90_000 * config.schedule.options["warmup_share"]) == 1000
        assert config.model == ModelConfig()
        assert config.backbone.options["weights"] == "IMAGENET1K_V1"
        assert config.augment.options["min_size"] == 800
        assert config.augment.options["max_size"] == 1333

    @pytest.mark.parametrize(("name", "epochs", "size"), [("320", 12, 320), ("416", 36, 416)])
    def test_bccd_is_the_comparison_that_is_stated(self, name: str, epochs: int, size: int) -> None:
        config = from_plain(compose(f"experiment=bccd_{name}"))
        assert (config.epochs, config.steps, config.batch_size) == (float(epochs), None, 8)
        assert config.augment.options["max_size"] == size
        assert config.data.options["on_invalid"] == "drop"
        assert (config.backbone.options["arch"], config.backbone.options["weights"]) == (
            "resnet18",
            None,
        )
        assert (config.model.head.channels, config.model.head.num_convs) == (256, 4)

    @pytest.mark.parametrize(
        ("name", "epochs", "size"), [("fast", 6.0, 320), ("accurate", 12.0, 640)]
    )
    def test_a_preset_for_own_data_is_what_the_recipe_says(
        self, name: str, epochs: float, size: int
    ) -> None:
        """docs/recipe.md states what was measured with these."""
        config = from_plain(compose(f"experiment={name}"))
        assert (config.epochs, config.steps, config.batch_size) == (epochs, None, 8)
        assert config.augment.options["max_size"] == size
        backbone = config.backbone.options
        assert (backbone["arch"], backbone["weights"]) == ("mobilenet_v2", "IMAGENET1K_V1")
        assert (backbone["norm"], backbone["frozen_stages"]) == ("auto", 0)
        parts = (config.matcher.name, config.loss.name, config.box_loss.name, config.neck.name)
        assert parts == ("atss", "quality_focal", "giou", "fpn")
        anchors = config.model.anchors
        assert (anchors.size, anchors.scales, anchors.ratios) == (2.0, (1.0,), (1.0,))
        assert (config.model.head.channels, config.model.head.num_convs) == (128, 4)
        assert (config.model.head.norm, config.model.fpn.channels) == ("group", 128)
        assert (config.optim.name, config.optim.options["lr"]) == ("adamw", 1e-3)

    def test_coco_with_atss_is_the_published_recipe_but_for_what_it_names(self) -> None:
        before, after = (compose(f"experiment=coco_r50_{x}1x") for x in ("", "atss_"))
        changed = {key for key in before if before[key] != after[key]}
        assert changed == {"matcher", "box_loss", "model"}
        assert after["model"]["head"]["norm"] == "group"
        assert after["box_loss"] == {"name": "giou", "weight": 2.0}

    def test_overfitting_scores_the_images_it_trains_on(self) -> None:
        """Also where they are named on the command line."""
        values = compose("experiment=overfit_coco128", "data.train_images=elsewhere")
        options = from_plain(values).data.options
        assert options["train_annotations"] == options["val_annotations"]
        assert options["train_images"] == options["val_images"]
        assert (options["limit_train"], options["limit_val"]) == (16, 16)


class TestLoader:
    def test_takes_the_processors_it_may_use_less_one(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for allowed, expected in ((1, 0), (4, 3), (64, 8)):
            processors = set(range(allowed))
            monkeypatch.setattr(os, "sched_getaffinity", lambda _, p=processors: p, raising=False)
            assert LoaderConfig().workers == expected

    def test_takes_those_of_the_machine_where_the_system_cannot_tell(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delattr(os, "sched_getaffinity", raising=False)
        monkeypatch.setattr(os, "cpu_count", lambda: 3)
        assert LoaderConfig().workers == 2


def keys(values: dict[str, Any], *, depth: int = 0) -> set[str]:
    """Dotted keys; parts are opaque."""
    found: set[str] = set()
    for key, value in values.items():
        is_node = isinstance(value, dict) and "name" not in value
        found |= {f"{key}.{inner}" for inner in keys(value, depth=depth + 1)} if is_node else {key}
    return found


def keys_of(cls: type) -> set[str]:
    """The same of a dataclass."""
    found: set[str] = set()
    for field in fields(cls):
        if is_dataclass(field.default) and not isinstance(field.default, Plug | LossPlug):
            found |= {f"{field.name}.{inner}" for inner in keys_of(type(field.default))}
        else:
            found.add(field.name)
    return found
