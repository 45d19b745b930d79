"""Random faults: what is done (kind), to what (place), when (moment), all drawn from a seed.

A fault is drawn without looking at the project: its places are the files of a run and of data sets
as they lie on the disk, its words are keys as `--help` lists them.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Draws = random.Random

Keys = Mapping[str, Sequence[str]]
"""The keys of each command."""

Words = tuple[str, ...]

Damage = Callable[[Path, Draws], object]


def changed(change: Callable[[bytes, Draws], bytes]) -> Damage:
    """Other bytes in the same file."""
    return lambda path, draws: path.write_bytes(change(path.read_bytes(), draws))


def replaced(make: Callable[[Path], object]) -> Damage:
    """Something else under the same name."""

    def damage(path: Path, draws: Draws) -> None:
        removed(path)
        make(path)

    return damage


def removed(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def with_bits_flipped(content: bytes, draws: Draws) -> bytes:
    found = bytearray(content or b"\0")
    for _ in range(draws.choice([1, 1, 5, 50])):
        found[draws.randrange(len(found))] ^= 1 << draws.randrange(8)
    return bytes(found)


def with_a_part_cut(content: bytes, draws: Draws) -> bytes:
    first, last = sorted(draws.randrange(len(content) + 1) for _ in range(2))
    return content[:first] + content[last:]


def with_a_part_twice(content: bytes, draws: Draws) -> bytes:
    first, last = sorted(draws.randrange(len(content) + 1) for _ in range(2))
    last = min(last, first + 5000)
    return content[:last] + content[first:last] + content[last:]


ODD = (
    *("NaN", "Infinity", "-Infinity", "1e999", "-1", "0", "0.5", "null", "true", "[]", "{}", '""'),
    *('"text"', "99999999999999999999999", "-0.0", "1e-300", '"../../neighbour/precious.txt"'),
    *('"\\ud800"', '"\\u0000"', '"<script>alert(1)</script>"', "[[[[1]]]]", '{"a": {"b": 1}}'),
)
"""Values as JSON and yaml have them, each of them right somewhere and wrong elsewhere."""


def with_an_odd_value(content: bytes, draws: Draws) -> bytes:
    """A number, or a text in quotes, anywhere in a file of letters."""
    text = content.decode("utf-8", "surrogateescape")
    found = list(re.finditer(r"-?\d+(\.\d+)?|\"[^\"]*\"", text))
    if not found:
        return content
    for place in sorted(draws.sample(found, min(len(found), draws.choice([1, 1, 3]))), reverse=True,
                        key=lambda match: match.start()):  # fmt: skip
        text = text[: place.start()] + draws.choice(ODD) + text[place.end() :]
    return text.encode("utf-8", "surrogateescape")


def a_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the name of a socket is limited to 107 letters
    try:
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(path.name)
    finally:
        os.chdir(here)


DAMAGES: dict[str, Damage] = {
    "empty": changed(lambda content, draws: b""),
    "zeros": changed(lambda content, draws: b"\0" * len(content)),
    "half": changed(lambda content, draws: content[: draws.randrange(len(content) + 1)]),
    "bits": changed(with_bits_flipped),
    "cut": changed(with_a_part_cut),
    "twice": changed(with_a_part_twice),
    "odd": changed(with_an_odd_value),
    "noise": changed(lambda content, draws: draws.randbytes(draws.choice([1, 100, 5000]))),
    "tail": changed(lambda content, draws: content + draws.choice([b"\0", b"}", b"<a>", b"\xff"])),
    "mark": changed(lambda content, draws: b"\xef\xbb\xbf" + content),
    "wide": changed(lambda content, draws: content.decode("latin-1").encode("utf-16")),
    "words": changed(lambda content, draws: draws.choice(ODD).encode()),
    "deep": changed(lambda content, draws: b"[" * 100_000),
    "page": changed(lambda content, draws: b"<!DOCTYPE html><html><body>404</body></html>"),
    "gone": lambda path, draws: removed(path),
    "folder": replaced(os.mkdir),
    "FIFO": replaced(os.mkfifo),
    "socket": replaced(a_socket),
    "loop": replaced(lambda path: path.symlink_to(path.name)),
    "dangling": replaced(lambda path: path.symlink_to("nothing-of-this-name")),
    "device": replaced(lambda path: path.symlink_to("/dev/full")),
    "endless": replaced(lambda path: path.symlink_to("/dev/zero")),
}

SIDE_FILES = (
    *("status.json", "log.jsonl", "evaluations.jsonl", "metrics.json", "data.json"),
    *("config.yaml", "detections.json", "initial_loss.json", ".detector-run"),
)

CHECKPOINTS = ("checkpoints/last.pt", "checkpoints/best.pt")

TRUTH = "coco/annotations/instances_val.json"

COCO = (
    *("data=coco", "data.root=coco", "data.train_images=train", "data.val_images=val"),
    "data.train_annotations=annotations/instances_train.json",
    "data.val_annotations=annotations/instances_val.json",
)

VALUES = (
    *("nan", "inf", "-inf", "-1", "0", "0.5", "null", "true", "[]", "{}", "''", "text", "[1,2]"),
    *("{a: 1}", "1e-300", "-0.0", "猫", "'a b'", "${oc.env:HOME}", "${loss.name}", "../../x", "2"),
    *("'\x1b[2J'", "'$(touch x)'", "[null]", "999999999999999999999", "'" + "a" * 300 + "'", "/"),
)


@dataclass(frozen=True)
class Fault:
    """What is put into one call of a command.

    place: a file or folder of the case, or "". moment: before the call ("before") or seconds after
    its start. Files are damaged, signals sent to the command or its loader, limits set.
    """

    kind: str
    place: str
    moment: str
    command: str
    words: tuple[str, ...]
    is_damage: bool = False
    signal: str = ""
    to_loader: bool = False
    seconds: float = 0.0
    options: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    def __str__(self) -> str:
        where = f" of {self.place}" if self.place else ""
        return f"{self.kind}{where}, {self.moment}: {self.command} {' '.join(self.words)!r}"


def draw(seed: int, number: int, keys: Keys, train: Sequence[str]) -> Fault:
    """One fault. keys: of each command. train: the words of a small run."""
    draws = Draws(f"{seed}/{number}")
    of_place = draws.choices(list(PLACES), weights=[weight for _, weight in PLACES.values()])[0]
    words = PLACES[of_place][0](draws, keys, tuple(train))
    return Fault(**words, seed=draws.randrange(2**32))


def of_side_files(draws: Draws, keys: Keys, train: Words) -> dict[str, Any]:
    """A file of a finished run, then a command that works in its folder."""
    place = f"run/{draws.choice(SIDE_FILES)}"
    command, words = draws.choice(
        [
            ("train", (*train, "output_dir=run", "resume=auto", "steps=2")),
            ("train", (*train, "output_dir=run", "overwrite=true", "steps=1")),
            ("table", ("folder=.",)),
            ("evaluate", ("checkpoint=run/checkpoints/best.pt", "output_dir=out", "draws=0")),
        ]
    )
    return damaged(draws, place, command, words)


def of_checkpoints(draws: Draws, keys: Keys, train: Words) -> dict[str, Any]:
    place = f"run/{draws.choice(CHECKPOINTS)}"
    command, words = draws.choice(
        [
            ("train", (*train, "output_dir=run", "resume=auto", "steps=2")),
            ("train", (*train, "output_dir=run", f"resume={place}", "steps=2")),
            ("train", (*train, "output_dir=out", f"weights={place}", "steps=1")),
            ("evaluate", (f"checkpoint={place}", "output_dir=out", "draws=0")),
            ("predict", (f"checkpoint={place}", "source=coco/val", "output_dir=out")),
            ("calibrate", (f"checkpoint={place}", "output=out/calibrated.pt", "draws=0")),
            ("export", (f"checkpoint={place}", "output=out/model.safetensors")),
        ]
    )
    return damaged(draws, place, command, words)


def of_data(draws: Draws, keys: Keys, train: Words) -> dict[str, Any]:
    """A file of a data set: annotations, a label file, a list, an image."""
    name = draws.choice(["coco", "yolo", "voc"])
    place = draws.choice(
        {
            "coco": [TRUTH, TRUTH, "coco/annotations/instances_train.json", "coco/val/*"],
            "yolo": ["yolo/data.yaml", "yolo/labels/val/*", "yolo/images/val/*"],
            "voc": ["voc/Annotations/*", "voc/ImageSets/Main/val.txt", "voc/JPEGImages/*"],
        }[name]
    )
    data = {
        "coco": COCO,
        "yolo": ("data=yolo", "data.file=yolo/data.yaml"),
        "voc": ("data=voc", "data.root=voc"),
    }[name]
    command, words = draws.choice(
        [
            ("train", (*without_data(train), *data, "output_dir=out", "steps=1")),
            ("check_data", (*data, "output_dir=out", "page=false")),
            ("check_data", ("data=auto", f"data.root={name}", "output_dir=out", "page=false")),
            ("convert_data", (*data, f"to={draws.choice(['coco', 'voc', 'yolo'])}",
                              "output_dir=out/converted")),
        ]
    )  # fmt: skip
    return damaged(draws, place, command, words)


def of_results(draws: Draws, keys: Keys, train: Words) -> dict[str, Any]:
    """Detections of any detector, and the truth they are compared with."""
    place = draws.choice(["run/detections.json", TRUTH])
    words = ("detections=run/detections.json", f"annotations={TRUTH}", "output_dir=out", "draws=0")
    more = draws.choice([(), ("images=coco/val", "analysis=true")])
    return damaged(draws, place, "evaluate", (*words, *more))


def of_outputs(draws: Draws, keys: Keys, train: Words) -> dict[str, Any]:
    """A place that cannot be written, or is none."""
    odd = ("neighbour/precious.txt", "/proc/x", "/dev/null", "/dev/null/x", "out/" + "n" * 300, ".",
           "''", "fifo", "loop", "dangling", "out/a\tb", "coco", "neighbour", "/sys/x")  # fmt: skip
    folder = draws.choice(odd)
    checkpoint = "checkpoint=run/checkpoints/best.pt"
    command, words = draws.choice(
        [
            ("train", (*train, f"output_dir={folder}", "steps=1")),
            ("evaluate", (checkpoint, f"output_dir={folder}", "draws=0")),
            ("evaluate", ("detections=run/detections.json", f"annotations={TRUTH}", "draws=0",
                          f"output_dir={folder}")),
            ("predict", (checkpoint, "source=coco/val", f"output_dir={folder}")),
            ("calibrate", (checkpoint, f"output={folder}", "draws=0")),
            ("export", (checkpoint, f"output={folder}")),
            ("check_data", (*COCO, f"output_dir={folder}")),
            ("convert_data", (*COCO, "to=voc", f"output_dir={folder}")),
        ]
    )  # fmt: skip
    return {
        "kind": "odd output",
        "place": folder,
        "moment": "before",
        "command": command,
        "words": words,
    }


def of_words(draws: Draws, keys: Keys, train: Words) -> dict[str, Any]:
    """A key of a command with a value that may not fit, or a key that is written wrongly."""
    command = draws.choice(["train", "train", "train", "evaluate", "predict", "check_data"])
    fixed = {
        "train": (*train, "output_dir=out", "steps=1"),
        "evaluate": ("checkpoint=run/checkpoints/best.pt", "output_dir=out", "draws=0"),
        "predict": ("checkpoint=run/checkpoints/best.pt", "source=coco/val", "output_dir=out"),
        "check_data": (*COCO, "output_dir=out", "page=false"),
    }[command]
    key, value = draws.choice(keys[command]), draws.choice(VALUES)
    if draws.random() < 0.1:
        spot = draws.randrange(len(key))
        key = key[:spot] + draws.choice(["", ".", "x", "=", " "]) + key[spot + 1 :]
    word = draws.choice(["", "", "", "", "+", "++", "~"]) + f"{key}={value}"
    kept = tuple(w for w in fixed if w.partition("=")[0] != key)
    return {
        "kind": "word",
        "place": word,
        "moment": "before",
        "command": command,
        "words": (*kept, word),
    }


SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGKILL")


def of_processes(draws: Draws, keys: Keys, train: Words) -> dict[str, Any]:
    """A signal to a run, at any time of its life, or the end or a standstill of its loader."""
    words = (*train, "output_dir=out", "steps=6", "save_every=1", "evaluation.every=3")
    to_loader = draws.random() < 0.3
    name = draws.choice(["SIGKILL", "SIGSTOP"] if to_loader else SIGNALS)
    if to_loader or draws.random() < 0.3:
        words = (*words, "loader.num_workers=1", "loader.timeout=3")
    seconds = draws.uniform(0.0, 8.0)
    return {
        "kind": name,
        "place": "loader" if to_loader else "process",
        "moment": f"{seconds:.1f} s",
        "command": "train",
        "words": words,
        "signal": name,
        "to_loader": to_loader,
        "seconds": seconds,
    }


def of_the_system(draws: Draws, keys: Keys, train: Words) -> dict[str, Any]:
    """Limits of files, sizes and memory, and streams that take nothing."""
    options: dict[str, Any] = draws.choice(
        [
            {"limits": {"RLIMIT_NOFILE": draws.choice([4, 8, 12, 16, 20, 30, 50])}},
            {"limits": {"RLIMIT_FSIZE": draws.choice([0, 1, 100, 10_000, 1_000_000, 8_000_000])}},
            {"limits": {"RLIMIT_AS": draws.choice([3, 4, 6]) * 2**30}},
            {"stdout": "/dev/full"},
            {"stderr": "/dev/full"},
            {"stdout": "closed"},
            {"stderr": "closed"},
            {"encoding": "ascii"},
        ]
    )
    checkpoint = "checkpoint=run/checkpoints/best.pt"
    command, words = draws.choice(
        [
            ("train", (*train, "output_dir=out", "steps=2", "save_every=1")),
            ("train", (*train, "output_dir=out", "steps=2", "loader.num_workers=1")),
            ("evaluate", (checkpoint, "output_dir=out", "draws=0")),
            ("predict", (checkpoint, "source=coco/val", "output_dir=out")),
            ("convert_data", (*COCO, "to=yolo", "output_dir=out/c")),
            ("table", ("folder=.",)),
        ]
    )
    kind = json.dumps(options)
    return {
        "kind": kind,
        "place": "",
        "moment": "before",
        "command": command,
        "words": words,
        "options": options,
    }


def of_moments(draws: Draws, keys: Keys, train: Words) -> dict[str, Any]:
    """A file or folder that is damaged while a run is at work with it."""
    words = (*without_data(train), *COCO, "output_dir=out", "steps=8")
    words = (*words, "save_every=1", "loader.num_workers=0", "evaluation.every=4")
    places = ("out/status.json", "out/log.jsonl", "out/evaluations.jsonl", "out/config.yaml",
              "out/checkpoints/last.pt", "out/checkpoints", "out", "coco/train/*",
              "coco/val/*", "coco/train", TRUTH)  # fmt: skip
    place, seconds = draws.choice(places), draws.uniform(0.5, 8.0)
    return damaged(draws, place, "train", words) | {
        "moment": f"{seconds:.1f} s",
        "seconds": seconds,
    }


PLACES: dict[str, tuple[Callable[[Draws, Keys, Words], dict[str, Any]], int]] = {
    "side files": (of_side_files, 3),
    "checkpoints": (of_checkpoints, 4),
    "data": (of_data, 6),
    "results": (of_results, 3),
    "outputs": (of_outputs, 3),
    "words": (of_words, 6),
    "processes": (of_processes, 3),
    "system": (of_the_system, 3),
    "moments": (of_moments, 2),
}
"""What draws a fault, and how often it does."""


def damaged(draws: Draws, place: str, command: str, words: Words) -> dict[str, Any]:
    kind = draws.choice(list(DAMAGES))
    if place in ("out", "out/checkpoints", "coco/train"):
        kind = draws.choice(["gone", "FIFO", "loop", "dangling", "socket"])
    return {
        "kind": kind,
        "place": place,
        "moment": "before",
        "command": command,
        "words": words,
        "is_damage": True,
    }


def without_data(train: Words) -> Words:
    """The words of a run, without those of the generated data."""
    return tuple(word for word in train if not word.startswith("data."))
