"""The table of several runs, by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from detector.errors import ConfigError
from detector.runs.table import read_run, spread, table_of_runs
from tests.commands import Command

FIRST = {
    "AP": 0.4126,
    "AP50": 0.75,
    "AP75": 0.5,
    "APs": 0.25,
    "APm": 1.0,
    "APl": None,
    "AR100": 0.125,
}
SECOND = {**FIRST, "AP": 0.5, "APl": 0.0}

TABLE = """\
| run | AP | AP50 | AP75 | APs | APm | APl | AR100 | steps | images/s |
|---|---|---|---|---|---|---|---|---|---|
| ssd | 0.500 | 0.750 | 0.500 | 0.250 | 1.000 | 0.000 | 0.125 | 40 | 15.0 |
| focal | 0.413 | 0.750 | 0.500 | 0.250 | 1.000 | - | 0.125 | 60 | 20.0 |"""


def make_run(folder: Path, metrics: dict[str, Any] | None, speeds: list[float]) -> Path:
    """A run folder with a line of log every 20 steps; metrics: None while it is not finished."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").touch()
    lines = [
        json.dumps({"step": 20 * (i + 1), "loss": 1.0, "images_per_second": speed})
        for i, speed in enumerate(speeds)
    ]
    (folder / "log.jsonl").write_text("\n".join(lines) + "\n")
    if metrics is not None:
        others = {"AR1": 0.1, "per_class": {"cat": 0.5}, "images": 3, "seconds": 1.5}
        (folder / "metrics.json").write_text(json.dumps({**metrics, **others}))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two runs, and beside them a folder and a file that are none."""
    make_run(tmp_path / "runs" / "focal", FIRST, [1.0, 20.0, 30.0])
    make_run(tmp_path / "runs" / "ssd", SECOND, [10.0, 20.0])
    (tmp_path / "runs" / "notes").mkdir()
    (tmp_path / "runs" / "table.md").touch()
    return tmp_path / "runs"


def test_a_run_is_read_from_its_files(runs: Path) -> None:
    expected = {"run": "focal", **FIRST, "steps": 60, "images/s": 20.0}
    assert read_run(runs / "focal") == expected


def test_the_table_has_the_best_run_first_and_a_dash_for_a_missing_number(runs: Path) -> None:
    assert table_of_runs([read_run(runs / "focal"), read_run(runs / "ssd")]) == TABLE


def test_a_run_without_any_object_to_find_comes_last() -> None:
    rows = [{"run": name, "AP": ap} for name, ap in [("none", None), ("low", 0.1), ("zero", 0.0)]]
    names = [line.split(" | ")[0] for line in table_of_runs(rows).splitlines()[2:]]
    assert names == ["| low", "| none", "| zero"]


def test_the_spread_is_that_of_lowest_and_highest() -> None:
    rows = [{"AP": 0.25}, {"AP": 0.5}, {"AP": 0.375}]
    assert spread(rows).startswith("AP from 0.250 to 0.500 over 3 runs")
    assert spread([{"AP": None}]).startswith("AP from 0.000 to 0.000 over 1 runs")


def test_an_unfinished_run_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "half", None, [1.0])
    with pytest.raises(ConfigError) as caught:
        read_run(folder)
    assert str(caught.value) == f"folder: {folder} holds no finished run (no metrics.json)"


class TestTool:
    def test_prints_the_table_of_all_runs_in_a_folder(self, command: Command, runs: Path) -> None:
        outcome = command("table", f"folder={runs}")
        assert (outcome.code, outcome.err) == (0, "")
        assert outcome.out.startswith(TABLE + "\n\nAP from 0.413 to 0.500 over 2 runs")

    def test_names_the_run_that_is_not_finished(self, command: Command, runs: Path) -> None:
        make_run(runs / "half", None, [1.0])
        outcome = command("table", f"folder={runs}")
        assert outcome.code == 2
        assert outcome.message.startswith(f"folder: {runs / 'half'} holds no finished run")

    @pytest.mark.parametrize(
        ("argv", "message"),
        [
            ([], "folder: has to be given"),
            (["folder=nowhere"], "folder: nowhere holds no run folders"),
            (["foldr=a"], "foldr: unknown key (did you mean 'folder'?)"),
        ],
    )
    def test_a_mistake_is_answered_in_one_line(
        self, command: Command, argv: list[str], message: str
    ) -> None:
        outcome = command("table", *argv)
        assert outcome.code == 2
        assert outcome.message.startswith(message)
