"""What a user sees of the tools: one line for a mistake, and the files that are promised."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import pytest

from detector.config.schema import Plug
from tests.commands import ROOT, Command, script

CLASS_LOSSES = sorted(file.stem for file in (ROOT / "configs" / "loss").glob("*.yaml"))
MISTAKES = [
    (
        ["loss=focall"],
        "loss=focall: unknown (did you mean 'focal'?); allowed: " + ", ".join(CLASS_LOSSES),
    ),
    (["experiment=smok"], "experiment=smok: unknown (did you mean 'smoke'?); allowed: "),
    (["loss.gama=3"], "loss.gama: unknown key (did you mean 'gamma'?); allowed: "),
    (["+loss.gama=3"], "loss.gama: unknown key (did you mean 'gamma'?); allowed: alpha, gamma"),
    (["++loss.gama=3"], "loss.gama: unknown key (did you mean 'gamma'?); allowed: alpha, gamma"),
    (["+model.head.chanels=3"], "model.head.chanels: unknown key (did you mean 'channels'?)"),
    (["los=focal"], "los: unknown key (did you mean 'loss'?); allowed: "),
    (["+los=focal"], "los: unknown key (did you mean 'loss'?); allowed: "),
    (["experimnt=smoke"], "experimnt: unknown key (did you mean 'experiment'?); allowed: "),
    (["loss.gamma.x=3"], "loss.gamma.x: unknown key (did you mean 'loss.gamma'?); allowed: none"),
    (["optim.lr=abc"], "optim.lr: 'abc' is not a number"),
    (["optim.lr=null"], "optim.lr: None is not a number"),
    (["optim.betas=[0.9]"], "optim.betas: 1 entries given, 2 are needed"),
    (["steps=abc"], "steps: 'abc' is not an integer"),
    (["steps=0"], "steps: 0 given, at least 1 or null is needed"),
    (["steps=null", "epochs=0"], "epochs: 0.0 given, above 0 or null is needed"),
    (["seed=-1"], "seed: -1 given, at least 0 is needed"),
    (["batch_size=0"], "batch_size: 0 given, at least 1 is needed"),
    (["micro_batch=-2"], "micro_batch: -2 given, at least 1 or null is needed"),
    (["max_bad_steps=0"], "max_bad_steps: 0 given, at least 1 is needed"),
    (["log_every=0"], "log_every: 0 given, at least 1 is needed"),
    (["save_every=0"], "save_every: 0 given, at least 1 or null is needed"),
    (["clip=-1"], "clip: -1.0 given, above 0 or null is needed"),
    (["ema.decay=1"], "ema.decay: 1.0 given, 0 to below 1 is allowed"),
    (["loader.num_workers=-1"], "loader.num_workers: -1 given, at least 0 or null is needed"),
    (["evaluation.every=0"], "evaluation.every: 0 given, at least 1 is needed"),
    (["evaluation.limit=0"], "evaluation.limit: 0 given, at least 1 or null is needed"),
    (["model.postprocess.topk_per_level=0"], "model.postprocess.topk_per_level: 0 given, at "),
    (["model.postprocess.nms_iou=2"], "model.postprocess.nms_iou: 2.0 given, 0 to 1 is allowed"),
    (["epochs=2", "steps=9"], "steps: 9 with epochs: 2.0 given, exactly one of them is needed"),
    (["prior=2"], "prior: 2.0 given, above 0 and below 1 or from_data is allowed"),
    (["precision=half"], "precision: 'half' is not one of auto, float64, float32, "),
    (["loss.weight=-1"], "loss.weight: -1.0 given, a number of at least 0 is needed"),
    (["matcher.weight=1"], "matcher.weight: unknown key "),
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
    (["output_dir=a=(b)"], "output_dir=a=(b): not understood, keys are written KEY=VALUE; see "),
    (["=1"], "=1: a key is missing; see --help"),
    (["loss=null"], "loss=null: a name is needed; allowed: " + ", ".join(CLASS_LOSSES)),
    (["+loss=3"], "+loss=3: a name is needed; allowed: " + ", ".join(CLASS_LOSSES)),
    (["experiment=null"], "experiment=null: a name is needed; allowed: accurate, bccd_320, "),
    (["loss=focal,ssd"], "loss=focal,ssd: a list is written "),
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


@pytest.mark.parametrize("name", ["file", "file/runs"])
def test_a_file_where_the_run_folder_should_be_is_named_before_data_are_read(
    command: Command, tmp_path: Path, name: str
) -> None:
    (tmp_path / "file").touch()
    outcome = command("train", "data=voc", "data.root=nowhere", f"output_dir={name}")
    assert outcome.code == 2
    file = tmp_path / "file"
    assert outcome.message == f"output_dir: {name}, but {file} is not a folder"


def test_a_folder_that_cannot_be_written_is_named(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        os, "access", lambda path, mode: path != tmp_path
    )  # root may write anywhere
    outcome = command("train", "data=voc", "data.root=nowhere", "output_dir=a/b")
    assert outcome.code == 2
    assert outcome.message == f"output_dir: a/b, but {tmp_path} cannot be written"


@pytest.mark.parametrize("argv", [["loss=focall"], ["--resume"], ["+loss.gama=1"]])
def test_a_user_sees_the_same_from_any_folder(tmp_path: Path, argv: list[str]) -> None:
    outcome = script("train", *argv, cwd=tmp_path)
    assert outcome.code == 2
    assert outcome.message.startswith(argv[0].lstrip("+").removesuffix("=1"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("tool", "argv"),
    [
        ("train", []),
        ("evaluate", ["checkpoint=a.pt"]),
        ("predict", ["checkpoint=a.pt", "source=a.png"]),
        ("show_batch", []),
        ("generate", []),
    ],
)
def test_libraries_that_do_not_fit_are_named_before_they_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str, argv: list[str]
) -> None:
    (tmp_path / "torch.py").write_text("__version__ = '2.9.1'")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    outcome = script(tool, *argv, cwd=tmp_path)
    assert outcome.code == 2
    assert outcome.message.startswith("torch 2.9.1: 2.10 or newer is needed; reinstall both: ")


class TestEvaluate:
    @pytest.mark.parametrize(
        ("argv", "message"),
        [
            ([], "checkpoint: has to be given"),
            (["checkpoint=nowhere.pt"], "checkpoint: nowhere.pt is not a file"),
            (["checkpoint=a", "evaluator=coco"], "evaluator: 'coco' is not one of pycocotools"),
            (["chekpoint=a"], "chekpoint: unknown key (did you mean 'checkpoint'?)"),
            (["checkpoint=a", "+splits=a"], "splits: unknown key"),
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
        from detector.config.compose import from_omegaconf
        from detector.config.registry import DATASETS
        from detector.data.readers.generated import GeneratedReader

        outcome = command("generate", *self.SMALL, "output_dir=my shapes")
        assert outcome.code == 0
        *_, last = outcome.out.splitlines()
        overrides = shlex.split(last.removeprefix("to read it: "))
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
        for path in (tmp_path, tmp_path / "mine.txt"):
            outcome = command("generate", f"output_dir={path}")
            assert outcome.code == 2
            assert outcome.message == f"output_dir: {path} is not a new or empty folder"

    @pytest.mark.parametrize(
        ("argv", "message"),
        [
            (["splits=[test]"], "splits[0]: 'test' is not one of train, val"),
            (["limit=0"], "limit: 0 given, at least 1 or null is needed"),
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

    def test_data_that_have_moved_since_training_are_asked_for(
        self, command: Command, folder: Path
    ) -> None:
        from detector.runs import checkpoint

        content = checkpoint.load(folder / "run" / "checkpoints" / "last.pt")
        content["config"]["data"] = {"name": "voc", "root": "gone"}
        checkpoint.save(Path("moved.pt"), content)
        message = "data.root={}: there is no such folder; data_root= says where the data lie now"
        for root, argv in (("gone", []), ("too", ["data_root=too"])):
            outcome = command("evaluate", "checkpoint=moved.pt", *argv)
            assert (outcome.code, outcome.message) == (3, message.format(root))

    def test_a_checkpoint_in_a_folder_that_cannot_be_written_wants_another_for_its_scores(
        self, command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        checkpoints = folder / "run" / "checkpoints"
        monkeypatch.setattr(os, "access", lambda path, mode: path != checkpoints)
        outcome = command("evaluate", f"checkpoint={checkpoints / 'last.pt'}", "device=cpu")
        assert outcome.code == 2
        wanted = f"output_dir: {checkpoints / 'evaluation'}, but {checkpoints} cannot be written"
        assert outcome.message == wanted

    def test_evaluating_the_checkpoint_gives_the_same_numbers(
        self, folder: Path, tmp_path: Path
    ) -> None:
        checkpoint = folder / "run" / "checkpoints" / "last.pt"
        outcome = script("evaluate", f"checkpoint={checkpoint}", "output_dir=out", cwd=tmp_path)
        assert outcome.code == 0, outcome.err
        trained = json.loads((folder / "run" / "metrics.json").read_text())
        scored = json.loads((tmp_path / "out" / "metrics.json").read_text())
        assert {**scored, "seconds": 0} == {**trained, "seconds": 0}
