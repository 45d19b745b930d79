"""What people type at a command, understood where it can only mean one thing.

Other frameworks say `imgsz` and `batch`; a key below a group is asked for by its last word. What
means one thing is taken (`epochs=3`, a YOLO data file as `data=`); everything else is answered with
the key that was meant, and with none where none is near.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from detector.cli.yaml_files import CONFIGS
from detector.errors import ConfigError, did_you_mean

MEANT: Mapping[str, tuple[str, ...]] = {
    "lr": ("optim.lr",),
    "lr0": ("optim.lr",),
    "learning_rate": ("optim.lr",),
    "wd": ("optim.weight_decay",),
    "optimizer": ("optim",),
    "scheduler": ("schedule",),
    "imgsz": ("augment.max_size", "augment.min_size"),
    "img": ("augment.max_size", "augment.min_size"),
    "img_size": ("augment.max_size", "augment.min_size"),
    "image_size": ("augment.max_size", "augment.min_size"),
    "size": ("augment.max_size", "augment.min_size"),
    "batch": ("batch_size",),
    "bs": ("batch_size",),
    "workers": ("loader.num_workers",),
    "num_workers": ("loader.num_workers",),
    "pretrained": ("weights=FILE", "backbone.weights=NAME"),
    "dataset": ("data",),
    "root": ("data.root", "data_root"),
    "network": ("backbone",),
    "amp": ("precision",),
    "fp16": ("precision",),
    "half": ("precision",),
    "dtype": ("precision",),
    "num_epochs": ("epochs",),
    "max_epochs": ("epochs",),
    "iterations": ("steps",),
    "max_steps": ("steps",),
    "project": ("output_dir",),
    "save_dir": ("output_dir",),
    "out": ("output_dir", "output"),
    "ckpt": ("checkpoint",),
    "weights": ("checkpoint",),
    "model": ("checkpoint",),
    "images": ("source",),
    "conf": ("threshold",),
    "format": ("formats",),
    "confidence": ("threshold",),
    "score_threshold": ("threshold",),
    "iou": ("model.postprocess.nms_iou",),
    "val_interval": ("evaluation.every",),
    "eval_every": ("evaluation.every",),
}
"""Words of other frameworks: keys of this one, of which those that a command has are named."""

CHOSEN: Mapping[tuple[str, str], str] = {
    ("data", "roboflow"): "it exports coco, voc and yolo: say which of them it was",
    ("data", "pascal"): "Pascal VOC is voc",
    ("data", "ultralytics"): "its layout is yolo",
    ("data", "custom"): "data of your own are in one of these layouts",
}
"""Values that name something else: what to say."""

EVALUATION = ("analysis", "draws", "evaluator", "limit", "pictures", "worst")
"""Keys of `evaluation` in a training that are keys of the command `evaluate` itself."""


def understood(command: str, words: Iterable[str]) -> list[str]:
    """The overrides as the command's yaml has them. Raises ConfigError for what names its own
    answer: `device=0`."""
    words = [_quoted(word) for word in words]
    for word in words:
        key, _, value = word.partition("=")
        if key == "device" and re.fullmatch(r"\d+", value):
            raise ConfigError(f"device: {value} given, did you mean device=cuda:{value}?")
    if command == "evaluate":
        return [_of_evaluate(word) for word in words]
    if takes_a_run(command):
        return _of_a_run(words)
    return words


def _quoted(word: str) -> str:
    """`metric=recall@fppi=0.1` and `metric=class:red circle` need no quotes of their own."""
    key, _, value = word.partition("=")
    if key != "metric" or value[:1] in ("'", '"'):
        return word
    return "{}='{}'".format(key, value.replace("'", "\\'"))


def takes_a_run(command: str) -> bool:
    """Whether a command has all keys of a training; a config of one's own is taken for one."""
    file = CONFIGS / f"{command}.yaml"
    if command == "train" or not file.exists():
        return True
    defaults = yaml.safe_load(file.read_text()).get("defaults") or []
    return "train" in defaults


def _of_evaluate(word: str) -> str:
    """`data.root=D` sets what the config of this command need not hold."""
    key = word.partition("=")[0]
    group, _, last = key.partition(".")
    if group == "data" and last:
        return f"++{word}"
    if group == "evaluation" and last in EVALUATION:
        return word.removeprefix("evaluation.")
    return word


def _of_a_run(words: list[str]) -> list[str]:
    """A length in epochs or in steps, which takes the place of the other; a YOLO data file."""
    words = [part for word in words for part in _data_file(_of_held_out(word))]
    keys = {word.lstrip("+~").partition("=")[0] for word in words}
    for key, other in (("epochs", "steps"), ("steps", "epochs")):
        if key in keys and other not in keys and f"{key}=null" not in words:
            words.append(f"{other}=null")
    file = next((w.partition("=")[2] for w in words if w.startswith("data.file=")), None)
    if "data=yolo" in words and file and "data.root" not in keys and Path(file).is_absolute():
        words.append(f"data.root={root_of(Path(file))}")
    return words


def _of_held_out(word: str) -> str:
    """`data.of.root=D` of `data=held_out`, whose yaml cannot hold the keys of every reader."""
    return f"++{word}" if word.startswith("data.of.") else word


def _data_file(word: str) -> list[str]:
    key, _, value = word.partition("=")
    if key != "data" or Path(value).suffix not in (".yaml", ".yml"):
        return [word]
    return ["data=yolo", f"data.file={Path(value).expanduser().absolute()}"]


def root_of(file: Path) -> Path:
    """The folder to which the others of a YOLO data file are relative: its `path`, where that is a
    folder on this machine, else its own."""
    try:
        content: Any = yaml.safe_load(file.read_bytes())
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return file.parent  # the reader says what is wrong with it
    path = content.get("path") if isinstance(content, dict) else None
    root = file.parent / Path(path).expanduser() if isinstance(path, str) and path else file.parent
    return root if root.is_dir() else file.parent


def given_twice(words: Iterable[str]) -> list[str]:
    """A line for each key that stands in several words, of which the last is taken."""
    values: dict[str, list[str]] = {}
    for word in words:
        key, sign, value = word.partition("=")
        if sign and not key.startswith(("+", "~")):
            values.setdefault(key, []).append(value)
    return [
        f"{key}: given {len(found)} times, the last is taken: {key}={found[-1]}"
        for key, found in values.items()
        if len(found) > 1
    ]


def hint(path: str, known: Iterable[str]) -> str:
    """A clause such as " (did you mean 'optim.lr'?)", or nothing where no key is near.

    path: what was typed. known: every key of the command, nested ones with dots.
    """
    known = [*known]
    last = path.rpartition(".")[2].lower().replace("-", "_")
    meant = [key for key in MEANT.get(last, ()) if key.partition("=")[0] in known]
    same = [key for key in known if key.rpartition(".")[2] == last and key != path]
    found = meant or same
    if 0 < len(found) <= 3:
        return f" (did you mean {' or '.join(map(repr, found))}?)"
    ends = {key.rpartition(".")[2]: key for key in known if "." in key}
    return did_you_mean(path, known) or did_you_mean(last, ends, of=ends)
