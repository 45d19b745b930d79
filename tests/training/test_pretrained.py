"""Training from ImageNet's weights, with the backbone frozen, partly frozen and free."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision

from detector.runs import checkpoint
from tests.commands import Command
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


FEW = (
    *("steps=2", "epochs=null", "batch_size=4", "device=cpu", "precision=float32"),
    *("data.num_train=6", "data.num_val=2", "data.image_size=64", "data.max_size=32"),
    *("augment.max_size=64", "loader.num_workers=0", "tensorboard=false", "log_every=1"),
    *("model.fpn.channels=16", "model.head.channels=16", "model.head.num_convs=1"),
)
"""A run of seconds of a preset for own data."""


def loaded(out: str, part: str) -> tuple[int, int]:
    """The tensors of a part of the model, and how many of them were loaded, by the table."""
    (row,) = [line.split() for line in out.splitlines() if line.split()[:1] == [part]]
    return int(row[1]), int(row[2])


@pytest.mark.parametrize("preset", ["fast", "accurate"])
def test_a_preset_begins_from_weights_of_imagenet_and_then_from_a_run(
    preset: str, command: Command, tmp_path: Path
) -> None:
    """Twice in a row, as a person does: a file of torchvision's, then what came out."""
    torch.manual_seed(0)
    file = tmp_path / "mobilenet_v2.pth"
    torch.save(torchvision.models.mobilenet_v2(weights=None).state_dict(), file)
    first = command("train", f"experiment={preset}", f"weights={file}", "output_dir=first", *FEW)
    assert first.code == 0, first.err
    # 52 convolutions, each with a batch norm of four tensors.
    assert loaded(first.out, "backbone") == (260, 260)
    last = Path("first") / "checkpoints" / "last.pt"
    again = command("train", f"experiment={preset}", f"weights={last}", "output_dir=again", *FEW)
    assert again.code == 0, again.err
    assert loaded(again.out, "head.class_outputs") == (2, 2)
    direct = command(
        *("train", f"experiment={preset}", f"backbone.weights={file}", "output_dir=direct", *FEW)
    )
    assert direct.code == 0, direct.err


def test_weights_of_a_regnet_are_taken_too(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "regnet.pth"
    torch.save(torchvision.models.regnet_x_400mf(weights=None).state_dict(), file)
    options = ("backbone=regnet", "backbone.norm=frozen_batch", f"weights={file}")
    done = command("train", *options, "output_dir=run", *FEW)
    assert done.code == 0, done.err
    tensors, taken = loaded(done.out, "backbone")
    assert tensors == taken > 0
    assert loaded(done.out, "head.class_outputs") == (2, 0)
