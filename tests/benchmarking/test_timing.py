"""Timing beside torchvision: the same work for both, and what is made of the seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarking import timing
from benchmarking.report import page, table
from benchmarking.timing import Timing, Turns, summary, take_turns
from benchmarking.workload import Workload, synthetic_batch

from detector.config import from_plain
from detector.errors import DataError
from tests.commands import Command
from tests.training.tiny import tiny

CPU = torch.device("cpu")
SMALL = [
    "model=small",
    "backbone=resnet18",
    "backbone.norm=group",
    "backbone.frozen_stages=0",
    "model.fpn.channels=32",
    "model.head.channels=32",
    "batch_size=2",
    "benchmark.height=64",
    "benchmark.width=96",
    "benchmark.classes=3",
    "benchmark.objects=2",
    "benchmark.warmup=0",
    "benchmark.rounds=2",
    "benchmark.steps=1",
]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("benchmark") / "found" / "small.json"
    from tests.commands import script

    done = script("benchmark", *SMALL, f"benchmark.output={path}", cwd=path.parent.parent)
    assert done.code == 0, done.err
    return json.loads(path.read_text())


def test_a_run_times_both_in_training_and_inference(result: dict[str, Any]) -> None:
    for kind in ("training", "inference"):
        for name in ("detector", "torchvision"):
            seconds = result[kind][name]["seconds"]
            assert len(seconds) == 2
            assert min(seconds) > 0
    assert result["settings"]["image"] == [64, 96]
    assert result["hardware"]["gpu"] is None
    assert result["versions"]["torch"] == torch.__version__
    assert "benchmark.height=64" in result["command"]


def test_the_page_states_hardware_versions_and_command_beside_the_figures(
    result: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "a.json").write_text(json.dumps(result))
    text = page(tmp_path)
    for words in (result["command"], result["hardware"]["processor"], "torch " + torch.__version__):
        assert words in text
    assert f"{result['training']['detector']['median']:.4f} s" in text
    assert "resnet18, 64 x 96, batch 2" in table(result)


def test_a_folder_without_results_and_a_file_that_is_none_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no results"):
        page(tmp_path)
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(DataError, match=r"other.json: not a result"):
        page(tmp_path)


def test_the_speedup_is_the_median_of_the_ratios_of_the_rounds() -> None:
    timings = {
        "detector": Timing([1.0, 2.0, 4.0], None),
        "torchvision": Timing([3.0, 2.0, 8.0], None),
    }
    found = summary(timings, batch_size=8)
    assert found["speedup"] == 2.0  # of 3, 1, 2
    assert found["speedup_range"] == [1.0, 3.0]
    assert found["detector"]["images_per_second"] == 4.0  # 8 images in the median of 2 s


def test_the_contenders_take_turns_after_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(timing, "now", lambda device: float(len(calls)))
    work = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    timings = take_turns(work, Turns(warmup=1, rounds=3, steps=2), CPU)
    assert "".join(calls) == "ab" + "aabb" * 3
    assert timings["a"].seconds == [1.0] * 3  # two calls in a block of two ticks


def test_the_objects_lie_in_their_image(tmp_path: Path) -> None:
    train = from_plain(tiny(tmp_path, batch_size=2))
    workload = Workload(train, height=64, width=96, classes=3, objects=4)
    batch, targets = synthetic_batch(workload, CPU)
    assert batch.images.shape == (2, 3, 64, 96)
    assert targets.labels.shape == (2, 4)
    assert (targets.boxes[..., :2] >= 0).all()
    assert (targets.boxes[..., 2:] <= torch.tensor([96, 64])).all()
    assert (targets.boxes[..., 2:] > targets.boxes[..., :2]).all()


def test_a_prior_from_data_needs_data(command: Command) -> None:
    outcome = command("benchmark", "prior=from_data")
    assert outcome.code == 2
    assert outcome.message == "prior: from_data given, a number is needed here"
