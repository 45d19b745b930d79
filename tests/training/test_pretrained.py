"""Training from ImageNet's weights, with the backbone frozen, partly frozen and free."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from detector.runs import checkpoint
from tests.training.tiny import go, tiny

WEIGHTS = Path(__file__).parents[3] / "shared" / "data" / "weights" / "mobilenet_v2-b0353104.pth"

STAGES = ((0, 1), (2, 3), (4, 5, 6), (7, 8, 9, 10, 11, 12, 13), (14, 15, 16, 17, 18))
"""Modules of MobileNetV2's `features` by stride."""


@pytest.mark.parametrize("frozen", [0, 2, 5])
def test_what_is_not_frozen_trains_and_what_is_frozen_stays(frozen: int, tmp_path: Path) -> None:
    if not WEIGHTS.is_file():
        pytest.skip(f"{WEIGHTS} is not there: torchvision's ImageNet weights of MobileNetV2")
    options = {"weights": str(WEIGHTS), "frozen_stages": frozen, "norm": "fixed_batch"}
    plain = tiny(tmp_path, steps=2, ema={"enabled": False})
    plain["backbone"] = {"name": "torchvision", "arch": "mobilenet_v2", **options}
    trained = checkpoint.load(go(plain) / "checkpoints" / "last.pt")["model"]
    kept = tuple(f"features.{i}." for stage in STAGES[:frozen] for i in stage)
    before = torch.load(WEIGHTS, weights_only=True)
    for name, value in before.items():
        if name.startswith("features.") and name.endswith(("weight", "bias")):
            moved = not torch.equal(trained[f"backbone.{name}"], value)
            assert moved != name.startswith(kept), name
    assert bool(trained["head.class_outputs.weight"].isfinite().all())
