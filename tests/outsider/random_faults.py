"""Random faults of the grammar put into real commands, and what must hold after each of them.

`DETECTOR_FAULTS=2000 DETECTOR_FAULTS_SEED=0 python -m tests.outsider random`. What did not hold is
printed with its number, from which the fault can be made again: `DETECTOR_FAULTS=17:18`.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detector.cli import hydra_app
from detector.errors import UserError
from detector.runs import checkpoint
from tests.commands import ROOT
from tests.outsider import grammar
from tests.outsider.grammar import Fault
from tests.training.tiny import SMALL

LIMIT = 150.0
"""Seconds after which a command that has not ended counts as hanging, on a machine in use."""

CODES = (0, 2, 3, 4, 75, 130)
"""What a command may exit with, beside the signal that was sent to it."""

SERVERS = 2


class Server:
    """A process that has imported the project once, see server.py."""

    def __init__(self) -> None:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.outsider.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._answer()

    def start(self, **job: Any) -> int:
        """Begins a command. Returns the number of its process, which leads a group of its own."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return self._answer()["pid"]

    def wait(self) -> int:
        """The exit code of the command, or minus the number of the signal that ended it."""
        return self._answer()["code"]

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> dict[str, int]:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


@contextmanager
def served() -> Iterator[Server]:
    server = Server()
    try:
        yield server
    finally:
        server.stop()


@dataclass
class Outcome:
    """How a command ended, and what was wrong with that: nothing, where `wrong` is empty."""

    code: int
    seconds: float
    out: str
    err: str
    wrong: list[str] = field(default_factory=list)


def call(server: Server, folder: Path, fault: Fault) -> Outcome:
    """Runs the command of a fault in its folder, and does to it what the fault says."""
    streams = {name: str(folder.parent / f"{folder.name}.{name}") for name in ("stdout", "stderr")}
    for path in streams.values():
        Path(path).write_text("")
    words = list(fault.words)
    began = time.monotonic()
    pid = server.start(
        command=fault.command, words=words, cwd=str(folder), **(streams | fault.options)
    )
    over = threading.Event()
    code: list[int] = []

    def wait() -> None:
        code.append(server.wait())
        over.set()

    threading.Thread(target=wait, daemon=True).start()
    if fault.seconds and not over.wait(fault.seconds):
        strike(pid, folder, fault)
    hung = not over.wait(LIMIT)
    if hung:
        os.killpg(pid, signal.SIGKILL)
        over.wait()
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # a loader that outlives its run
    out, err = (Path(path).read_text(errors="replace") for path in streams.values())
    outcome = Outcome(code[0], time.monotonic() - began, out, err)
    if hung:
        outcome.wrong.append("hangs")
    return outcome


def strike(pid: int, folder: Path, fault: Fault) -> None:
    """What a fault does to a command that is at work."""
    if fault.is_damage:
        damage(folder, fault)
        return
    number = getattr(signal, fault.signal)
    with suppress(ProcessLookupError, FileNotFoundError):
        if not fault.to_loader:
            os.kill(pid, number)
            return
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            os.kill(int(child), number)


def damage(folder: Path, fault: Fault) -> Path | None:
    """Damages the place of a fault. Returns the file, None where there is none (yet)."""
    draws = random.Random(fault.seed)
    found = sorted(folder.glob(fault.place))
    if not found:
        return None
    path = draws.choice(found)
    with suppress(OSError):  # one that the command itself moves away at this moment
        grammar.DAMAGES[fault.kind](path, draws)
    return path


def template(server: Server, folder: Path) -> None:
    """What each case is a copy of: data in three forms, a finished run, and a neighbour's files."""
    few = ("data.image_size=64", "data.max_size=32", "data.num_train=6", "data.num_val=3")
    run = (*TRAIN, "output_dir=run", "steps=2", "save_every=1", "evaluation.every=1")
    for command, words in (
        ("generate", (*few, "output_dir=coco")),
        ("convert_data", (*grammar.COCO, "to=yolo", "output_dir=yolo")),
        ("convert_data", (*grammar.COCO, "to=voc", "output_dir=voc")),
        ("train", run),
    ):
        fault = Fault("", "", "", command, words)
        outcome = call(server, folder, fault)
        assert outcome.code == 0, outcome.err
    (folder / "out").mkdir()
    (folder / "neighbour").mkdir()
    (folder / "neighbour" / "precious.txt").write_text("mine\n" * 100)
    (folder / "run" / "notes.txt").write_text("what I thought of this run\n")
    (folder / "loop").symlink_to("loop")
    (folder / "dangling").symlink_to("neighbour/nothing")


TRAIN = (
    *(word for word in SMALL if not word.startswith("steps=")),
    *("backbone=mobilenet_small", "optim=sgd"),  # so that a checkpoint is a few megabytes
)


def listing(folder: Path) -> dict[str, tuple[object, ...]]:
    """What lies in a folder, by its name, with its bytes; links are not followed."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = ("link", os.readlink(path))
        elif path.is_file():
            found[name] = ("file", hashlib.sha256(path.read_bytes()).hexdigest())
        else:
            found[name] = ("other",)
    return found


def newest(folder: Path) -> int:
    """The step of the newest whole checkpoint below a folder; -1 where there is none."""
    steps = [-1]
    for path in folder.glob("*/checkpoints/*"):
        if path.is_file() and path.stat().st_size < 2**30:  # no device
            with suppress(UserError):
                steps.append(checkpoint.load(path)["step"])
    return max(steps)


def last_logged(folder: Path) -> int:
    """The last step that a run says is done, from its log."""
    log = folder / "out" / "log.jsonl"
    lines = log.read_text().splitlines() if log.is_file() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)


def judge(folder: Path, fault: Fault, outcome: Outcome, before: dict[str, Any], had: int) -> None:
    """Notes what must not be: a traceback, a lost save, a file outside that is another now."""
    allowed = (*CODES, -getattr(signal, fault.signal)) if fault.signal else CODES
    if "Traceback" in outcome.err + outcome.out:
        outcome.wrong.append("traceback")
    if outcome.code not in allowed:
        outcome.wrong.append(f"exit {outcome.code}")
    if outcome.code in (2, 3) and not outcome.err.strip() and "stderr" not in fault.options:
        outcome.wrong.append("no word")
    after = listing(folder)
    named = [word.partition("=")[2].strip("'") for word in fault.words if "output" in word]
    inside = ("run", "out", *(name or "." for name in named), fault.place or "out")
    is_late = fault.is_damage and fault.seconds > 0
    for name in before.keys() | after.keys():
        first = name.partition("/")[0]
        is_ours = first in ("run", "out") or (name not in before and under(name, inside))
        # What is damaged while the command is at work was not yet so when it was listed.
        is_ours |= is_late and first != "neighbour"
        if before.get(name) != after.get(name) and not is_ours:
            outcome.wrong.append(f"outside: {name}")
    if before.get("run/notes.txt") != after.get("run/notes.txt"):
        outcome.wrong.append("notes of the user")
    if is_late:
        return  # what was finished may have been what was damaged
    if "overwrite=true" not in fault.words and newest(folder) < had:
        outcome.wrong.append("lost a save")
    # With save_every=1 each step that is logged has its save, the last one maybe not yet.
    if fault.signal and not fault.to_loader and newest_of_run(folder) < last_logged(folder) - 1:
        outcome.wrong.append("lost a save of its own")


def newest_of_run(folder: Path) -> int:
    """The step of the newest whole checkpoint of the run in `out`; 0 before the first."""
    steps = [0]
    for path in (folder / "out" / "checkpoints").glob("*.pt"):
        with suppress(UserError):
            steps.append(checkpoint.load(path)["step"])
    return max(steps)


def under(name: str, folders: tuple[str, ...]) -> bool:
    return any(f == "." or name == f or name.startswith(f"{f}/") for f in folders)


def tried(server: Server, original: Path, folder: Path, fault: Fault) -> Outcome:
    """A fault in a copy of the template, which is removed afterwards."""
    shutil.copytree(original, folder, symlinks=True)
    os.mkfifo(folder / "fifo")
    try:
        if fault.is_damage and not fault.seconds:
            damage(folder, fault)
        before, had = listing(folder), newest(folder)
        outcome = call(server, folder, fault)
        judge(folder, fault, outcome, before, had)
        return outcome
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def keys_of_commands() -> dict[str, list[str]]:
    """The keys that a command has, as its --help lists them."""
    found = {}
    for name in ("train", "evaluate", "predict", "check_data"):
        config = hydra_app.composed(name, [])
        found[name] = hydra_app.keys_of(config)
    return found


def numbers() -> tuple[range, int]:
    """The faults that are asked for, and the seed."""
    first, _, last = os.environ.get("DETECTOR_FAULTS", "2000").rpartition(":")
    return range(int(first or 0), int(last)), int(os.environ.get("DETECTOR_FAULTS_SEED", "0"))


def figure(folder: Path) -> str:
    """All faults that are asked for, by as many servers as there are processors to use."""
    asked, seed = numbers()
    return in_words(run(folder, asked, seed), seed)


def in_words(outcomes: list[Outcome], seed: int) -> str:
    """What became of the faults, by kind of what was wrong and by exit code."""
    wrong = Counter(word.partition(":")[0] for o in outcomes for word in set(o.wrong))
    codes = Counter(o.code for o in outcomes)
    tracebacks = sum(o.code == 1 or "traceback" in o.wrong for o in outcomes)
    lost = wrong["lost a save"] + wrong["lost a save of its own"] + wrong["notes of the user"]
    outside = sum(any(word.startswith("outside") for word in o.wrong) for o in outcomes)
    known = ("traceback", "hangs", "lost a save", "lost a save of its own", "outside", "exit 1")
    other = sum(n for word, n in wrong.items() if word not in (*known, "notes of the user"))
    return (
        f"{len(outcomes)} faults, seed {seed}: {tracebacks} tracebacks, {wrong['hangs']} over "
        f"{LIMIT:.0f} s, {lost} lost saves, {outside} with a change outside, {other} other; "
        f"exit codes {', '.join(f'{c}: {n}' for c, n in sorted(codes.items()))}"
    )


def run(folder: Path, asked: range, seed: int) -> list[Outcome]:
    """The outcomes, in no order; those that are wrong are printed."""
    keys = keys_of_commands()
    waiting = list(reversed(asked))
    outcomes: list[Outcome] = []
    original = folder / "template"
    original.mkdir()
    with served() as server:
        template(server, original)

    def work() -> None:
        with served() as server:
            while waiting:
                number = waiting.pop()
                fault = grammar.draw(seed, number, keys, TRAIN)
                outcome = tried(server, original, folder / str(number), fault)
                outcomes.append(outcome)
                if outcome.wrong:
                    tail = " | ".join(outcome.err.strip().splitlines()[-3:])
                    said = f"{number}: {', '.join(outcome.wrong)}: {fault}: {tail}"
                    print(said[:1500], flush=True)
                if len(outcomes) % 100 == 0:
                    print(in_words(outcomes, seed), flush=True)

    threads = [threading.Thread(target=work) for _ in range(SERVERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == len(asked), "a worker of the harness has failed"
    return outcomes


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        print(figure(Path(name)))
