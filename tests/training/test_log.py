"""What a run says while it trains, and what it keeps of that when it is resumed."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from detector.runs.run_folder import RunFolder
from detector.training.log import COLUMNS, Log, Silent

VALUES = {"loss": 1.5, "loss_class": 1.0, "loss_box": 0.5, "lr": 2e-3, "grad_norm": 3.0}
VALUES["memory_gb"] = 0.5
METRICS = {"AP": 0.25, "AP50": None, "per_class": {"cat": 0.25, "dog": None}, "images": 3}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, which tests set."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def make(folder: RunFolder, *, start_step: int = 0, tensorboard: bool = False) -> Log:
    return Log(folder, 10, start_step, tensorboard)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_text().splitlines()]


def test_a_line_of_json_keeps_every_value_under_its_key(
    folder: RunFolder, clock: list[float]
) -> None:
    log = make(folder)
    clock[0] = 4.0
    log.step(2, VALUES, batch_size=8)
    # Two steps of 8 images in 4 seconds.
    assert lines(folder.log) == [{"step": 2, **VALUES, "images_per_second": 4.0}]


def test_an_evaluation_is_a_line_of_its_own_file(folder: RunFolder) -> None:
    make(folder).evaluation(7, METRICS)
    assert lines(folder.evaluations) == [{"step": 7, **METRICS}]
    assert not folder.log.exists()


def test_what_is_not_a_number_becomes_null_since_json_has_no_word_for_it(folder: RunFolder) -> None:
    make(folder).step(1, {**VALUES, "loss": math.nan, "grad_norm": math.inf}, batch_size=8)

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    line = json.loads(folder.log.read_text(), parse_constant=refuse)
    assert (line["loss"], line["grad_norm"], line["loss_box"]) == (None, None, 0.5)


@pytest.mark.parametrize("name", ["log", "evaluations"])
def test_a_resumed_run_drops_the_steps_it_makes_again_and_a_line_cut_off(
    folder: RunFolder, name: str
) -> None:
    path: Path = getattr(folder, name)
    kept = "".join(json.dumps({"step": step, "x": 1}) + "\n" for step in (1, 2, 4))
    path.write_text(kept + '{"step": 5, "x": 1}\n{"step": 6, "x": 1}\n{"step": 7, "x"')
    make(folder, start_step=4)
    assert path.read_text() == kept


def test_a_last_line_without_its_line_break_does_not_swallow_the_next(folder: RunFolder) -> None:
    folder.log.write_text('{"step": 1}\n{"step": 2}')
    make(folder, start_step=2).step(3, VALUES, batch_size=8)
    assert [line["step"] for line in lines(folder.log)] == [1, 2, 3]


def test_off_a_terminal_a_step_is_a_plain_line_with_what_is_left(
    folder: RunFolder, clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    log = make(folder)
    clock[0] = 20_000.0
    log.step(2, VALUES, batch_size=8)
    log.advance()
    log.say("hello")
    log.close()
    captured = capsys.readouterr()
    # 8 steps of 10,000 s are left: 22 h 13 min 20 s.
    assert captured.out == (
        "step 2/10  eta 22:13:20  loss 1.5  class 1  box 0.5  0.0 img/s  lr 2.00e-03\nhello\n"
    )
    assert captured.err == ""


@pytest.mark.parametrize(("seconds_data", "warnings"), [(2.0, 0), (3.0, 1)])
def test_that_the_loader_is_the_bottleneck_is_said_once(
    folder: RunFolder,
    clock: list[float],
    capsys: pytest.CaptureFixture[str],
    seconds_data: float,
    warnings: int,
) -> None:
    log = make(folder)
    for step in range(1, 8):
        clock[0] = 10.0 * step  # of the 10 s of a step, a quarter may be waited
        log.step(step, {**VALUES, "seconds_data": seconds_data}, batch_size=8)
    said = capsys.readouterr().out
    assert said.count("of the time waits for data; loader.num_workers more") == warnings
    # The first line counts the start of the workers and is left out; three in a row after it.
    assert ("step 4: 30% of the time" in said) == bool(warnings)


def test_a_rest_of_more_than_a_day_is_not_told_as_less(
    folder: RunFolder, clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    log = make(folder)
    clock[0] = 20_000.0
    log.step(1, VALUES, batch_size=8)
    assert "eta 50:00:00  loss" in capsys.readouterr().out


def test_on_a_terminal_a_bar_shows_the_step_and_the_losses(
    folder: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    log = make(folder, start_step=4)
    log.advance()
    log.step(5, VALUES, batch_size=8)
    log.say("hello")
    log.close()
    captured = capsys.readouterr()
    last = captured.err.strip("\n").rpartition("\r")[2]
    assert "5/10" in last
    assert "loss 1.5  class 1  box 0.5" in last
    assert len(last) <= COLUMNS
    assert captured.out == "hello\n"


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_line_fits_80_columns_however_many_terms_and_steps_there_are(
    folder: RunFolder,
    clock: list[float],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    is_terminal: bool,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    log = Log(folder, 1_000_000, 0, False)
    terms = {f"loss_term_{i}": 1.2345e-3 for i in range(8)}
    clock[0] = 20_000.0
    log.advance()
    log.step(2, {"loss": 123.45678, **terms, **VALUES}, batch_size=8)
    log.close()
    captured = capsys.readouterr()
    shown = captured.err.replace("\r", "\n") if is_terminal else captured.out
    assert "loss 1.5" in shown
    assert max(map(len, shown.splitlines())) <= COLUMNS


def test_an_evaluation_says_ap_ap50_and_the_best_so_far(
    folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    log = make(folder)
    for step, ap in ((2, 0.25), (4, 0.5), (6, 0.375), (8, None)):
        log.evaluation(step, {**METRICS, "AP": ap, "AP50": 0.5, "seconds": 0.0})
    said = capsys.readouterr().out.splitlines()
    assert [line.rpartition("  ")[0] for line in said] == [
        "step 2  AP 0.250  AP50 0.500  best: this",
        "step 4  AP 0.500  AP50 0.500  best: this",
        "step 6  AP 0.375  AP50 0.500  best: 0.500 at step 4",
        "step 8  AP -  AP50 0.500  best: 0.500 at step 4",
    ]
    assert max(map(len, said)) <= COLUMNS
    resumed = Log(folder, 10, 6, False, evaluated=6)
    resumed.evaluation(8, METRICS)
    assert "best: 0.500 at step 4" in capsys.readouterr().out


def test_an_evaluation_does_not_count_as_training_time(
    folder: RunFolder, clock: list[float]
) -> None:
    log = make(folder)
    clock[0] = 2.0
    log.step(2, VALUES, batch_size=8)
    clock[0] = 3.0  # step 3 is done; now an evaluation of 100 s
    clock[0] = 103.0
    log.restart_clock(3)
    clock[0] = 104.0
    log.step(4, VALUES, batch_size=8)
    assert [line["images_per_second"] for line in lines(folder.log)] == [8.0, 8.0]


def test_tensorboard_shows_each_step_once_also_after_a_resume(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1e9)  # in the file's name, by which they are sorted
    broken = make(folder, tensorboard=True)
    for step in (1, 2, 3, 4):
        broken.step(step, {**VALUES, "loss": float(step)}, batch_size=8)
    broken.evaluation(2, METRICS)
    broken.close()
    monkeypatch.setattr(time, "time", lambda: 1e9 + 60)
    resumed = make(folder, start_step=2, tensorboard=True)
    for step in (3, 4):
        resumed.step(step, {**VALUES, "loss": 10.0 * step}, batch_size=8)
    resumed.close()
    events = EventAccumulator(str(folder.tensorboard)).Reload()
    assert set(events.Tags()["scalars"]) == {
        *(f"train/{key}" for key in [*VALUES, "images_per_second"]),
        "val/AP",
        "val/AP/cat",
    }
    scalars = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert scalars == [(1, 1.0), (2, 2.0), (3, 30.0), (4, 40.0)]
    assert [(event.step, event.value) for event in events.Scalars("val/AP")] == [(2, 0.25)]


def test_tensorboard_forgets_a_run_that_broke_before_its_first_checkpoint(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for factor in (1.0, 10.0):
        monkeypatch.setattr(time, "time", lambda now=1e9 + factor: now)
        log = make(folder, tensorboard=True)
        log.step(1, {**VALUES, "loss": factor}, batch_size=8)
        log.close()
    events = EventAccumulator(str(folder.tensorboard)).Reload()
    assert [event.value for event in events.Scalars("train/loss")] == [10.0]


def test_the_other_processes_say_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    log = Silent()
    log.say("hello")
    log.advance()
    log.step(1, VALUES, 8)
    log.evaluation(1, METRICS)
    log.restart_clock(1)
    log.close()
    assert capsys.readouterr() == ("", "")
