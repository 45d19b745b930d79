"""A comparison from the command to its report, on data of seconds."""

from __future__ import annotations

import csv
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from detector.config import from_plain
from detector.errors import ConfigError
from detector.laboratory.compare import search
from detector.laboratory.compare.collect import halves, require_same_images
from detector.laboratory.compare.study import Files
from detector.runs import launch
from detector.runs.launch import Job, Result
from detector.runtime.signals import SIGNALS
from detector.training.run import run
from tests.commands import Command, script
from tests.training.tiny import go, tiny

SMOKE = ("experiment=compare_smoke", "steps=2", "device=cpu", "precision=float32")
SMOKE += ("tensorboard=false", "data.num_train=10", "draws=100")


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs are trained here, without a process of their own; the names of those that were."""
    trained: list[str] = []

    def train(jobs: list[Job], folder: Path, *_: Any) -> list[Result]:
        for job in jobs:
            if launch.result_before(job, folder) is None:
                trained.append(job.name)
                words = dict(zip(job.overrides[:4:2], job.overrides[1:4:2], strict=True))
                config = Path(words["--config-path"]) / f"{words['--config-name']}.yaml"
                plain = yaml.safe_load(config.read_text())
                plain |= {"output_dir": str(folder / job.name), "resume": "auto"}
                plain["seed"] = int(job.overrides[-1].removeprefix("seed="))
                run(from_plain(plain), plain)
        return [launch.result_of(job, folder, 0) for job in jobs]

    monkeypatch.setattr(launch, "launch", train)
    return trained


def test_the_tool_trains_compares_and_does_nothing_the_second_time(tmp_path: Path) -> None:
    words = [*SMOKE, "losses=[focal,yolo]", "seeds=1", "output_dir=out"]
    first = script("compare", *words, cwd=tmp_path)
    assert first.code == 0, first.err
    files = Files(tmp_path / "out")
    results = json.loads(files.results.read_text())
    assert [(r["loss"], r["seed"], r["state"]) for r in results["runs"]] == [
        ("focal", 0, "done"),
        ("yolo", 0, "done"),
    ]
    one, other = results["runs"]
    assert one["images"] == other["images"]
    assert one["images"]
    for row in results["runs"]:
        assert [point["step"] for point in row["ap_over_training"]] == [1, 2]
        assert row["ap_over_training"][-1]["AP"] == row["AP"]
        assert row["seconds"] > 0
        assert set(row["calibration"]) >= {"raw", "temperature", "platt", "isotonic"}
        assert 0 < row["optimal_lrp"]["value"] <= 1
    table = list(csv.DictReader(files.table.read_text().splitlines()))
    assert [float(row["AP"]) for row in table] == [row["AP"] for row in results["runs"]]
    assert "One seed is too few for an interval" in files.report.read_text()
    again = script("compare", *words, cwd=tmp_path)
    assert again.code == 0, again.err
    assert "started" not in again.out
    assert json.loads(files.results.read_text()) == results
    config = yaml.safe_load((files.run("yolo", 0) / "config.yaml").read_text())
    assert config["box_loss"]["name"] == "smooth_l1"


def test_another_number_decides_without_training_anew(
    command: Command, in_process: list[str], tmp_path: Path
) -> None:
    words = [*SMOKE, "losses=[focal,ssd]", "seeds=1", "output_dir=out", "probes=false"]
    assert command("compare", *words).code == 0
    assert in_process == ["focal/seed_0", "ssd/seed_0"]
    name = "recall@fppi=10"
    outcome = command("compare", *words, f"metric={name}")
    assert outcome.code == 0, outcome.err
    assert len(in_process) == 2
    results = json.loads(Files(tmp_path / "out").results.read_text())
    assert results["metric"] == name
    for run_, row in zip(results["runs"], results["summary"], strict=True):
        assert 0 <= run_[name] <= 1
        assert row[name] == row[f"{name}_low"] == run_[name]
    (pair,) = results["comparisons"]
    assert pair["differences"] == [results["runs"][0][name] - results["runs"][1][name]]
    report = Files(tmp_path / "out").report.read_text()
    assert "difference in recall at 10 false alarms per image" in report
    outcome = command("compare", *words, "metric=class:zebra")
    assert outcome.code == 2
    assert outcome.message.startswith("metric: no class 'zebra'; allowed: ")


def test_an_arm_that_sees_other_images_ends_the_comparison(
    command: Command, in_process: list[str]
) -> None:
    losses = "losses=[focal,'ssd batch_size=2']"
    outcome = command("compare", *SMOKE, losses, "seeds=1", "output_dir=out")
    assert outcome.code == 2
    assert "error: seed 0: focal and ssd-batch_size_2 were not trained on the same images" in (
        outcome.err
    )
    assert not Path("out/results.json").exists()


def test_the_learning_rate_is_chosen_on_images_held_out_of_train(
    command: Command, in_process: list[str]
) -> None:
    words = ("losses=[focal]", "seeds=1", "lr_search=[0.5,2]", "output_dir=out")
    outcome = command("compare", *SMOKE, *words)
    assert outcome.code == 0
    assert in_process == ["focal/lr_0.5", "focal/lr_2", "focal/seed_0"]
    tried = yaml.safe_load(Path("out/search/focal/lr_2/config.yaml").read_text())
    assert tried["data"]["name"] == "held_out"
    assert tried["optim"]["lr"] == 0.004
    results = json.loads(Path("out/results.json").read_text())
    factor = results["lr_search"]["factors"]["focal"]
    chosen = yaml.safe_load(Path("out/runs/focal/seed_0/config.yaml").read_text())
    assert chosen["optim"]["lr"] == pytest.approx(0.002 * factor)
    assert chosen["data"]["name"] == "generated"


def test_a_sweep_is_a_study_a_step_with_its_measured_imbalance(
    command: Command, in_process: list[str]
) -> None:
    steps = "sweep=['data.max_objects=4 data.min_objects=4','data.max_objects=1']"
    outcome = command("compare", *SMOKE, "losses=[focal]", "seeds=1", steps, "output_dir=out")
    assert outcome.code == 0
    found = json.loads(Path("out/sweep.json").read_text())["steps"]
    assert [step["step"] for step in found] == [1, 2]
    easy, hard = (step["data"]["background_per_foreground"] for step in found)
    assert easy < hard
    assert set(found[0]["losses"]) == {"focal"}
    assert Path("out/sweep.png").stat().st_size > 1000


def test_a_signal_in_the_last_step_of_a_run_ends_the_sweep_all_the_same(
    command: Command, in_process: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train = launch.launch

    def told_too_late(*arguments: Any) -> list[Result]:
        os.kill(os.getpid(), signal.SIGTERM)
        return train(*arguments)  # which goes to its end

    monkeypatch.setattr(launch, "launch", told_too_late)
    before = [signal.getsignal(number) for number in SIGNALS]
    outcome = command("compare", *SMOKE, "losses=[focal]", "seeds=1", "sweep=['','']",
                      "output_dir=out")  # fmt: skip
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)
    assert outcome.code == 75
    assert "stopped by a signal with 0 of 1 runs left; the same command goes on" in outcome.err
    assert not Path("out/step_2").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["loss=focal"], "loss: losses=[...] says which losses take part"),
        (["losses=[]"], "losses: none given, at least one is needed"),
        (["losses=[focall]"], "loss=focall: unknown (did you mean 'focal'?); allowed: "),
        (["losses=[focal,focal]"], "losses: focal is given 2 times"),
        (["losses=[focal,'ssd loss.gamma=2']"], "loss.gamma: unknown key"),
        (["losses=['focal loss.gamma=-1']"], "loss.gamma: -1.0 given, at least 0 is needed"),
        (["seeds=0"], "seeds: 0 given, at least 1 is needed"),
        (["lr_search=[1,0]"], "lr_search: [1.0, 0.0] given, factors above 0 are needed"),
        (["lr_search=[1,1]"], "lr_search: [1.0, 1.0] given, one of them is there twice"),
        (["seed=3"], "train: seed: seeds says how many there are, from 0 on"),
        (["resume=auto"], "resume: the same command goes on by itself"),
        (["data=coco"], "data.root: has to be given"),
    ],
)
def test_a_mistake_is_answered_in_one_line(
    command: Command, tmp_path: Path, argv: list[str], message: str
) -> None:
    outcome = command("compare", *argv, "experiment=compare_smoke", "output_dir=out")
    assert outcome.code == 2
    assert outcome.message.startswith(message.removeprefix("train: "))
    assert list(tmp_path.iterdir()) == []


def test_the_same_seed_and_loss_twice_are_equal_to_the_bit(tmp_path: Path) -> None:
    first, second = (go(tiny(tmp_path / name, steps=3)) for name in ("a", "b"))
    one, other = (torch.load(f / "checkpoints/last.pt", weights_only=True) for f in (first, second))
    assert one["images"] == other["images"]
    for key, value in one["model"].items():
        assert torch.equal(value, other["model"][key]), key
    for key, value in one["ema"].items():
        assert not isinstance(value, torch.Tensor) or torch.equal(value, other["ema"][key]), key
    assert (first / "detections.json").read_bytes() == (second / "detections.json").read_bytes()


def test_another_loss_sees_the_same_images_and_another_seed_others(tmp_path: Path) -> None:
    def images(name: str, **changes: Any) -> str:
        folder = go(tiny(tmp_path / name, steps=3, **changes))
        return json.loads((folder / "status.json").read_text())["images"]

    focal = images("focal")
    assert images("ssd", loss={"name": "ssd", "weight": 1.0}) == focal
    assert images("micro", micro_batch=2) == focal
    assert images("seed", seed=1) != focal


def test_runs_that_did_not_end_are_not_asked_what_they_saw() -> None:
    done = {"loss": "a", "seed": 0, "state": "done", "images": "1"}
    failed = {"loss": "b", "seed": 0, "state": "failed", "images": None}
    require_same_images([done, failed, {**done, "seed": 1, "images": "2"}])
    with pytest.raises(ConfigError, match="seed 0: a and c were not trained on the same images"):
        require_same_images([done, failed, {**done, "loss": "c", "images": "3"}])


def test_calibrators_are_fitted_on_one_half_and_scored_on_the_other() -> None:
    chosen = halves(11)
    assert chosen.sum() == 5
    assert (chosen == halves(11)).all()
    assert not chosen[:5].all()


def test_the_best_factor_has_the_highest_ap_and_of_equal_ones_the_least_change() -> None:
    assert search.best({"0.5": 0.1, "1": 0.3, "2": 0.2}) == 1
    assert search.best({"0.5": 0.3, "1": 0.3, "2": 0.3}) == 1
    assert search.best({"0.5": 0.3, "4": 0.3}) == 0.5
    assert search.best({"0.5": None, "2": 0.0}) == 2
    with pytest.raises(ConfigError, match="lr_search: no run ended"):
        search.best({"1": None})
