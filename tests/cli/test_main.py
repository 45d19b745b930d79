"""`detector COMMAND ...` as a user calls it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from detector import __version__
from detector.cli.main import COMMANDS, main
from tests.commands import ROOT, Command, Outcome

SHARED = {
    *("__init__", "__main__", "allowed", "described", "endings", "hydra_app", "main", "options"),
    *("typed", "yaml_files"),
}
"""Modules of the folder that are no commands."""


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Calls `detector` in this process."""

    def call(*argv: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["/somewhere/bin/detector", *argv])
        code = 0
        try:
            main()
        except SystemExit as error:
            code = int(error.code or 0)
        return Outcome(code, *capsys.readouterr())

    return call


def test_every_file_of_the_folder_is_a_command_or_shared_by_them() -> None:
    files = (ROOT / "detector" / "cli").glob("*.py")
    assert {file.stem for file in files} == SHARED | COMMANDS.keys()


def test_every_command_that_takes_keys_has_a_file_in_tools() -> None:
    for name in COMMANDS.keys() - {"configs", "check_plugin"}:  # in a checkout the configs lie open
        text = (ROOT / "tools" / f"{name}.py").read_text()
        assert f"from detector.cli.{name} import main" in text


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_the_commands_a_line_each(detector: Command, argv: list[str]) -> None:
    outcome = detector(*argv)
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("  ")] == list(COMMANDS)
    assert max(map(len, lines)) <= 100


def test_the_version_is_that_of_the_package(detector: Command) -> None:
    assert detector("--version") == (0, f"detector {__version__}\n", "")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian"], "trian: no command (did you mean 'train'?); allowed: train, evaluate, "),
        (["plot-loses"], "plot-loses: no command (did you mean 'plot_losses'?); allowed: "),
        (["loss=focal"], "loss=focal: no command; allowed: train, evaluate, predict, "),
        (["options"], "options: no command"),
        (["train", "loss=focall"], "loss=focall: unknown (did you mean 'focal'?); allowed: "),
        (["train", "--resume"], "--resume: unknown flag; keys are written resume=auto"),
        (["configs", "shw"], "shw: list, show GROUP/NAME or copy FOLDER is allowed"),
    ],
)
def test_a_mistake_is_answered_in_one_line(
    detector: Command, argv: list[str], message: str
) -> None:
    outcome = detector(*argv)
    assert outcome.code == 2
    assert outcome.message.startswith(message)


def test_the_words_after_a_command_are_its_own(detector: Command) -> None:
    outcome = detector("train", "--cfg", "job", "loss=ssd", "steps=7")
    assert (outcome.code, outcome.err) == (0, "")
    assert "steps: 7" in outcome.out


def test_help_comes_without_hydra_and_torch(tmp_path: Path) -> None:
    """Which take a tenth of a second and some seconds to import."""
    code = (
        "import sys; sys.argv = ['detector', '--help']\n"
        "from detector.cli.main import main\n"
        "main()\n"
        "assert not {'hydra', 'torch', 'numpy'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
