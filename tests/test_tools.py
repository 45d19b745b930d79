"""What a user sees of the tools: one line for a mistake, an exit code, and no stray files."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from omegaconf import DictConfig, OmegaConf

from detector.config import from_plain
from detector.errors import ConfigError, DataError, DivergedError, Preempted, UserError
from detector.schema import Plug

ROOT = Path(__file__).parent.parent
TOOLS = sorted(path.stem for path in (ROOT / "tools").glob("*.py") if path.stem != "cli")

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


class Outcome(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """The one line on stderr, which is all there is."""
        assert self.out == ""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("error: ")
        return lines[0].removeprefix("error: ")


def load(name: str) -> Any:
    """A file of `tools` as a module. The tools are scripts: they find `cli` beside themselves."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


Command = Callable[..., Outcome]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Calls a tool in an empty folder, in this process. run: replaces what it does."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    monkeypatch.chdir(tmp_path)

    def call(tool: str, *argv: str, run: Callable[[DictConfig], None] | None = None) -> Outcome:
        monkeypatch.setattr(sys, "argv", [f"{tool}.py", *argv])
        code = 0
        try:
            load("cli").main(tool, run or getattr(load(tool), tool))
        except SystemExit as error:
            code = int(error.code or 0)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


def script(tool: str, *argv: str, cwd: Path) -> Outcome:
    """Calls a tool as a user does."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / f"{tool}.py"), *argv],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


MISTAKES = [
    (
        ["loss=focall"],
        "loss=focall: unknown (did you mean 'focal'?); allowed: balanced_cross_entropy, "
        "cross_entropy, focal, ohem, ssd, yolo",
    ),
    (["experiment=smok"], "experiment=smok: unknown (did you mean 'smoke'?); allowed: "),
    (["loss.gama=3"], "loss.gama: unknown key (did you mean 'gamma'?); allowed: "),
    (["+loss.gama=3"], "loss.gama: unknown key (did you mean 'gamma'?); allowed: alpha, gamma"),
    (["++loss.gama=3"], "loss.gama: unknown key (did you mean 'gamma'?); allowed: alpha, gamma"),
    (["+model.head.chanels=3"], "model.head.chanels: unknown key (did you mean 'channels'?)"),
    (["los=focal"], "los: unknown key (did you mean 'loss'?); allowed: "),
    (["+los=focal"], "los: unknown key (did you mean 'loss'?); allowed: "),
    (["experimnt=smoke"], "experimnt: unknown key (did you mean 'experiment'?); allowed: "),
    (["loss.gamma.x=3"], "loss.gamma.x: unknown key; allowed: none"),
    (["optim.lr=abc"], "optim.lr: 'abc' is not a number"),
    (["optim.lr=null"], "optim.lr: None is not a number"),
    (["optim.betas=[0.9]"], "optim.betas: 1 entries given, 2 are needed"),
    (["steps=abc"], "steps: 'abc' is not an integer"),
    (["steps=0"], "steps: 0 given, at least 1 is needed"),
    (["steps=null", "epochs=0"], "epochs: 0.0 given, above 0 is needed"),
    (["seed=-1"], "seed: -1 given, at least 0 is needed"),
    (["batch_size=0"], "batch_size: 0 given, at least 1 is needed"),
    (["micro_batch=-2"], "micro_batch: -2 given, at least 1 is needed"),
    (["max_bad_steps=0"], "max_bad_steps: 0 given, at least 1 is needed"),
    (["log_every=0"], "log_every: 0 given, at least 1 is needed"),
    (["save_every=0"], "save_every: 0 given, at least 1 is needed"),
    (["clip=-1"], "clip: -1.0 given, above 0 or null is allowed"),
    (["ema.decay=1"], "ema.decay: 1.0 given, 0 to below 1 is allowed"),
    (["loader.num_workers=-1"], "loader.num_workers: -1 given, at least 0 is needed"),
    (["evaluation.every=0"], "evaluation.every: 0 given, at least 1 is needed"),
    (["evaluation.limit=0"], "evaluation.limit: 0 given, at least 1 is needed"),
    (["model.postprocess.topk_per_level=0"], "model.postprocess.topk_per_level: 0 given, at "),
    (["model.postprocess.nms_iou=2"], "model.postprocess.nms_iou: 2.0 given, 0 to 1 is allowed"),
    (["epochs=2"], "steps: 1000 with epochs: 2.0 given, exactly one of them is needed"),
    (["prior=2"], "prior: 2.0 given, above 0 and below 1 or from_data is allowed"),
    (["precision=half"], "precision: 'half' is not one of auto, float64, float32, "),
    (["loss.weight=-1"], "loss.weight: -1.0 given, a number of at least 0 is needed"),
    (["matcher.weight=1"], "matcher.weight: unknown key; allowed: "),
    (["+matcher.weight=1"], "matcher.weight: unknown key; allowed: "),
    (["backbone.arch=resnet19"], "backbone.arch: 'resnet19' is not one of resnet18, "),
    (["loss.name=focall"], "loss=focall: unknown (did you mean 'focal'?); allowed: "),
    (["~loss"], "loss: has to be given"),
    (["~foo"], "Could not delete from config. 'foo' does not exist."),
    (["data=coco"], "data.root: has to be given"),
    (["output_dir=???"], "output_dir: has to be given"),
    (["--resume"], "--resume: unknown flag; keys are written resume=auto"),
    (["--resume", "auto"], "--resume: unknown flag; keys are written resume=auto"),
    (["--steps=3"], "--steps=3: unknown flag; keys are written steps=VALUE"),
    (["steps=3", "-m", "seed=1"], "seed=1: flags such as -m come before or after all keys"),
    (["--cfg", "jobs"], "argument --cfg/-c: invalid choice: 'jobs'"),
    (["--cfg", "job", "-m"], "only one of --run, --multirun, --cfg, --info, "),
    (["--resolve"], "--resolve: goes with --cfg or --help only"),
    (["--experimental-rerun", "a.pickle"], "--experimental-rerun: refused"),
    (["--config-dir", "nowhere"], "--config-dir: "),
    (["--config-name", "trian"], "Cannot find primary config 'trian'"),
    (["focal"], "focal: not understood, keys are written KEY=VALUE; see --help"),
    (["loss=focal,ssd"], "Ambiguous value for argument 'loss=focal,ssd' "),
    (["+loss=ssd"], "Multiple values for loss"),
    (["output_dir=${oc.env:HOME}"], "output_dir: '${oc.env:HOME}' is refused; "),
    (["output_dir=${nowhere}"], "Interpolation key 'nowhere' not found"),
]


@pytest.mark.parametrize(
    ("argv", "message"), MISTAKES, ids=[" ".join(argv) for argv, _ in MISTAKES]
)
def test_a_mistake_is_answered_in_one_line(
    command: Command, tmp_path: Path, argv: list[str], message: str
) -> None:
    outcome = command("train", *argv)
    assert outcome.code == 2
    assert outcome.message.startswith(message)
    assert list(tmp_path.iterdir()) == []


def test_a_value_out_of_range_is_answered_in_one_line(command: Command, tmp_path: Path) -> None:
    outcome = command("train", "experiment=smoke", "loss.gamma=-1")
    assert outcome.code == 2
    assert outcome.message == "loss.gamma: -1.0 given, at least 0 is needed"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("argv", [["loss=focall"], ["--resume"], ["+loss.gama=1"]])
def test_a_user_sees_the_same_from_any_folder(tmp_path: Path, argv: list[str]) -> None:
    outcome = script("train", *argv, cwd=tmp_path)
    assert outcome.code == 2
    assert outcome.message.startswith(argv[0].lstrip("+").removesuffix("=1"))
    assert list(tmp_path.iterdir()) == []


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

    outcome = command("train", "hydra/hydra_logging=none", *flags, run=run)
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
            from detector.config import plain_values

            seen.append(plain_values(config))

        argv = ["output_dir=runs/${loss.name}_${model.coder.weights[0]}"]
        assert command("train", *argv, run=run).code == 0
        assert seen[0]["output_dir"] == "runs/focal_1.0"


class TestEvaluate:
    @pytest.mark.parametrize(
        ("argv", "message"),
        [
            ([], "checkpoint: has to be given"),
            (["checkpoint=nowhere.pt"], "checkpoint: nowhere.pt is not a file"),
            (["checkpoint=a", "evaluator=coco"], "evaluator: 'coco' is not one of pycocotools"),
            (["chekpoint=a"], "chekpoint: unknown key (did you mean 'checkpoint'?)"),
            (["checkpoint=a", "+splits=a"], "splits: unknown key; allowed: "),
        ],
    )
    def test_a_mistake_is_answered_in_one_line(
        self, command: Command, tmp_path: Path, argv: list[str], message: str
    ) -> None:
        outcome = command("evaluate", *argv)
        assert outcome.code == 2
        assert outcome.message.startswith(message)
        assert list(tmp_path.iterdir()) == []


class TestGenerate:
    SMALL = ("data.num_train=3", "data.num_val=2", "data.image_size=128")

    def test_prints_the_figures_of_each_split(self, command: Command, tmp_path: Path) -> None:
        outcome = command("generate", *self.SMALL)
        assert (outcome.code, outcome.err) == (0, "")
        heads = [line for line in outcome.out.splitlines() if line.startswith("generated")]
        assert [head.partition(" images")[0] for head in heads] == [
            "generated train: 3",
            "generated val: 2",
        ]
        assert outcome.out.count("background per foreground") == 2
        assert list(tmp_path.iterdir()) == []

    def test_writes_files_and_says_how_to_read_them(self, command: Command) -> None:
        from detector.config import from_omegaconf
        from detector.data.readers.generated import GeneratedReader
        from detector.registry import DATASETS

        outcome = command("generate", *self.SMALL, "output_dir=shapes")
        assert outcome.code == 0
        *_, last = outcome.out.splitlines()
        overrides = last.removeprefix("to read it: ").split()
        plugs: list[Plug] = []
        command("train", *overrides, run=lambda node: plugs.append(from_omegaconf(node)[0].data))
        files = DATASETS.build(plugs[0])
        built_in = GeneratedReader(num_train=3, num_val=2, image_size=128)
        for split in ("train", "val"):
            read, drawn = files.read(split), built_in.read(split)
            assert (read.image(1) == drawn.image(1)).all()
            assert (read.annotations.boxes(1) == drawn.annotations.boxes(1)).all()

    def test_does_not_write_into_a_folder_with_files(
        self, command: Command, tmp_path: Path
    ) -> None:
        (tmp_path / "mine.txt").touch()
        outcome = command("generate", f"output_dir={tmp_path}")
        assert outcome.code == 2
        assert outcome.message == f"output_dir: {tmp_path} is not empty"

    @pytest.mark.parametrize(
        ("argv", "message"),
        [
            (["splits=[test]"], "splits[0]: 'test' is not one of train, val"),
            (["limit=0"], "limit: 0 given, at least 1 is needed"),
            (["data.num_clases=3"], "data.num_clases: unknown key (did you mean 'num_classes'?)"),
            (["data.num_classes=99"], "data.num_classes: 99 given, at most 18 is allowed"),
        ],
    )
    def test_a_mistake_is_answered_in_one_line(
        self, command: Command, argv: list[str], message: str
    ) -> None:
        outcome = command("generate", *argv)
        assert outcome.code == 2
        assert outcome.message.startswith(message)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory in which a run lies under `run`."""
    folder = tmp_path_factory.mktemp("smoke")
    outcome = script("train", "experiment=smoke", "output_dir=run", cwd=folder)
    assert outcome.code == 0, outcome.err
    return folder


class TestSmoke:
    """The whole path in seconds, as a user calls it."""

    def test_training_leaves_a_run_folder_and_nothing_else(self, folder: Path) -> None:
        assert os.listdir(folder) == ["run"]
        names = {"config.yaml", "log.jsonl", "metrics.json", "detections.json", "status.json"}
        assert names <= set(os.listdir(folder / "run"))
        assert json.loads((folder / "run" / "status.json").read_text())["state"] == "done"

    def test_a_second_run_into_the_folder_is_refused(self, folder: Path) -> None:
        outcome = script("train", "experiment=smoke", "output_dir=run", cwd=folder)
        assert outcome.code == 2
        assert outcome.message.startswith("output_dir: run already holds a run")

    def test_evaluating_the_checkpoint_gives_the_same_numbers(
        self, folder: Path, tmp_path: Path
    ) -> None:
        checkpoint = folder / "run" / "checkpoints" / "last.pt"
        outcome = script("evaluate", f"checkpoint={checkpoint}", "output_dir=out", cwd=tmp_path)
        assert outcome.code == 0, outcome.err
        trained = json.loads((folder / "run" / "metrics.json").read_text())
        scored = json.loads((tmp_path / "out" / "metrics.json").read_text())
        assert {**scored, "seconds": 0} == {**trained, "seconds": 0}
