"""A loss that lies outside the repository: the example of CONTRIBUTING.md, word for word."""

from __future__ import annotations

import json
import re
import subprocess
import sys
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


WRONG = """
import torch
from detector import LOSSES
from detector.config.registry import BACKBONES
from detector.losses.focal import FocalLoss
from detector.models.backbones.base import Backbone

@LOSSES.register("tensor")
class Tensor(FocalLoss):
    def forward(self, predictions, matches):
        return super().forward(predictions, matches)["class"]

@LOSSES.register("summed")
class Summed(FocalLoss):
    def forward(self, predictions, matches):
        return {"class": super().forward(predictions, matches)["class"].sum()}

@BACKBONES.register("bare")
class Bare(Backbone):
    def forward(self, images):
        return images, images, images
"""


def test_wrong_parts_are_answered_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(WRONG)
    small = ["experiment=smoke", "data.num_train=4", "data.num_val=2", "steps=2", "device=cpu"]
    for words, answer in [
        (["loss.name=tensor"], "loss=Tensor: forward gave a tensor of shape"),
        (["loss.name=summed"], "loss=Summed: the term 'class' is a tensor of shape ()"),
        (["~backbone", "+backbone.name=bare"], "backbone: Bare has out_channels None"),
    ]:
        done = script("train", "plugins=[wrong]", *words, *small, "overwrite=true", cwd=tmp_path)
        assert done.code == 2, done.err
        assert done.err.splitlines()[-1].startswith(f"error: {answer}")
        assert "Traceback" not in done.err


def test_the_contract_is_run_on_parts_of_ones_own(folder: Path) -> None:
    (folder / "wrong.py").write_text(WRONG)
    command = [sys.executable, "-m", "detector.cli", "check_plugin"]
    options = {"cwd": folder, "capture_output": True, "text": True, "timeout": 120}
    good = subprocess.run([*command, "my_package.my_loss"], **options)
    assert good.returncode == 0, good.stderr
    lines = good.stdout.splitlines()
    assert lines[-1] == f"all {len(lines) - 1} rules hold"
    bad = subprocess.run([*command, "wrong"], **options)
    assert bad.returncode == 2
    told = [line for line in bad.stdout.splitlines() if line.startswith("NOT ")]
    assert {line.split()[1].rstrip(":") for line in told} == {
        "loss=tensor", "loss=summed", "backbone=bare"
    }  # fmt: skip
    assert len(bad.stderr.splitlines()) == 1
