"""Weights for other programs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from detector.runs.checkpoint import load, weights_to_evaluate
from tests.commands import Command
from tests.training.tiny import go, tiny

safetensors = pytest.importorskip("safetensors")


@pytest.fixture(scope="module")
def last(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, its weights in channels-last order in memory."""
    return go(tiny(tmp_path_factory.mktemp("e") / "run", steps=1)) / "checkpoints" / "last.pt"


def test_the_weights_that_are_evaluated_are_written_to_the_bit(
    command: Command, last: Path
) -> None:
    outcome = command("export", f"checkpoint={last}", "output=a.safetensors")
    assert (outcome.code, outcome.out) == (0, "written: a.safetensors\n")
    saved = load(last)
    wanted = weights_to_evaluate(saved)
    with safetensors.safe_open("a.safetensors", "pt") as file:
        assert set(file.keys()) == wanted.keys()
        assert all(torch.equal(file.get_tensor(name), wanted[name]) for name in wanted)
        meaning = file.metadata()
    assert json.loads(meaning["config"])["loss"]["name"] == "focal"
    assert json.loads(meaning["classes"]) == saved["classes"]
    assert (meaning["step"], meaning["format"]) == ("1", "pt")


def test_a_file_that_is_there_and_a_name_of_another_kind_are_refused(
    command: Command, last: Path
) -> None:
    Path("a.safetensors").touch()
    outcome = command("export", f"checkpoint={last}", "output=a.safetensors")
    assert outcome.message == "output: a.safetensors is already there; overwrite=true replaces it"
    outcome = command("export", f"checkpoint={last}", "output=a.pt")
    assert (
        outcome.message
        == "output: a.pt given, a name that ends in .onnx, .xml, .pt2 or .safetensors is needed"
    )
    outcome = command("export", f"checkpoint={last}", "output=a.safetensors", "overwrite=true")
    assert outcome.code == 0


def test_a_name_of_another_kind_is_refused_before_a_library_is_asked_for(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library in ("safetensors", "safetensors.torch"):
        monkeypatch.setitem(sys.modules, library, None)  # as if it were not installed
    said = command("export", "checkpoint=last.pt", "output=m.foo").message
    assert said.startswith("output: m.foo given, a name that ends in .onnx, .xml, .pt2 or")
    said = command("export", "checkpoint=last.pt", "output=m.safetensors").message
    assert "pip install safetensors" in said
