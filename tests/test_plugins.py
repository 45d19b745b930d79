"""A loss that lies outside the repository: the example of CONTRIBUTING.md, word for word."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.commands import ROOT, script

TEXT = (ROOT / "CONTRIBUTING.md").read_text().partition("### A loss outside this repository")[2]
PLUGIN = "plugins=[my_package.my_loss]"


def block(language: str) -> str:
    """The first block of code of a language."""
    found = re.search(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory that holds the example."""
    for path, text in {
        "my_package/my_loss.py": block("python"),
        "my_configs/loss/mine.yaml": block("yaml"),
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def test_the_example_trains_and_is_evaluated_and_its_code_runs_only_when_asked(
    folder: Path,
) -> None:
    small = ["experiment=smoke", "data.num_train=4", "data.num_val=2", "steps=2"]
    arguments = ["--config-dir", "my_configs", "loss=mine", PLUGIN, "output_dir=run", *small]
    done = script("train", *arguments, cwd=folder)
    assert done.code == 0, done.err
    assert json.loads((folder / "run" / "status.json").read_text())["state"] == "done"

    checkpoint = "checkpoint=run/checkpoints/last.pt"
    refused = script("evaluate", checkpoint, cwd=folder)
    assert refused.code == 2
    assert refused.message.startswith("run/checkpoints/last.pt: loss=mine is not known here")
    assert refused.message.endswith(PLUGIN)
    assert script("evaluate", checkpoint, PLUGIN, cwd=folder).code == 0


def test_a_module_that_is_not_there_is_named(tmp_path: Path) -> None:
    outcome = script("train", "plugins=[no_such_module.at_all]", cwd=tmp_path)
    assert outcome.code == 2
    assert outcome.message.startswith("plugins: there is no module no_such_module.at_all; a module")


def test_what_a_plugin_itself_cannot_import_is_its_own_fault(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import not_installed_anywhere")
    outcome = script("train", "plugins=[broken]", cwd=tmp_path)
    assert outcome.code == 1
    assert "Traceback" in outcome.err
    assert "not_installed_anywhere" in outcome.err
