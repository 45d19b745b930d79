"""What all tools share: exit codes, Hydra's flags, and that a config is data."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from detector.config import from_plain
from detector.errors import ConfigError, DataError, DivergedError, Preempted, UserError
from tests.commands import ROOT, TOOLS, Command

TARGETS = [
    "os.system",
    "os.popen",
    "subprocess.run",
    "subprocess.call",
    "subprocess.Popen",
    "subprocess.check_output",
    "builtins.eval",
    "builtins.exec",
    "builtins.open",
    "pathlib.Path",
    "importlib.import_module",
    "runpy.run_path",
    "torch.hub.load",
    "torch.utils.collect_env.run",
]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("no"), 2),
        (DataError("no"), 3),
        (DivergedError("no"), 4),
        (Preempted("no"), 75),
    ],
)
@pytest.mark.parametrize("flags", [[], ["-m"]])
def test_each_kind_of_error_has_its_code(
    command: Command, error: UserError, code: int, flags: list[str]
) -> None:
    def run(_: DictConfig) -> None:
        raise error

    outcome = command("train", *flags, run=run)
    assert (outcome.code, outcome.out) == (code, "")
    assert outcome.err == ("no\n" if code == 75 else "error: no\n")


def test_a_bug_is_not_dressed_up(command: Command) -> None:
    def run(_: DictConfig) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        command("train", run=run)


class TestFlags:
    @pytest.mark.parametrize("tool", TOOLS)
    def test_help_comes_without_torch(self, tmp_path: Path, tool: str) -> None:
        """Which takes seconds to import, so that nobody would ask for help twice."""
        code = (
            "import runpy, sys; tool = sys.argv[1]; sys.argv = [tool, '--help']\n"
            "sys.path.insert(0, tool.rpartition('/')[0])\n"
            "try: runpy.run_path(tool, run_name='__main__')\n"
            "except SystemExit as error: assert not error.code\n"
            "assert 'torch' not in sys.modules"
        )
        argv = [sys.executable, "-c", code, str(ROOT / "tools" / f"{tool}.py")]
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"{tool} ")
        assert list(tmp_path.iterdir()) == []

    def test_cfg_job_prints_the_config(self, command: Command, tmp_path: Path) -> None:
        outcome = command("train", "--cfg", "job", "loss=ssd", "steps=7")
        assert outcome.code == 0
        config = OmegaConf.create(outcome.out)
        assert (config.loss.name, config.steps) == ("ssd", 7)
        assert list(tmp_path.iterdir()) == []

    def test_info_defaults_names_the_files(self, command: Command, tmp_path: Path) -> None:
        outcome = command("train", "--info", "defaults", "loss=yolo")
        assert outcome.code == 0
        assert "box_loss/yolo" in outcome.out
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("argv", [["-m", "loss=focal,ssd"], ["loss=focal,ssd", "-m"]])
    def test_multirun_runs_each(self, command: Command, tmp_path: Path, argv: list[str]) -> None:
        losses: list[str] = []
        outcome = command("train", *argv, run=lambda config: losses.append(config.loss.name))
        assert (outcome.code, losses) == (0, ["focal", "ssd"])
        assert list(tmp_path.iterdir()) == []

    def test_multirun_goes_on_after_a_run_that_failed(self, command: Command) -> None:
        losses: list[str] = []

        def run(config: DictConfig) -> None:
            losses.append(config.loss.name)
            if config.loss.name == "focal":
                raise DivergedError("focal: not finite")

        outcome = command("train", "-m", "loss=focal,ssd", run=run)
        assert (outcome.code, losses) == (4, ["focal", "ssd"])
        assert outcome.err == "error: focal: not finite\n"

    def test_multirun_refuses_what_a_run_refuses(self, command: Command) -> None:
        outcome = command("train", "-m", "loss=focal,sd")
        assert outcome.code == 2
        assert outcome.err.startswith("error: loss=sd: unknown (did you mean 'ssd'?); allowed: ")

    def test_a_config_of_ones_own_is_found(self, command: Command, tmp_path: Path) -> None:
        folder = tmp_path / "it's mine" / "experiment"
        folder.mkdir(parents=True)
        (folder / "long.yaml").write_text("# @package _global_\nsteps: 12345\n")
        steps: list[int] = []
        argv = ["--config-dir", str(folder.parent), "experiment=long"]
        assert command("train", *argv, run=lambda config: steps.append(config.steps)).code == 0
        assert steps == [12345]


class TestCodeInConfigs:
    """A config is data, wherever it comes from: nothing in it is imported or called."""

    @pytest.mark.parametrize("target", TARGETS)
    def test_a_target_is_refused_in_every_place(
        self, command: Command, tmp_path: Path, target: str
    ) -> None:
        folder = tmp_path / "configs" / "experiment"
        folder.mkdir(parents=True)
        marker = tmp_path / "marker"
        call = {"_target_": target, "_args_": [f"touch {marker}"]}
        places = [
            {"loss": call},
            {"loss": {"name": "focal", "extra": [call]}},
            {"hydra": {"callbacks": {"own": call}}},
            {"hydra": {"launcher": {"_target_": target}}},
            {"hydra": {"sweeper": {"_target_": target}}},
        ]
        for place in places:
            text = f"# @package _global_\n{json.dumps(place)}\n"
            (folder / "evil.yaml").write_text(text)
            argv = ["--config-dir", str(folder.parent), "experiment=evil"]
            outcome = command("train", *argv)
            assert outcome.code == 2, place
            assert "refused" in outcome.message, place
            assert not marker.exists()

    @pytest.mark.parametrize(
        "flags", [["-m"], ["--cfg", "job"], ["--help"], ["-m", "seed=1,2"], []]
    )
    def test_a_callback_of_hydras_is_refused_under_every_flag(
        self, command: Command, tmp_path: Path, flags: list[str]
    ) -> None:
        marker = tmp_path / "marker"
        evil = f"+hydra.callbacks.own={{_target_:os.system,command:'touch {marker}'}}"
        assert "refused" in command("train", *flags, evil).message
        assert not marker.exists()

    def test_a_handler_of_the_log_is_refused(self, command: Command, tmp_path: Path) -> None:
        marker = tmp_path / "marker"
        folder = tmp_path / "configs" / "experiment"
        folder.mkdir(parents=True)
        handler = json.dumps({"()": "os.system", "command": f"touch {marker}"})
        text = f"# @package _global_\nhydra: {{hydra_logging: {{handlers: {{a: {handler}}}}}}}\n"
        (folder / "evil.yaml").write_text(text)
        argv = ["--config-dir", str(folder.parent), "experiment=evil", "-m"]
        assert "refused" in command("train", *argv).message
        assert not marker.exists()

    @pytest.mark.parametrize("target", TARGETS)
    def test_a_target_in_a_checkpoints_config_is_refused(self, target: str) -> None:
        with pytest.raises(ConfigError, match=r"^loss\._target_: .* `_target_` is refused$"):
            from_plain({"loss": {"_target_": target}})

    @pytest.mark.parametrize(
        "value",
        [
            "${oc.env:DETECTOR_SECRET}",
            "a/${oc.env:DETECTOR_SECRET,b}",
            "${${seed}:DETECTOR_SECRET}",
            "${seed}${oc.env:DETECTOR_SECRET}",
            "${oc.decode:'1'}",
            "${hydra:runtime.cwd}",
        ],
    )
    def test_a_resolver_is_refused(
        self, command: Command, monkeypatch: pytest.MonkeyPatch, value: str
    ) -> None:
        monkeypatch.setenv("DETECTOR_SECRET", "swordfish")
        outcome = command("train", f'output_dir="{value}"')
        assert outcome.code == 2
        assert outcome.message.startswith("output_dir: ")
        assert "refused" in outcome.message
        assert "swordfish" not in outcome.err

    def test_a_reference_to_another_key_is_followed(self, command: Command) -> None:
        seen: list[dict[str, Any]] = []

        def run(config: DictConfig) -> None:
            from detector.config.compose import plain_values

            seen.append(plain_values(config))

        argv = ["output_dir=runs/${loss.name}_${model.coder.weights[0]}"]
        assert command("train", *argv, run=run).code == 0
        assert seen[0]["output_dir"] == "runs/focal_1.0"
