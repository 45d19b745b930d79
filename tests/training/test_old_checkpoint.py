"""Checkpoints of an older version, kept as it wrote them, give what they gave to that version.

`old_checkpoint/make.sh` says how they were made; `gave` beside each holds what came out then.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from detector.config.registry import BACKBONES
from tests.commands import Command

KEPT = Path(__file__).parent / "old_checkpoint"
LAST = Path("checkpoints") / "last.pt"
DIGESTS = {
    "focal": "8819ff7e5f00ff453d525a5d1c5391d02e20ca6981f5530d76f0938846f7d274",
    "ghm": "17d355b73d81c38614973ab34fca89ffdd2dc7a31aed3ca4285bef24e6ab3e13",
}
"""SHA-256 of each checkpoint: one that newer code has written would prove nothing."""

MOST_BYTES = 2**20

PLUGIN = "tests.plugins.tiny_backbone"
EXACT = (f"plugins=[{PLUGIN}]", "precision=float64", "device=cpu")

SAME_WEIGHTS = {"rel": 1e-6}
"""In float64, of float32 weights that are read: only sums in another order differ, by 1e-12."""

SAME_TRAINING = {"rel": 1e-4}
"""After ten steps in float32. Other processors, numbers of threads and convolutions were seen to
change a loss by up to 4e-6; a part of the state that is lost changes some loss by 6e-2 or more."""

SAME_END = {"rel": 1e-3, "abs": 1e-2}
"""Of boxes, in pixels, and scores of weights after these steps."""


@pytest.fixture(params=sorted(DIGESTS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(autouse=True)
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registered in each test anew and gone after it: other tests ask which backbones there are."""
    assert "tiny" not in BACKBONES.names
    monkeypatch.setattr(BACKBONES, "_classes", dict(BACKBONES._classes))
    monkeypatch.delitem(sys.modules, PLUGIN, raising=False)


def gave(name: str, file: str) -> Any:
    """What the older version wrote into a file."""
    return read(KEPT / name / "gave" / file)


def read(path: Path) -> Any:
    """A JSON file; a list of them from one with a line for each."""
    text = path.read_text()
    is_lines = path.suffix == ".jsonl"
    return [json.loads(line) for line in text.splitlines()] if is_lines else json.loads(text)


def test_the_files_are_those_that_the_older_version_wrote(name: str) -> None:
    content = (KEPT / name / LAST).read_bytes()
    assert hashlib.sha256(content).hexdigest() == DIGESTS[name]
    files = [path for path in KEPT.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < MOST_BYTES


def test_they_hold_state_of_every_kind_and_none_at_its_start() -> None:
    """In the names of the older version, which these files keep."""
    focal, ghm = (torch.load(KEPT / name / LAST, weights_only=True) for name in ("focal", "ghm"))
    assert focal["config"]["ramps"][0]["option"] == "loss.gamma"
    assert focal["config"]["normalizer"] == "ema_positives"
    assert focal["config"]["guided_scale"] is True
    assert focal["balance"]["ema_positives"] not in (100.0, 1.0)
    assert 0 < focal["balance"]["class_scale"] != 1
    assert focal["ema"]["n_averaged"] == 240
    assert ghm["ema"] is None
    assert ghm["loss"]["mass"] > 0
    assert ghm["loss"]["shares"].sum() > 0
    for content in (focal, ghm):
        assert content["step"] == 240
        assert all(slot["step"] == 240 for slot in content["optimizer"]["state"].values())


def test_it_has_the_scores_that_it_had(command: Command, name: str) -> None:
    outcome = command("evaluate", f"checkpoint={KEPT / name / LAST}", "output_dir=out", *EXACT)
    assert outcome.code == 0, outcome.err
    before, now = gave(name, "detections.json"), read(Path("out") / "detections.json")
    for key in ("image_id", "category_id"):
        assert [row[key] for row in now] == [row[key] for row in before]
    assert numbers(now) == pytest.approx(numbers(before), **SAME_WEIGHTS)
    before, now = gave(name, "metrics.json"), read(Path("out") / "metrics.json")
    assert now["images"] == before["images"] == 8
    assert now["per_class"] == pytest.approx(before["per_class"], **SAME_WEIGHTS)
    scores = {key: before[key] for key in ("AP", "AP50", "AP75", "AR1", "AR10", "AR100")}
    assert scores["AP"] > 0.3
    assert {key: now[key] for key in scores} == pytest.approx(scores, **SAME_WEIGHTS)


def numbers(rows: list[dict[str, Any]]) -> list[float]:
    """Boxes and scores of COCO's results, one after another."""
    return [value for row in rows for value in (*row["bbox"], row["score"])]


def test_it_finds_the_boxes_that_it_found(command: Command, name: str) -> None:
    found = predict(command, KEPT / name / LAST)
    assert_same_boxes(found, gave(name, "predictions.json"), **SAME_WEIGHTS)


def predict(command: Command, checkpoint: Path) -> Any:
    """What is written of the one image that is kept."""
    source = f"source={KEPT / 'image.png'}"
    outcome = command("predict", f"checkpoint={checkpoint}", source, "output_dir=drawn", *EXACT)
    assert outcome.code == 0, outcome.err
    return read(Path("drawn") / "predictions.json")


def assert_same_boxes(now: Any, before: Any, **tolerance: float) -> None:
    (now,), (before,) = now, before
    assert len(before["boxes"]) >= 2
    assert now["labels"] == before["labels"]
    assert now["category_ids"] == before["category_ids"]
    assert now["scores"] == pytest.approx(before["scores"], **tolerance)
    for box, expected in zip(now["boxes"], before["boxes"], strict=True):
        assert box == pytest.approx(expected, **tolerance)


def test_it_is_gone_on_with_to_the_end_that_it_had(command: Command, name: str) -> None:
    """By the config of its run, so that a default which changes today is none of its business."""
    shutil.copytree(KEPT / name, "run", ignore=shutil.ignore_patterns("gave"))
    # A yaml does not bring plugins along: the command line names them.
    config = ("--config-path", str(Path("run").absolute()), "--config-name", "config", EXACT[0])
    outcome = command("train", *config, "resume=auto", "log_every=1", "output_dir=run")
    assert outcome.code == 0, outcome.err
    assert f"goes on from {Path('run') / LAST}, step 240" in outcome.out
    before, now = gave(name, "log.jsonl"), read(Path("run") / "log.jsonl")
    assert [line["step"] for line in now] == [line["step"] for line in before]
    for line, expected in zip(now, before, strict=True):
        learned = {key: expected[key] for key in ("loss", "loss_class", "loss_box", "grad_norm")}
        assert {key: line[key] for key in learned} == pytest.approx(learned, **SAME_TRAINING)
        assert line["lr"] == pytest.approx(expected["lr"], rel=1e-12)
    # The same images in the same order with the same random keys, and no step left out.
    status = read(Path("run") / "status.json")
    assert {key: status[key] for key in gave(name, "status.json")} == gave(name, "status.json")
    at_the_end = predict(command, Path("run") / LAST)
    assert_same_boxes(at_the_end, gave(name, "predictions_at_the_end.json"), **SAME_END)
