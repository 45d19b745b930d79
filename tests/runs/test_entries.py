"""A whole checkpoint is not yet one that a run has saved: each entry is looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from detector.errors import ConfigError
from detector.inference.predictor import load_checkpoint
from detector.runs import checkpoint
from detector.runs.entries import ENTRIES, EVALUATED, GONE_ON_WITH
from tests.training.tiny import go, tiny

ODD: tuple[Any, ...] = (-1, "x", [None], {"a": object}, {1: torch.zeros(1)}, float("nan"), 2**200)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    run = go(tiny(tmp_path_factory.mktemp("whole") / "run", steps=1))
    return checkpoint.load(run / "checkpoints" / "last.pt")


def test_what_a_run_saves_is_what_is_asked_of_it(whole: dict[str, Any]) -> None:
    assert set(GONE_ON_WITH) <= whole.keys()
    assert set(ENTRIES) <= whole.keys()


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_of_another_kind_is_named(tmp_path: Path, name: str) -> None:
    is_fit, _ = ENTRIES[name]
    odd = [value for value in ODD if not is_fit(value)]
    assert len(odd) > 2
    for value in (v for v in odd if v != {"a": object}):  # which torch itself refuses to read
        checkpoint.save(tmp_path / "a.pt", {name: value})
        with pytest.raises(ConfigError, match=rf"a\.pt cannot be used: {name} in it is not "):
            checkpoint.load(tmp_path / "a.pt")


@pytest.mark.parametrize("name", EVALUATED)
def test_a_model_without_an_entry_says_which(
    whole: dict[str, Any], tmp_path: Path, name: str
) -> None:
    checkpoint.save(tmp_path / "a.pt", {k: v for k, v in whole.items() if k != name})
    with pytest.raises(ConfigError, match=rf"a\.pt cannot be used: it has no {name}"):
        load_checkpoint(tmp_path / "a.pt", device="cpu")


@pytest.mark.parametrize("name", ["optimizer", "fingerprint", "criterion"])
def test_a_run_does_not_go_on_without_an_entry(
    whole: dict[str, Any], tmp_path: Path, name: str
) -> None:
    checkpoint.save(tmp_path / "a.pt", {k: v for k, v in whole.items() if k != name})
    with pytest.raises(ConfigError, match=rf"resume: .*a\.pt cannot be used: it has no {name}"):
        go(tiny(tmp_path / "run", steps=2, resume=str(tmp_path / "a.pt")))


def test_weights_of_another_shape_are_one_line(whole: dict[str, Any], tmp_path: Path) -> None:
    first = next(iter(whole["model"]))
    other = {first: torch.zeros(3)}
    content = {**whole, "ema": None, "model": {**whole["model"], **other}}
    checkpoint.save(tmp_path / "a.pt", content)
    with pytest.raises(ConfigError, match=r"its weights do not fit its config: .*size mismatch"):
        load_checkpoint(tmp_path / "a.pt", device="cpu")
    checkpoint.save(tmp_path / "a.pt", {**whole, "model": {**whole["model"], **other}})
    with pytest.raises(ConfigError, match=r"does not fit the model of its config: RuntimeError: "):
        go(tiny(tmp_path / "run", steps=2, resume=str(tmp_path / "a.pt")))


@pytest.mark.parametrize("state", [{}, {"state": 3, "param_groups": []}, {"state": {}}])
def test_an_optimizer_of_another_form_is_one_line(
    whole: dict[str, Any], tmp_path: Path, state: dict[str, Any]
) -> None:
    checkpoint.save(tmp_path / "a.pt", {**whole, "optimizer": state})
    with pytest.raises(ConfigError, match=r"does not fit the model of its config"):
        go(tiny(tmp_path / "run", steps=2, resume=str(tmp_path / "a.pt")))
