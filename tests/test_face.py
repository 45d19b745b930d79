"""What `import detector` offers, and what it costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import detector
from tests.commands import ROOT

TINY = (
    "experiment=smoke", "backbone=mobilenet_small", "model.fpn.channels=16",
    "model.head.channels=16", "model.head.num_convs=1", "data.num_train=4", "data.num_val=2",
    "data.image_size=64", "data.max_size=32", "steps=2", "batch_size=2", "precision=float32",
    "device=cpu", "tensorboard=false", "loader.num_workers=0",
)  # fmt: skip


def loaded_by(code: str, *names: str) -> list[str]:
    """Which of these libraries a new process has loaded after the code."""
    code += f"\nimport sys; print([n for n in {names} if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return ast.literal_eval(done.stdout.splitlines()[-1])


def test_importing_the_package_imports_nothing_else() -> None:
    heavy = ("torch", "numpy", "cv2", "albumentations", "hydra", "omegaconf", "PIL", "yaml")
    assert loaded_by("import detector", *heavy) == []


def test_every_public_name_is_there_and_no_more_than_a_reader_can_take_in() -> None:
    assert len(detector.__all__) <= 27
    assert dir(detector) == sorted(detector.__all__)
    for name in detector.__all__:
        assert getattr(detector, name) is not None


def test_the_names_that_are_looked_up_are_those_that_a_type_checker_sees() -> None:
    tree = ast.parse(Path(detector.__file__).read_text())
    (block,) = [n for n in tree.body if isinstance(n, ast.If)]
    seen = {
        alias.name: statement.module
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    assert seen == detector._HOME_OF


def test_another_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'loda'"):
        detector.loda  # type: ignore[attr-defined]  # noqa: B018


def test_detections_are_to_be_had_without_torch() -> None:
    assert loaded_by("import detector; detector.Detections", "torch", "cv2") == []


def test_train_load_and_evaluate_from_python(tmp_path: Path) -> None:
    run = detector.train(*TINY, f"output_dir={tmp_path / 'run'}")
    assert run.folder == tmp_path / "run"
    assert run.metrics["images"] == 2
    model = run.load()
    found = model(np.zeros((64, 64, 3), np.uint8), threshold=0.0)
    assert len(found) > 0
    again = detector.evaluate(run.folder / "checkpoints" / "best.pt", device="cpu")
    assert again.metrics["AP"] == run.metrics["AP"]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("loss=focall", "loss=focall: unknown .did you mean 'focal'"),
        ("loss.gama=1", "loss.gama: unknown key .did you mean 'gamma'"),
        ("--multirun", "--multirun: overrides are written KEY=VALUE here"),
        ("steps", "steps: not understood, keys are written KEY=VALUE"),
    ],
)
def test_a_mistake_in_an_override_is_an_error_of_this_project(override: str, words: str) -> None:
    with pytest.raises(detector.ConfigError, match=words) as caught:
        detector.train(override)
    assert "\n" not in str(caught.value)
