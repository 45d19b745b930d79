"""Configs that somebody else wrote, given to the tools as a user gives them: they are data.

What each would do if it had its way is to leave a marker file, or to empty a file of the user.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.commands import Command, Outcome, script

EVIL_MODULE = "import pathlib\npathlib.Path(__file__).with_name('marker').touch()\n"

EMPTIES = {"version": 1, "handlers": {"a": {"class": "logging.FileHandler", "mode": "w"}}}
IMPORTS = {"version": 1, "handlers": {"a": {"class": "evil.Handler"}}, "root": {"handlers": ["a"]}}

OF_HYDRA: dict[str, dict[str, Any]] = {
    "env_set": {"job": {"env_set": {"PYTHONPATH": "evil"}}},
    "env_copy": {"job": {"env_copy": ["DETECTOR_SECRET"]}},
    "hydra_logging that empties a file": {"hydra_logging": EMPTIES},
    "job_logging that empties a file": {"job_logging": EMPTIES},
    "hydra_logging that imports": {"hydra_logging": IMPORTS},
    "job_logging that imports": {"job_logging": IMPORTS},
    "searchpath of a package": {"searchpath": ["pkg://evil"]},
    "sweep folder": {"sweep": {"dir": "kept"}},
    "run folder": {"run": {"dir": "kept"}, "output_subdir": ".hydra"},
    "working folder": {"job": {"chdir": True}},
    "multirun without a flag": {"mode": "MULTIRUN"},
    "parameters of a sweep": {"sweeper": {"params": {"plugins": "[evil]"}}},
    "overrides of the command": {"overrides": {"task": ["plugins=[evil]"]}},
    "launcher": {"launcher": {"_target_": "evil.Launcher"}},
}
"""Keys of Hydra's own that a config may not set."""

FEW = ["experiment=smoke", "data.num_train=4", "data.num_val=2", "steps=2", "device=cpu"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a module that leaves a marker, which every process could import."""
    (tmp_path / "evil.py").write_text(EVIL_MODULE)
    (tmp_path / "kept.txt").write_text("mine")
    inherited = os.environ.get("PYTHONPATH")
    path = [str(tmp_path), inherited] if inherited else [str(tmp_path)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    monkeypatch.setenv("DETECTOR_SECRET", "swordfish")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def write(path: Path, content: dict[str, Any], header: str = "# @package _global_\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(header + json.dumps(content) + "\n")


def assert_refused(outcome: Outcome, folder: Path) -> None:
    """One line, exit code 2, and nothing was imported, emptied, written or told."""
    assert outcome.code == 2, outcome.err
    assert "refused" in outcome.message
    assert "swordfish" not in outcome.err
    assert not (folder / "marker").exists()
    assert (folder / "kept.txt").read_text() == "mine"
    assert sorted(p.name for p in folder.iterdir() if p.name != "__pycache__") == sorted(
        ["evil.py", "kept.txt", "configs"]
    )


@pytest.mark.parametrize("name", OF_HYDRA)
class TestHydrasNode:
    def test_is_not_for_a_preset_to_set(self, command: Command, folder: Path, name: str) -> None:
        node = json.loads(json.dumps(OF_HYDRA[name]))
        for logging in ("hydra_logging", "job_logging"):
            if node.get(logging) == EMPTIES:
                node[logging]["handlers"]["a"]["filename"] = str(folder / "kept.txt")
        write(folder / "configs" / "experiment" / "evil.yaml", {"hydra": node})
        for flags in ([], ["-m"], ["-m", "seed=0,1"], ["--cfg", "job"], ["--help"]):
            arguments = ["--config-dir", "configs", *flags, "experiment=evil"]
            assert_refused(command("train", *arguments), folder)

    def test_is_not_for_a_main_yaml_to_set(self, command: Command, folder: Path, name: str) -> None:
        content = {"hydra": OF_HYDRA[name], "defaults": ["_self_"]}
        write(folder / "configs" / "mine.yaml", content)
        for flags in ([], ["-m"]):
            arguments = [*flags, "--config-path", "configs", "--config-name", "mine"]
            assert_refused(command("train", *arguments), folder)

    def test_is_not_to_be_reached_by_a_package(
        self, command: Command, folder: Path, name: str
    ) -> None:
        file = folder / "configs" / "experiment" / "evil.yaml"
        write(file, OF_HYDRA[name], header="# @package hydra\n")
        arguments = ["--config-dir", "configs", "experiment=evil"]
        for flags in ([], ["-m", "seed=0,1"]):
            assert_refused(command("train", *arguments[:2], *flags, arguments[2]), folder)
        write(file, OF_HYDRA[name], header="")
        write(folder / "configs" / "experiment" / "a.yaml", {"defaults": ["evil@_global_.hydra"]})
        assert_refused(command("train", *arguments[:2], "experiment=a"), folder)

    def test_is_not_set_in_one_run_of_a_sweep(
        self, command: Command, folder: Path, name: str
    ) -> None:
        write(folder / "configs" / "experiment" / "evil.yaml", {"hydra": OF_HYDRA[name]})
        arguments = ["--config-dir", "configs", "experiment=smoke,evil"]
        assert_refused(command("train", "-m", *arguments, run=lambda _: None), folder)


@pytest.mark.parametrize(
    "word", ["hydra.job.env_set={A:b}", "hydra.searchpath=[pkg://evil]", "hydra/launcher=joblib"]
)
def test_hydras_node_is_not_for_the_command_line_either(
    command: Command, folder: Path, word: str
) -> None:
    (folder / "configs").mkdir()
    assert_refused(command("train", word), folder)
    assert_refused(command("train", "-m", word), folder)


@pytest.mark.parametrize("place", ["loss", "override loss", "/data"])
def test_a_defaults_list_does_not_tell_what_is_in_the_environment(
    command: Command, folder: Path, place: str
) -> None:
    content = {"defaults": [{place: "${oc.env:DETECTOR_SECRET}"}]}
    write(folder / "configs" / "experiment" / "evil.yaml", content)
    write(folder / "configs" / "main.yaml", content)
    preset = ["--config-dir", "configs", "experiment=evil"]
    assert_refused(command("train", *preset), folder)
    assert_refused(command("train", "-m", *preset), folder)
    assert_refused(command("train", "--config-path", "configs", "--config-name", "main"), folder)


class TestPlugins:
    """They are modules that are run, so the command line has to name them."""

    def test_of_a_preset_are_not_imported(self, folder: Path) -> None:
        write(folder / "configs" / "experiment" / "evil.yaml", {"plugins": ["evil"]})
        arguments = ["--config-dir", "configs", "experiment=evil"]
        for tool, flags in (("train", []), ("train", ["-m"]), ("compare", []), ("audit", [])):
            assert_refused(script(tool, *arguments, *flags, cwd=folder), folder)

    def test_of_a_main_yaml_are_not_imported(self, folder: Path) -> None:
        write(folder / "configs" / "mine.yaml", {"checkpoint": "a.pt", "plugins": ["evil"]})
        arguments = ["--config-path", "configs", "--config-name", "mine"]
        assert_refused(script("evaluate", *arguments, cwd=folder), folder)

    @pytest.mark.parametrize(
        "content",
        [
            {"plugins": "${backbone.name}", "backbone": {"name": "evil"}},
            {"plugins": ["${clip}"], "clip": "evil"},
            {"losses": ["focal plugins=[evil]"]},
            {"losses": ["focal +plugins=[evil]"]},
            {"sweep": ["++plugins=[evil]"]},
        ],
    )
    def test_are_not_smuggled_in_by_another_key(
        self, command: Command, folder: Path, content: dict[str, Any]
    ) -> None:
        write(folder / "configs" / "experiment" / "evil.yaml", content)
        arguments = ["--config-dir", "configs", "experiment=evil", *FEW[1:]]
        assert_refused(command("compare", *arguments), folder)

    @pytest.mark.parametrize(
        "content",
        [
            {"runs": ["plugins=[evil]"]},
            {"runs": ["'plugins=[evil]' loss=ssd"]},
            {"runs": ["--config-dir elsewhere experiment=evil"]},
            {"runs": ["${folder}"], "folder": "++plugins=[evil]"},
            {"runs": ["loss=ssd"], "slurm": {"setup": ["touch marker"]}, "executor": "local"},
        ],
    )
    def test_and_commands_are_not_for_a_list_of_runs(
        self, command: Command, folder: Path, content: dict[str, Any]
    ) -> None:
        write(folder / "configs" / "mine.yaml", {"folder": "runs", **content})
        arguments = ["--config-path", "configs", "--config-name", "mine"]
        assert_refused(command("launch", *arguments), folder)

    def test_that_the_command_line_names_as_well_are_imported(
        self, command: Command, folder: Path
    ) -> None:
        write(folder / "configs" / "experiment" / "mine.yaml", {"plugins": ["a"], "steps": 7})
        found: list[Any] = []
        arguments = ["--config-dir", "configs", "experiment=mine", "plugins=[b]"]
        outcome = command("train", *arguments, run=lambda c: found.extend([c.plugins, c.steps]))
        assert (outcome.code, found) == (0, [["b"], 7])

    def test_of_a_comparison_reach_its_runs(self, folder: Path) -> None:
        (folder / "good.py").write_text("import pathlib\npathlib.Path('imported').touch()\n")
        arguments = ["losses=[focal]", "seeds=1", "probes=false", "output_dir=study"]
        outcome = script("compare", "plugins=[good]", *arguments, *FEW, cwd=folder)
        assert outcome.code == 0, outcome.err
        run = folder / "study" / "runs" / "focal" / "seed_0"
        assert json.loads((run / "status.json").read_text())["state"] == "done"
        assert "plugins=[good]" in json.loads((run / "overrides.json").read_text())


class TestSizeOfYaml:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (
                "\n".join(
                    ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
                    + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
                ),
                "with its aliases written out",
            ),
            (
                f"a: &a {'x' * 2000}\nb: &b [{', '.join(['*a'] * 100)}]\n"
                f"c: [{', '.join(['*b'] * 100)}]",
                "with its aliases written out",
            ),
            ("a: &a [*a]", "stands inside of"),
            ("a: &a {b: *a}", "stands inside of"),
            (f"a: {'[' * 5000}", "deep"),
            ("\n".join(f"{' ' * i}a:" for i in range(200)), "deep"),
            (f"a: {'x' * 2**19}", "bytes"),
            (f"steps: {'9' * 10_000}", ""),
        ],
    )
    def test_is_limited_before_anything_is_built(self, folder: Path, text: str, said: str) -> None:
        file = folder / "configs" / "experiment" / "evil.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(f"# @package _global_\n{text}\n")
        begin = time.monotonic()
        outcome = script("train", "--config-dir", "configs", "experiment=evil", cwd=folder)
        assert outcome.code == 2
        assert said in outcome.message
        assert len(outcome.message) < 1000
        assert time.monotonic() - begin < 30
