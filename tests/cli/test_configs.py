"""`detector configs`: what there is, its text, and a copy to edit."""

from __future__ import annotations

from pathlib import Path

import pytest

from detector.cli.configs import run
from detector.errors import ConfigError
from tests.commands import ROOT, Command

CONFIGS = ROOT / "configs"

Printed = pytest.CaptureFixture[str]


def test_every_group_is_listed_with_its_options(capsys: Printed) -> None:
    run(["list"])
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["optim"] == "adamw, sgd"
    assert lines["experiment/focal_paper"].startswith("base, table1a, ")
    assert "train" in lines.pop("commands").split(", ")
    folders = {folder.name for folder in CONFIGS.iterdir() if folder.is_dir()}
    assert {group.partition("/")[0] for group in lines} == folders


@pytest.mark.parametrize("name", ["loss/focal", "experiment/focal_paper/base", "train"])
@pytest.mark.parametrize("suffix", ["", ".yaml"])
def test_a_file_is_shown_as_it_is(capsys: Printed, name: str, suffix: str) -> None:
    run(["show", f"{name}{suffix}"])
    assert capsys.readouterr().out == (CONFIGS / f"{name}.yaml").read_text()


def test_a_copy_holds_every_file_and_is_read_in_place_of_the_own_ones(
    command: Command, tmp_path: Path, capsys: Printed
) -> None:
    folder = tmp_path / "mine"
    run(["copy", str(folder)])
    assert f"--config-path {folder}" in capsys.readouterr().out
    copied = {file.relative_to(folder) for file in folder.rglob("*.yaml")}
    assert copied == {file.relative_to(CONFIGS) for file in CONFIGS.rglob("*.yaml")}
    focal = folder / "loss" / "focal.yaml"
    focal.write_text(focal.read_text().replace("gamma: 2.0", "gamma: 1.5"))
    gammas: list[float] = []
    argv = ["--config-path", str(folder), "loss=focal"]
    outcome = command("train", *argv, run=lambda config: gammas.append(config.loss.gamma))
    assert (outcome.code, gammas) == (0, [1.5])


def test_a_folder_with_files_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    for path in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(ConfigError, match=r"is not a new or empty folder$"):
            run(["copy", str(path)])
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file/new: cannot be written \(Not a directory\)$"):
        run(["copy", str(tmp_path / "file" / "new")])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["show", "loss/focall"], r"loss/focall: no such config \(did you mean 'loss/focal'\?\)"),
        (["show", "../pyproject"], r"\.\./pyproject: no such config"),
        (["show"], "show: list, show GROUP/NAME or copy FOLDER is allowed"),
        (["copy", "a", "b"], "copy a b: list, "),
    ],
)
def test_a_mistake_is_named(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{message}"):
        run(words)
