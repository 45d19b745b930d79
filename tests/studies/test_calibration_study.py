"""The study of finished runs: its numbers and its place on a page, through the tool."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from calibration_page import BEGIN, END, block, sentences
from calibration_study import Settings, study

from detector.config import from_plain
from detector.training.run import run
from tests.commands import Command
from tests.training.tiny import TINY, tiny

PAGE = f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """runs/focal/seed_0 and seed_1, runs/ssd/seed_0, and a run that is not finished."""
    path = tmp_path_factory.mktemp("study")
    runs = path / "runs"
    data = {**TINY["data"], "num_val": 12}
    for name, seed in (("focal", 0), ("focal", 1), ("ssd", 0)):
        loss = TINY["loss"] if name == "focal" else {"name": name, "weight": 1.0}
        place = runs / name / f"seed_{seed}"
        plain = tiny(place, steps=20, batch_size=8, data=data, loss=loss, seed=seed)
        run(from_plain(plain), plain)
    shutil.copytree(runs / "focal" / "seed_0", runs / "focal" / "seed_9")
    (runs / "focal" / "seed_9" / "status.json").write_text('{"state": "failed", "step": 3}')
    return path


def called(command: Command, folder: Path, tmp_path: Path, *argv: str) -> dict[str, Any]:
    """What the command wrote as JSON."""
    (tmp_path / "page.md").write_text(PAGE)
    words = [f"folder={folder}", "page=page.md", "output=all/study.json", "draws=40", *argv]
    outcome = command("calibration_study", *words)
    assert (outcome.code, outcome.err) == (0, "")
    return json.loads((tmp_path / "all" / "study.json").read_text())


def test_every_finished_run_is_measured_and_each_loss_has_its_mean(folder: Path) -> None:
    found = study(folder, [], Settings(draws=40))
    assert list(found["losses"]) == ["focal", "ssd"]
    focal = found["losses"]["focal"]
    assert focal["seeds"] == [0, 1]
    assert list(focal["mean"]) == ["none", "link_inverse", "temperature", "platt", "isotonic"]
    assert "link_inverse" not in found["losses"]["ssd"]["mean"]
    for method, row in focal["mean"].items():
        for which in ("all", "shown"):
            values = [focal["runs"][s][method][which]["Brier"]["value"] for s in ("0", "1")]
            assert row[which]["Brier"]["value"] == pytest.approx(sum(values) / 2, rel=1e-12)
    assert focal["runs"]["0"] != focal["runs"]["1"]


def test_the_page_is_the_same_but_for_what_lies_between_the_comments(
    command: Command, folder: Path, tmp_path: Path
) -> None:
    found = called(command, folder, tmp_path)
    page = (tmp_path / "page.md").read_text()
    head, rest = page.split(BEGIN)
    block, tail = rest.split(END)
    assert (head, tail) == ("before\n\n", "\n\nafter\n")
    assert "old" not in block
    value = found["losses"]["ssd"]["mean"]["platt"]["shown"]["D-ECE"]["value"]
    row, _ = (line for line in block.splitlines() if line.startswith("| ssd | platt |"))
    assert f"{value:.4f} (" in row
    called(command, folder, tmp_path)
    assert (tmp_path / "page.md").read_text() == page


def test_the_file_holds_what_the_page_is_made_of_and_a_line_for_each_measure(
    command: Command, folder: Path, tmp_path: Path
) -> None:
    found = study(folder, [], Settings(draws=40))
    assert block(called(command, folder, tmp_path)) == block(found)
    lines = (tmp_path / "all" / "study.json").read_text().splitlines()
    assert sum('"D-ECE": {"value"' in line for line in lines) > 20
    assert len(lines) < 200


def test_each_loss_is_compared_with_the_first_on_the_same_images(folder: Path) -> None:
    found = study(folder, [], Settings(draws=40))
    assert found["against"]["loss"] == "focal"
    assert list(found["against"]["changes"]) == ["ssd"]
    for method in ("none", "platt"):
        for which in ("all", "shown"):
            ssd, focal = (
                found["losses"][name]["mean"][method][which]["Brier"]["value"]
                for name in ("ssd", "focal")
            )
            change = found["against"]["changes"]["ssd"][method][which]["Brier"]
            assert change["value"] == pytest.approx(ssd - focal, rel=1e-9)
            assert change["low"] <= change["value"] <= change["high"]
    assert "Against focal, under the same calibrator" in block(found)


def test_losses_may_be_chosen(command: Command, folder: Path, tmp_path: Path) -> None:
    assert list(called(command, folder, tmp_path, "losses=[ssd]")["losses"]) == ["ssd"]


def row(value: float, change: tuple[float, float, float]) -> dict[str, Any]:
    by = dict(zip(("value", "low", "high"), change, strict=True))
    own = {"value": value, "low": value - 0.1, "high": value + 0.1, "change": by}
    return {"shown": {"D-ECE": own}}


def test_sentences_say_what_the_intervals_say_and_no_more() -> None:
    methods = {
        "none": row(0.2, (0.0, 0.0, 0.0)),
        "link_inverse": row(0.2, (0.0, 0.0, 0.0)),
        "temperature": row(0.16, (-0.04, -0.1, 0.02)),
        "platt": row(0.15, (-0.05, -0.09, -0.01)),
        "isotonic": row(0.4, (0.2, 0.1, 0.3)),
    }
    losses = {"b": {"mean": methods}, "a": {"mean": {"none": row(0.1, (0.0, 0.0, 0.0))}}}
    first, second = sentences({"losses": losses})
    assert first.endswith("best first: a 0.1000 (0.0000 .. 0.2000), b 0.2000 (0.1000 .. 0.3000).")
    assert second == (
        "- b: link_inverse changes nothing at all; temperature cannot be told from none, -0.0400 "
        "(-0.1000 .. +0.0200); platt lowers it, -0.0500 (-0.0900 .. -0.0100); isotonic raises it, "
        "+0.2000 (+0.1000 .. +0.3000)."
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "folder: has to be given"),
        (["folder=nowhere"], "folder: nowhere holds no finished run under runs/LOSS/seed_N"),
        (["folder=nowhere", "losses=[focal]"], "losses: focal not among nowhere/runs: -"),
    ],
)
def test_a_mistake_is_answered_in_one_line(command: Command, argv: list[str], message: str) -> None:
    outcome = command("calibration_study", *argv)
    assert outcome.code == 2
    assert outcome.message.startswith(message)


def test_a_page_without_a_place_for_the_numbers_is_named(
    command: Command, folder: Path, tmp_path: Path
) -> None:
    argv = [f"folder={folder}", "page=none.md", "output=study.json", "draws=0", "losses=[ssd]"]
    outcome = command("calibration_study", *argv)
    assert outcome.code == 2
    assert outcome.message.startswith("page: none.md has no place for the numbers")


def test_runs_of_other_data_are_not_compared(
    command: Command, folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    file = tmp_path / "copy" / "runs" / "ssd" / "seed_0" / "config.yaml"
    plain = yaml.safe_load(file.read_text())
    plain["data"]["num_val"] = 11
    file.write_text(yaml.safe_dump(plain))
    outcome = command("calibration_study", "folder=copy", "page=none.md")
    assert outcome.code == 3
    assert "seed_0: other data than" in outcome.message
