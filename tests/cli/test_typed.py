"""What people type at a command, and the one line that answers it, or that it works."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from detector.cli import hydra_app, typed
from detector.errors import did_you_mean
from tests.commands import Command, Outcome


def composed(command: Command, *words: str, tool: str = "train") -> tuple[DictConfig, Outcome]:
    """The config that a command would run with, and what it said."""
    seen: list[Any] = []
    outcome = command(tool, *words, run=seen.append)
    assert outcome.code == 0, outcome.err
    return seen[0], outcome


@pytest.mark.parametrize(
    ("tool", "word", "answer"),
    [
        ("train", "lr=0.01", "lr: unknown key (did you mean 'optim.lr'?)"),
        (
            "train",
            "imgsz=640",
            "imgsz: unknown key (did you mean 'augment.max_size' or 'augment.min_size'?)",
        ),
        ("train", "batch=16", "batch: unknown key (did you mean 'batch_size'?)"),
        ("train", "workers=4", "workers: unknown key (did you mean 'loader.num_workers'?)"),
        ("train", "device=0", "device: 0 given, did you mean device=cuda:0?"),
        ("predict", "device=1", "device: 1 given, did you mean device=cuda:1?"),
        (
            "train",
            "pretrained=true",
            "pretrained: unknown key (did you mean 'weights=FILE' or 'backbone.weights=NAME'?)",
        ),
        (
            "train",
            "data=roboflow",
            "data=roboflow: unknown (it exports coco, voc and yolo: say which of them it was); "
            "allowed: ",
        ),
        ("train", "backbone=resnet152", "backbone=resnet152: unknown; allowed: "),
        ("train", "gamma=1", "gamma: unknown key (did you mean 'loss.gamma'?)"),
        ("train", "loss.lr=1", "loss.lr: unknown key (did you mean 'optim.lr'?)"),
        ("train", "loss.gama=1", "loss.gama: unknown key (did you mean 'gamma'?)"),
        ("train", "nonsense=1", "nonsense: unknown key; allowed: "),
        ("evaluate", "model=best.pt", "model: unknown key (did you mean 'checkpoint'?)"),
        ("predict", "images=d", "images: unknown key (did you mean 'source'?)"),
        ("predict", "conf=0.5", "conf: unknown key (did you mean 'threshold'?)"),
        (
            "compare",
            "losses=focal,ssd",
            'losses=focal,ssd: a list is written "losses=[focal,ssd]", in quotes of the shell',
        ),
    ],
)
def test_a_slip_is_answered_with_the_key_that_was_meant(
    command: Command, tool: str, word: str, answer: str
) -> None:
    outcome = command(tool, word)
    assert outcome.code == 2
    assert outcome.message.startswith(answer)


def test_epochs_alone_take_the_place_of_the_steps_of_the_yaml(command: Command) -> None:
    config, _ = composed(command, "epochs=3")
    assert (config.epochs, config.steps) == (3, None)
    config, _ = composed(command, "experiment=coco_r50_1x", "epochs=3")
    assert (config.epochs, config.steps) == (3, None)


@pytest.mark.parametrize("metric", ["recall@fppi=0.1", "class:red circle", "class:it's"])
def test_a_metric_needs_no_quotes_of_its_own(command: Command, metric: str) -> None:
    config, _ = composed(command, f"metric={metric}", tool="compare")
    assert config.metric == metric


def test_both_lengths_are_refused_where_both_are_typed(command: Command) -> None:
    outcome = command("train", "epochs=3", "steps=5")
    assert outcome.code == 2
    assert "exactly one of them is needed" in outcome.message


def test_the_last_of_two_is_taken_and_that_is_said(command: Command) -> None:
    config, outcome = composed(command, "loss=focal", "loss=ssd")
    assert config.loss.name == "ssd"
    assert outcome.err == "loss: given 2 times, the last is taken: loss=ssd\n"


@pytest.mark.parametrize("path", [None, "elsewhere", "gone"])
def test_a_yolo_data_file_is_data(command: Command, tmp_path: Path, path: str | None) -> None:
    """Its `path` is taken where it is a folder here; that of another machine is not."""
    (tmp_path / "elsewhere").mkdir()
    file = tmp_path / "it.yaml"
    file.write_text("names: [a]\n" + (f"path: {path}\n" if path else ""))
    root = tmp_path / "elsewhere" if path == "elsewhere" else tmp_path
    for words in ([f"data={file}"], ["data=yolo", f"data.file={file}"]):
        config, _ = composed(command, *words)
        assert (config.data.name, config.data.file) == ("yolo", str(file))
        assert Path(config.data.root) == root
    config, _ = composed(command, f"data={file}", "data.root=/mine")
    assert config.data.root == "/mine"


def test_the_set_of_which_a_part_is_held_out_takes_plain_overrides(command: Command) -> None:
    words = ["data=held_out", "data.of.name=coco", "data.of.root=D", "data.share=0.1"]
    config, _ = composed(command, *words)
    assert config.data == {
        **{"name": "held_out", "of": {"name": "coco", "root": "D"}, "share": 0.1, "seed": 0}
    }


def test_names_with_other_numbers_are_no_slips_of_each_other() -> None:
    assert did_you_mean("resnet152", ["resnet50", "resnext50"]) == ""
    assert did_you_mean("resnt50", ["resnet18", "resnet50"]) == " (did you mean 'resnet50'?)"


def test_every_key_that_is_meant_is_one_of_some_command(command: Command) -> None:
    """So that a key which is renamed does not leave a wrong hint behind."""
    config, _ = composed(command, "data=coco", "data.root=D")
    known = {
        *hydra_app.keys_of(config),
        "checkpoint",
        "source",
        "threshold",
        "data_root",
        "output",
        "formats",
    }
    meant = {key.partition("=")[0] for keys in typed.MEANT.values() for key in keys}
    assert meant - known == {"backbone.weights"} - known


@pytest.mark.parametrize(
    ("words", "rank", "said"),
    [
        (["loss=ssd"], "0", "\rloading PyTorch ...\r"),
        (["loss=ssd"], "1", ""),
        (["--help"], "0", ""),
    ],
)
def test_a_terminal_has_a_word_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    rank: str,
    said: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    hydra_app.say_loading()
    assert capsys.readouterr().err == said
