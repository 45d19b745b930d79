"""The image that serves without torch: its packages, and its steps in a fresh environment."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.commands import ROOT
from tests.inference.test_serve import ask, image, process

SCRIPT = ROOT / "scripts" / "serve_image.sh"


def test_its_packages_are_those_of_the_project_in_the_same_ranges() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    known = {*project["dependencies"], *(name for extra in extras for name in extra)}
    wanted = re.findall(r'"([a-z][\w.-]*[<>=][^"]*)"', SCRIPT.read_text())
    assert len(wanted) == 9
    assert set(wanted) <= known
    assert not [name for name in wanted if name.startswith("torch")]


def test_the_dockerfile_runs_what_is_tried_below() -> None:
    text = (ROOT / "Dockerfile.serve").read_text()
    steps = re.findall(r"^(?:COPY|RUN) (.*)$", text, re.M)
    assert steps[:4] == [
        "scripts/serve_image.sh scripts/", "scripts/serve_image.sh", "detector detector",
        "configs configs",
    ]  # fmt: skip
    assert '"-m", "detector.cli", "serve"' in text


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_its_steps_in_a_fresh_environment_serve_without_torch(tmp_path: Path) -> None:
    """The lines of the Dockerfile one by one, since no builder need be there."""
    pytest.importorskip("onnxscript")
    from detector.inference.export import ExportOptions, export
    from tests.training.tiny import go, tiny

    checkpoint = go(tiny(tmp_path / "run", steps=2)) / "checkpoints" / "last.pt"
    graph = export(checkpoint, tmp_path / "model.onnx", ExportOptions(outputs="detections")).path
    app = tmp_path / "app"
    for part in ("detector", "configs"):
        shutil.copytree(ROOT / part, app / part)
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run(["env", f"PYTHON={python}", str(SCRIPT), "-q"], check=True)
    assert subprocess.run([str(python), "-c", "import torch"], capture_output=True).returncode == 1
    with process(graph, "threshold=0.01", python=python, root=app) as (server, port):
        status, answer = ask(port, image(40, 60))
        assert status == 200
        assert len(answer["boxes"]) > 0
        assert server.poll() is None
