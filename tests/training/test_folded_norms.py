"""Runs whose backbone has frozen batch norms, folded into its convolutions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from detector.runs.checkpoint import load
from tests.training.tiny import go, losses, tiny, torchrun

FIXED = {"backbone": {"name": "mobilenet", "arch": "mobilenet_v3_small", "norm": "fixed_batch"}}
"""Scale and shift of the norms are trained."""


def last(folder: Path) -> dict[str, Any]:
    return load(folder / "checkpoints" / "last.pt")


def test_a_folded_run_is_the_plain_run_up_to_rounding(tmp_path: Path) -> None:
    exact = {**FIXED, "precision": "float64"}
    plain = go(tiny(tmp_path / "plain", **exact, fold=False))
    folded = go(tiny(tmp_path / "folded", **exact))
    # Products in another order, in float64, over six steps of AdamW.
    assert losses(folded) == pytest.approx(losses(plain), rel=1e-9)
    for key in ("model", "ema"):
        wanted, found = last(plain)[key], last(folded)[key]
        assert found.keys() == wanted.keys()
        assert all(found[name].shape == value.shape for name, value in wanted.items())
    assert any(name.endswith("running_var") for name in last(folded)["model"])


def test_a_folded_run_is_resumed_to_the_bit(tmp_path: Path) -> None:
    whole = go(tiny(tmp_path / "whole", **FIXED, steps=4, save_every=2))
    halfway = str(whole / "checkpoints" / "step_000000002.pt")
    parts = go(tiny(tmp_path / "parts", **FIXED, steps=4, save_every=2, resume=halfway))
    before, after = last(whole), last(parts)
    assert losses(whole)[2:] == losses(parts)
    for key in ("model", "ema"):
        assert all(torch.equal(value, after[key][name]) for name, value in before[key].items())


def test_two_processes_fold_as_one_does(tmp_path: Path) -> None:
    exact = {**FIXED, "precision": "float64", "steps": 3}
    one = go(tiny(tmp_path / "one", **exact))
    two = torchrun(2, tiny(tmp_path / "two", **exact), tmp_path)
    # float64: only the order of sums differs.
    assert losses(one) == pytest.approx(losses(two), rel=1e-9)
