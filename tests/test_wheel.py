"""What is installed works without the checkout: the command, the configs, every module."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.commands import ELSEWHERE, ROOT
from tests.data.files import write_image

TINY = (
    "experiment=smoke", "backbone=mobilenet_small", "model.fpn.channels=16",
    "model.head.channels=16", "model.head.num_convs=1", "data.num_train=4", "data.num_val=2",
    "data.image_size=64", "data.max_size=32", "steps=2", "batch_size=2", "device=cpu",
    "tensorboard=false", "loader.num_workers=0",
)  # fmt: skip

EVERY_MODULE = """
import importlib, pkgutil, sys
import detector
failed = {}
for info in pkgutil.walk_packages(detector.__path__, "detector."):
    if info.name.endswith("__main__"):
        continue
    try:
        importlib.import_module(info.name)
    except Exception as error:
        failed[info.name] = repr(error)
print(failed or detector.__file__)
sys.exit(bool(failed))
"""


def build(folder: Path, sources: Path = ROOT) -> Path:
    """The wheel of this checkout, or of other sources, made without the network."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(sources)], check=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel; of the test environment it sees the libraries alone."""
    folder = tmp_path_factory.mktemp("installed") / "env"
    venv.create(folder, with_pip=False)
    (site,) = folder.glob("lib/python*/site-packages")
    # Folders of a .pth file are searched for modules, while .pth files within them do nothing: so
    # the editable installation of the checkout is not seen.
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    command = [sys.executable, "-m", "pip", "--python", str(folder), "install", "--quiet"]
    subprocess.run([*command, "--no-deps", str(wheel)], check=True, timeout=120)
    return folder


def call(environment: Path, cwd: Path, *words: str) -> str:
    """What a program of the environment prints, called in another folder than the checkout."""
    variables = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    program = str(environment / "bin" / words[0])
    done = subprocess.run(
        [program, *words[1:]],
        cwd=cwd,
        env=variables | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_every_module_of_the_wheel_is_imported(environment: Path, tmp_path: Path) -> None:
    where = call(environment, tmp_path, "python", "-c", EVERY_MODULE).strip()
    assert Path(where).is_relative_to(environment)


def test_the_command_trains_evaluates_predicts_and_compares(
    environment: Path, tmp_path: Path
) -> None:
    """In an empty folder, so that nothing of the checkout can help."""
    assert "  train  " in call(environment, tmp_path, "detector", "--help")
    assert "loss: alrp, " in call(environment, tmp_path, "detector", "configs", "list")
    call(environment, tmp_path, "detector", "train", *TINY, "output_dir=run")
    best = "checkpoint=run/checkpoints/best.pt"
    call(environment, tmp_path, "detector", "evaluate", best, "output_dir=scores", "device=cpu")
    scores = json.loads((tmp_path / "scores" / "metrics.json").read_text())
    assert scores["AP"] == json.loads((tmp_path / "run" / "metrics.json").read_text())["AP"]
    write_image(tmp_path / "images" / "a.png", 40, 60)
    words = ("source=images", "threshold=0", "device=cpu", "output_dir=found")
    call(environment, tmp_path, "detector", "predict", best, *words)
    assert json.loads((tmp_path / "found" / "predictions.json").read_text())[0]["boxes"]
    losses = ("losses=[focal,ssd]", "seeds=1", "draws=100", "points=1", "probes=false")
    call(environment, tmp_path, "detector", "compare", *TINY, *losses, "output_dir=compared")
    results = json.loads((tmp_path / "compared" / "results.json").read_text())
    assert [run["state"] for run in results["runs"]] == ["done", "done"]


def test_a_wheel_holds_the_package_its_configs_and_templates_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {"detector", f"{wheel.stem[:20]}.dist-info"}
    kept = {name for name in names if "dist-info" not in name}
    files = {p.relative_to(ROOT / "configs") for p in (ROOT / "configs").rglob("*.yaml")}
    configs = {f"detector/configs/{file}" for file in files if file.stem not in ELSEWHERE}
    modules = {str(p.relative_to(ROOT)) for p in (ROOT / "detector").rglob("*.py")}
    others = {"detector/py.typed", "detector/laboratory/report/templates/report.html.jinja"}
    assert kept == configs | modules | others


def test_the_same_sources_give_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    assert build(tmp_path).read_bytes() == wheel.read_bytes()


def hatchling(call: str) -> str:
    """What a function of the build backend returns, called in the checkout."""
    command = [sys.executable, "-c", f"import hatchling.build as b; print(b.{call})"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout.splitlines()[-1]


def test_the_archive_of_the_sources_gives_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    shutil.unpack_archive(tmp_path / hatchling(f"build_sdist({str(tmp_path)!r})"), tmp_path)
    (unpacked,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert build(tmp_path / "out", unpacked).read_bytes() == wheel.read_bytes()


def test_an_editable_installation_is_a_path_and_copies_nothing(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / hatchling(f"build_editable({str(tmp_path)!r})")) as archive:
        (path,) = (name for name in archive.namelist() if "dist-info" not in name)
        assert archive.read(path).decode() == str(ROOT)
