"""From their file to boxes in a JSON file, with the tools alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from detector.convert.coco import CATEGORY_IDS
from detector.runs import checkpoint
from detector.structures import DetectionTensors
from tests.commands import Command
from tests.convert.foreign import save_state
from tests.convert.pairs import LIMITS, assert_same, found_by_theirs, make_pair, photograph

PHOTOGRAPHS = Path(__file__).parents[3] / "shared" / "data" / "coco128" / "train2017"
NUM_IMAGES = 2


def put_images(folder: Path) -> list[Path]:
    """Photographs of COCO where this machine has any, else generated images of odd sizes."""
    folder.mkdir()
    files = sorted(PHOTOGRAPHS.glob("*.jpg"))[:NUM_IMAGES]
    for file in files:
        (folder / file.name).symlink_to(file)
    if not files:
        for seed, size in enumerate([(301, 419), (427, 233)]):
            Image.fromarray(photograph(*size, seed)).save(folder / f"{seed}.png")
    return sorted(folder.iterdir())


@pytest.mark.parametrize("source", ["torchvision_v1", "torchvision_v2"])
def test_predict_finds_what_torchvision_finds(
    source: Any, tmp_path: Path, command: Command
) -> None:
    """All 300 of each image. Made smaller than 800 px by the config that the checkpoint holds."""
    files = put_images(tmp_path / "in")
    images = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    pair = make_pair(source, images, LIMITS)
    state = {name: value.float() for name, value in pair.theirs.state_dict().items()}
    weights = save_state(tmp_path / "theirs.pth", state)
    done = command("convert", f"source={source}", f"weights={weights}", "output=ours.pt")
    assert done.code == 0, done.err
    content = checkpoint.load("ours.pt")
    content.pop("format_version")
    content["config"]["augment"] |= LIMITS
    checkpoint.save(Path("small.pt"), content)
    done = command(
        "predict", "checkpoint=small.pt", "source=in", "output_dir=out", "threshold=0.05",
        "device=cpu", "precision=float64",
    )  # fmt: skip
    assert done.code == 0, done.err
    rows = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert len(rows) == NUM_IMAGES
    for row, theirs in zip(rows, found_by_theirs(pair), strict=True):
        labels = torch.tensor([CATEGORY_IDS.index(i) for i in row["category_ids"]])
        ours = DetectionTensors(torch.tensor(row["boxes"]), torch.tensor(row["scores"]), labels)
        assert len(labels) == 300
        assert_same(ours, theirs)
