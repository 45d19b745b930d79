"""Runs with each neck: they train, go on to the bit, and are exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from detector.config.registry import NECKS
from detector.runs.checkpoint import load
from tests.training.tiny import go, tiny

CASES: list[dict[str, Any]] = [
    *({"neck": {"name": name}} for name in NECKS.names),
    {
        "neck": {"name": "pafpn", "norm": "batch", "extra": "pooling"},
        "model": {
            "fpn": {"channels": 16},
            "head": {"channels": 16, "num_convs": 2, "norm": "batch"},
            "anchors": {"levels": [2, 6], "size": 2.0, "scales": [1.0], "ratios": [1.0]},
        },
    },
]


IN_EVERY_RUN = ("bifpn", "pafpn")
"""Cases of `make test`: an export takes ten seconds each, and most other tests train with fpn."""

NAMED = [
    pytest.param(case, id=name, marks=[] if name in IN_EVERY_RUN else pytest.mark.slow)
    for name, case in zip([*NECKS.names, "p2_to_p6"], CASES, strict=True)
]


@pytest.mark.parametrize("changes", NAMED)
def test_a_run_is_resumed_to_the_bit_and_exported(tmp_path: Path, changes: dict[str, Any]) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from detector.inference.export import export

    whole = go(tiny(tmp_path / "whole", steps=4, save_every=2, **changes))
    second = whole / "checkpoints" / "step_000000002.pt"
    parts = go(tiny(tmp_path / "parts", steps=4, save_every=2, resume=str(second), **changes))
    once, twice = (load(f / "checkpoints" / "last.pt")["model"] for f in (whole, parts))
    assert once.keys() == twice.keys()
    assert all(torch.equal(once[key], twice[key]) for key in once)
    agreement = export(whole / "checkpoints" / "last.pt", tmp_path / "graph.onnx").agreement
    assert agreement is not None
    assert agreement.is_same, agreement
