"""Which checkpoints are there after each save, and after saves that could not be made."""

from __future__ import annotations

import os
import random
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from detector.errors import ConfigError, StorageError
from detector.runs import checkpoint
from detector.runs.checkpoint import load, pack
from detector.runs.run_folder import RunFolder
from detector.training import saving
from detector.training.saving import Saver


class Said:
    """A log that keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


class Stage:
    """A saver of nothing but steps."""

    def __init__(self, path: Path, keep: int = 2) -> None:
        self.folder, self.log = RunFolder(path), Said()
        self.state: Any = SimpleNamespace(step=0)
        self.setup: Any = SimpleNamespace(
            world=SimpleNamespace(is_main=True), config=SimpleNamespace(keep_checkpoints=keep)
        )
        self.saver = Saver(self.setup, self.state, self.folder, self.log)  # type: ignore[arg-type]

    def save(self, *steps: int) -> None:
        for step in steps:
            self.state.step = step
            self.saver.last(self.state)

    def steps(self) -> dict[str, int]:
        return {p.name: load(p)["step"] for p in sorted(self.folder.last.parent.iterdir())}


@pytest.fixture(autouse=True)
def contents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "contents", lambda setup, state: {"step": state.step})


def test_the_last_ones_are_kept_and_the_best_beside_them(tmp_path: Path) -> None:
    stage = Stage(tmp_path, keep=3)
    stage.save(10)
    stage.saver.best(stage.state)
    stage.save(20, 30, 40)
    assert stage.steps() == {
        "best.pt": 10,
        "last.pt": 40,
        "step_000000020.pt": 20,
        "step_000000030.pt": 30,
    }


def test_with_one_to_keep_there_is_one(tmp_path: Path) -> None:
    stage = Stage(tmp_path, keep=1)
    stage.save(10, 20)
    assert stage.steps() == {"last.pt": 20}


def test_the_same_step_is_saved_again_in_its_place(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.save(10, 20, 20)
    assert stage.steps() == {"last.pt": 20, "step_000000010.pt": 10}


def test_a_run_that_goes_on_keeps_what_it_found(tmp_path: Path) -> None:
    Stage(tmp_path).save(10)
    again = Stage(tmp_path)
    again.save(20)
    assert again.steps() == {"last.pt": 20, "step_000000010.pt": 10}


def test_a_run_that_goes_back_drops_what_came_after(tmp_path: Path) -> None:
    stage = Stage(tmp_path, keep=3)
    stage.save(10, 20, 30)
    stage.state.step = 10
    Saver(stage.setup, stage.state, stage.folder, stage.log)  # type: ignore[arg-type]
    assert stage.steps() == {"last.pt": 30, "step_000000010.pt": 10}


def test_without_links_the_file_itself_takes_the_older_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*names: Path) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    stage = Stage(tmp_path)
    stage.save(10, 20, 30)
    assert stage.steps() == {"last.pt": 30, "step_000000020.pt": 20}


def test_a_full_disk_gives_up_the_oldest_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path, keep=3)
    stage.save(10, 20, 30)
    # Room for a new one as soon as one of the old ones is gone.
    monkeypatch.setattr(checkpoint, "lacks_space", lambda f, n: len(stage.folder.older()) > 1)
    stage.save(40)
    assert stage.steps() == {"last.pt": 40, "step_000000020.pt": 20, "step_000000030.pt": 30}
    assert ["step_000000010.pt is given up" in line for line in stage.log.lines] == [True]
    stage.saver.require_saved()


def test_a_disk_that_stays_full_keeps_the_old_one_and_is_told_at_once_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path)
    stage.save(10)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "lacks_space", lambda folder, num_bytes: True)
        stage.save(20)
    assert stage.steps() == {"last.pt": 10}
    assert stage.log.lines[0].startswith("WARNING: step 20 is not saved: ")
    with pytest.raises(StorageError, match=r"step 20 is not saved: .* MB are to be written, "):
        stage.saver.require_saved()
    stage.save(30)
    stage.saver.require_saved()
    assert stage.steps() == {"last.pt": 30, "step_000000010.pt": 10}


def save_until_killed(folder: RunFolder, packed: list[bytes], seconds: float) -> int:
    """A process that does nothing but save, and its end by SIGKILL: how many saves it had finished.

    It is a fork that calls nothing of torch: starting another Python would take a second each.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        for i in range(10**9):
            temporary = checkpoint.write_beside(folder.last, packed[i % len(packed)])
            if folder.last.exists():
                saving._keep(folder.last, folder.kept_as(1))
            checkpoint.put_in_place(temporary, folder.last)
            os.write(write, b".")
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(write)
    with os.fdopen(read, "rb") as finished:
        return len(finished.read())


@dataclass(frozen=True)
class Kills:
    """finished: saves, of all processes. unreadable: how often no whole last.pt was there.
    saves_lost: the most finished saves that were not in it; the one that was interrupted is not
    finished, and costs `save_every` steps.
    """

    finished: int
    unreadable: int
    saves_lost: int


def kill_while_saving(path: Path, num_kills: int) -> Kills:
    """Processes killed at random moments while they save."""
    folder, generator = RunFolder(path), random.Random(0)
    total = unreadable = most = 0
    folder.last.parent.mkdir(parents=True)
    number = 256
    packed = [pack({"step": i, "w": torch.full((100_000,), float(i))}) for i in range(number)]
    for _ in range(num_kills):
        checkpoint.write_atomically(folder.last, packed[-1])  # as if before the first
        finished = save_until_killed(folder, packed, generator.uniform(0.0, 0.03))
        total += finished
        assert finished < number - 1  # else the next line could take many lost saves for few
        try:
            content = load(folder.last)
            assert (content["w"] == content["step"]).all()
        except (ConfigError, AssertionError):
            unreadable += 1
        else:
            # Saves 0 to finished - 1 are told; the next may be in place and not told yet.
            most = max(most, finished - (content["step"] + 1) % number)
    return Kills(total, unreadable, most)


def test_a_process_killed_while_it_saves_leaves_the_latest_whole_checkpoint(
    tmp_path: Path,
) -> None:
    kills = kill_while_saving(tmp_path, 10)
    assert kills.finished > 0
    assert (kills.unreadable, kills.saves_lost) == (0, 0)


def test_what_a_config_says_to_keep_is_a_number_from_1(tmp_path: Path) -> None:
    from detector.config import from_plain
    from tests.training.tiny import tiny

    config = from_plain(tiny(tmp_path))
    with pytest.raises(ConfigError, match="keep_checkpoints: 0 given, at least 1 is needed"):
        replace(config, keep_checkpoints=0)
