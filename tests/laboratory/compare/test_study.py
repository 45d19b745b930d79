"""Arms differ in their loss and in nothing that was not asked for."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
import pytest
import yaml
from omegaconf import OmegaConf

from detector.config import check_parts, from_plain
from detector.config.compose import plain_values
from detector.config.registry import LOSSES
from detector.errors import ConfigError
from detector.laboratory.compare import study
from detector.laboratory.compare.study import Plain, arms_of
from tests.commands import ROOT
from tests.training.tiny import TINY, go

OWN = {"losses", "seeds", "parallel", "points", "lr_search", "draws", "metric"}
OWN |= {"sweep", "probes"}
SMALL = (
    *("augment", "backbone", "data", "loader", "device", "precision"),
    *("tensorboard", "log_every", "save_every"),
)
TABLES = sorted(path.stem for path in (ROOT / "configs/experiment/focal_paper").glob("table*.yaml"))


@pytest.fixture
def compose() -> Iterator[Callable[[Sequence[str]], Plain]]:
    with hydra.initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):

        def call(words: Sequence[str]) -> Plain:
            node = hydra.compose("compare", [*words])
            for key in OmegaConf.missing_keys(node):
                OmegaConf.update(node, key, "/somewhere")
            return plain_values(node)

        yield call


def of_run(values: Plain) -> Plain:
    return {key: value for key, value in values.items() if key not in OWN}


def conditions(entry: str, compose: Any, *common: str) -> Plain:
    (arm,) = arms_of([entry])
    base = of_run(compose(common))
    return study.conditions(arm, lambda words: of_run(compose([*common, *words])), base)


@pytest.mark.parametrize("loss", LOSSES.names)
def test_an_arm_differs_from_the_others_in_its_loss_alone(loss: str, compose: Any) -> None:
    """Also yolo, whose yaml brings its box loss along, and yolo_v1, which brings three parts."""
    base = of_run(compose([]))
    arm = conditions(loss, compose)
    assert {key for key in base if arm[key] != base[key]} <= {"loss"}
    assert arm["loss"]["name"] == loss


def test_an_arm_gets_what_it_asks_for_itself(compose: Any) -> None:
    arm = conditions("yolo box_loss=yolo loss.lambda_noobj=0.05 prior=0.5", compose)
    assert (arm["box_loss"]["name"], arm["prior"]) == ("yolo", 0.5)
    assert arm["loss"]["lambda_noobj"] == 0.05


def test_what_the_command_says_holds_for_all(compose: Any) -> None:
    for loss in ("yolo", "focal"):
        arm = conditions(loss, compose, "box_loss=giou", "steps=7")
        assert (arm["box_loss"]["name"], arm["steps"]) == ("giou", 7)


def test_arms_are_named_by_their_words() -> None:
    names = [arm.name for arm in arms_of(["focal", "yolo loss.lambda_noobj=0.05"])]
    assert names == ["focal", "yolo-loss.lambda_noobj_0.05"]


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (["focal", "focal"], "losses: focal is given 2 times"),
        (["loss=focal"], "losses: 'loss=focal' has to begin with a loss"),
        ([" "], "losses: ' ' has to begin with a loss"),
        (["focal gamma"], "losses: 'gamma' in 'focal gamma' is not written KEY=VALUE"),
        (["focal seed=3"], "losses: seed in 'focal seed=3' is for the whole study"),
        (["focal experiment=x"], "losses: experiment in 'focal experiment=x' is for the whole"),
    ],
)
def test_arms_that_cannot_be_are_refused(losses: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        arms_of(losses)
    assert str(error.value).startswith(message)


def test_evaluations_are_spread_over_the_run_unless_the_config_says_when() -> None:
    plain = {"evaluation": {"every": None}}
    assert study.with_rhythm(plain, 250, 6)["evaluation"]["every"] == 42  # 42, 84 .. 210, 250
    assert study.with_rhythm(plain, 3, 6)["evaluation"]["every"] == 1
    assert study.with_rhythm({"evaluation": {"every": 7}}, 250, 6)["evaluation"]["every"] == 7
    assert plain == {"evaluation": {"every": None}}


def test_a_config_is_written_so_that_train_reads_it_back(compose: Any, tmp_path: Path) -> None:
    plain = of_run(compose(["loss=ssd"]))
    study.write_config(plain, tmp_path, "ssd")
    assert yaml.safe_load((tmp_path / "ssd.yaml").read_text()) == plain


def test_another_config_under_the_same_name_is_refused(compose: Any, tmp_path: Path) -> None:
    folder = tmp_path / "configs"
    study.write_config(of_run(compose([])), folder, "focal")
    study.write_config(of_run(compose(["log_every=3"])), folder, "focal")  # learns the same
    with pytest.raises(ConfigError, match="another config of focal: steps: 1000 -> 7; another"):
        study.write_config(of_run(compose(["steps=7"])), folder, "focal")


def test_a_factor_is_on_the_learning_rate() -> None:
    plain = {"optim": {"lr": 0.002}}
    assert study.with_factor(plain, 0.5) == {"optim": {"lr": 0.001}}
    assert plain == {"optim": {"lr": 0.002}}


KNOWN: dict[str, list[Plain]] = {}
"""Tables that were composed before: each takes seconds."""


def rows(table: str, compose: Any) -> list[Plain]:
    """The plain configs of a table's rows."""
    if table not in KNOWN:
        common = f"experiment=focal_paper/{table}"
        KNOWN[table] = [conditions(e, compose, common) for e in compose([common])["losses"]]
    return KNOWN[table]


class TestFocalPaper:
    """The published tables as presets."""

    def test_all_six_are_there(self) -> None:
        assert TABLES == ["table1a", "table1b", "table1c", "table1d", "table1e", "table3"]

    @pytest.mark.parametrize("table", TABLES)
    def test_every_row_has_a_config_whose_parts_can_be_built(
        self, table: str, compose: Any
    ) -> None:
        for row in rows(table, compose):
            config = from_plain(row)
            check_parts(config)
            LOSSES.build(config.loss, 80)
            assert (config.steps, config.batch_size, config.prior) == (90_000, 16, 0.01)
            assert config.augment.options["min_size"] in (400, 500, 600, 700, 800)

    def test_a_row_is_a_row_of_the_table(self, compose: Any) -> None:
        assert [r["loss"]["alpha"] for r in rows("table1a", compose)] == [
            0.1,
            0.25,
            0.5,
            0.75,
            0.9,
            0.99,
            0.999,
        ]
        assert [r["loss"]["gamma"] for r in rows("table1b", compose)] == [0, 0.1, 0.2, 0.5, 1, 2, 5]
        anchors = [r["model"]["anchors"] for r in rows("table1c", compose)]
        shapes = [(len(a["scales"]), len(a["ratios"])) for a in anchors]
        assert shapes == [(1, 1), (2, 1), (3, 1), (1, 3), (2, 3), (3, 3), (4, 3)]
        mined = rows("table1d", compose)
        assert {r["backbone"]["arch"] for r in mined} == {"resnet101"}
        assert [r["loss"].get("num_hard") for r in mined] == [128, 256, 512] * 3 + [None]
        sizes = rows("table1e", compose)
        assert [r["augment"]["min_size"] for r in sizes] == [400, 500, 600, 700, 800] * 2
        depths = [r["backbone"]["arch"] for r in sizes]
        assert depths == ["resnet50"] * 5 + ["resnet101"] * 5
        assert [r["loss"]["name"] for r in rows("table3", compose)] == [
            *("balanced_cross_entropy", "focal", "focal_star", "focal_star"),
        ]

    @pytest.mark.parametrize("table", TABLES)
    def test_every_row_trains_a_step(self, table: str, compose: Any, tmp_path: Path) -> None:
        """On a thin model and small generated images; what differs in nothing else runs once."""
        differs = {}
        for row in rows(table, compose):
            small = row | {key: TINY[key] for key in SMALL}
            small["model"] = copy.deepcopy(row["model"])
            small["model"]["fpn"]["channels"] = small["model"]["head"]["channels"] = 16
            differs[json.dumps(small, sort_keys=True)] = small
        assert len(differs) == {"table1d": 10, "table1e": 1, "table3": 4}.get(table, 7)
        for i, small in enumerate(differs.values()):
            step = {"steps": 1, "batch_size": 2, "output_dir": str(tmp_path / str(i))}
            folder = go(small | step)
            (line,) = (folder / "log.jsonl").read_text().splitlines()
            assert math.isfinite(json.loads(line)["loss"])


def test_the_sweep_gets_harder_and_each_step_composes(compose: Any) -> None:
    values = compose(["experiment=imbalance_sweep"])
    assert len(values["sweep"]) >= 4
    for step in values["sweep"]:
        check_parts(from_plain(of_run(compose(["experiment=imbalance_sweep", *step.split()]))))
