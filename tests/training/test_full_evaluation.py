"""`evaluation=full` in a run: files, tables in the terminal, TensorBoard, pictures on disk."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from detector.config import from_plain
from detector.errors import ConfigError
from detector.training.run import run
from tests.commands import Command
from tests.training.tiny import tiny

pytest.importorskip("matplotlib")
event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

FULL = {"every": 5, "images_per_group": 4, "analysis": True, "draws": 20, "worst": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is scored twice; what it printed lies in `out.txt`."""
    path = tmp_path_factory.mktemp("full")
    plain = tiny(path / "run", steps=10, evaluation=FULL, tensorboard=True)
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("builtins.print", lambda *words, **_: lines.append(" ".join(map(str, words))))
        run(from_plain(plain), plain)
    (path / "out.txt").write_text("\n".join(lines))
    return path


def events(folder: Path, kind: str) -> dict[str, list[int]]:
    """Steps by tag."""
    found = event_accumulator.EventAccumulator(str(folder / "run" / "tensorboard")).Reload()
    read = {"scalars": found.Scalars, "images": found.Images}[kind]
    return {tag: [event.step for event in read(tag)] for tag in found.Tags()[kind]}


def test_metrics_hold_the_analysis_with_intervals(folder: Path) -> None:
    analysis = json.loads((folder / "run" / "metrics.json").read_text())["analysis"]
    measure = analysis["calibration"]["all"]["D-ECE"]
    assert measure["low"] <= measure["value"] <= measure["high"]
    assert set(analysis["operating_points"]) == {"lrp", "f1", "fppi"}
    assert "classification" in analysis["errors"]


def test_each_evaluation_is_a_line_with_its_numbers_and_without_its_curves(folder: Path) -> None:
    text = (folder / "run" / "evaluations.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["step"] for line in lines] == [5, 10]
    for line in lines:
        assert 0 <= line["analysis"]["calibration/all/D-ECE"] <= 1
        assert all(isinstance(value, float) for value in line["analysis"].values())
    assert max(map(len, text.splitlines())) < 5000


def test_the_terminal_has_the_tables_and_evaluations_share_of_the_time(folder: Path) -> None:
    out = (folder / "out.txt").read_text()
    for words in ("by pycocotools ", "D-ECE", "optimal LRP", "costs AP50", "most misses"):
        assert words in out
    shares = [line for line in out.splitlines() if "% of the time" in line]
    assert [line.split("  ")[0] for line in shares] == ["step 5", "step 10"]
    for line in shares:
        share = float(line.rpartition("%")[0].split()[-1])
        assert 0 < share <= 100


def test_tensorboard_has_the_numbers_and_the_figures_of_each_evaluation(folder: Path) -> None:
    scalars, images = events(folder, "scalars"), events(folder, "images")
    for tag in ("val/calibration/all/D-ECE", "val/calibration/shown/LaECE_0", "val/share_of_time"):
        assert scalars[tag] == [5, 10]
    assert scalars["val/delta_ap50/missed"] == [5, 10]
    for name in ("reliability", "reliability_classes", "precision_recall"):
        assert images[f"val/{name}"] == [5, 10]


def test_pictures_lie_on_disk(folder: Path) -> None:
    names = {path.name for path in (folder / "run" / "figures").iterdir()}
    assert names == {"reliability.png", "reliability_classes.png", "precision_recall.png"}
    worst = [path.name for path in (folder / "run" / "worst").iterdir()]
    assert sum(name.startswith("false_positives") for name in worst) == 2
    assert sum(name.startswith("misses") for name in worst) <= 2


def test_a_run_that_could_not_draw_its_pictures_is_refused_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    plain = tiny(tmp_path / "run", evaluation=FULL)
    with pytest.raises(ConfigError, match=r"^matplotlib: needed for pictures and not installed"):
        run(from_plain(plain), plain)
    assert not (tmp_path / "run").exists()


def test_the_heavier_parts_are_switched_on_by_one_word(command: Command) -> None:
    found = []
    for words in ([], ["evaluation=full"]):
        command("train", *words, run=lambda node: found.append(dict(node.evaluation)))
    assert found[1] == {**found[0], "analysis": True}
    assert found[0]["analysis"] is False
