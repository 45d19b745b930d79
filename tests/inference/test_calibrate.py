"""Calibrators and thresholds in a checkpoint: through the tools, from fitting to predicting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detector.analysis import calibrators
from detector.config import from_plain
from detector.config.registry import DATASETS, LOSSES
from detector.data.export import write_coco
from detector.inference.calibrated import Calibration, calibration_of, link_of
from detector.losses.focal import FocalLoss
from detector.losses.ssd import SSDLoss
from detector.runs import checkpoint
from detector.runs.checkpoint import CALIBRATION
from detector.training.run import run
from tests.commands import Command, script
from tests.training.tiny import TINY, tiny

METHODS = ["none", *calibrators.KINDS]


def stored_in(saved: dict[str, Any]) -> Calibration:
    """What a calibrated checkpoint holds."""
    loss = LOSSES.build(from_plain(saved["config"]).loss, len(saved["classes"]))
    return calibration_of(saved[CALIBRATION], link_of(loss))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run under `run`, a calibrated copy of its checkpoint, and the val images under `val`."""
    path = tmp_path_factory.mktemp("calibrate")
    data = {**TINY["data"], "num_val": 12}
    plain = tiny(path / "run", steps=30, batch_size=8, data=data)
    run(from_plain(plain), plain)
    write_coco(DATASETS.build(from_plain(plain).data).read("val"), path, "val")
    outcome = script(
        "calibrate", *source(path), "output=calibrated.pt", "anchors=true", "draws=40", cwd=path
    )
    assert outcome.code == 0, outcome.err
    (path / "out.txt").write_text(outcome.out)
    return path


def source(folder: Path) -> list[str]:
    return [f"checkpoint={folder / 'run' / 'checkpoints' / 'last.pt'}", "device=cpu"]


def table(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "calibrated.json").read_text())


def predictions(command: Command, folder: Path, *argv: str) -> list[dict[str, Any]]:
    words = [f"source={folder / 'val'}", "device=cpu", "overwrite=true", "output_dir=out"]
    outcome = command("predict", f"checkpoint={folder / 'calibrated.pt'}", *words, *argv)
    assert (outcome.code, outcome.err) == (0, "")
    return json.loads(Path("out/predictions.json").read_text())


def test_every_method_is_measured_on_the_images_nothing_was_learnt_from(folder: Path) -> None:
    found = table(folder)
    assert found["images"] == {"fit": 6, "test": 6}
    assert list(found["methods"]) == METHODS
    for row in found["methods"].values():
        assert set(row["all"]) == set(row["shown"])
        for which in ("all", "shown"):
            measure = row[which]["D-ECE"]
            assert measure["low"] <= measure["value"] <= measure["high"]
    shown = {row["shown"]["D-ECE"]["detections"] for row in found["methods"].values()}
    assert len(shown) == 1, "the same detections for all methods, or nothing could be compared"


def test_a_map_that_rises_strictly_changes_no_ap(folder: Path) -> None:
    rows = table(folder)["methods"]
    assert rows["none"]["AP"] > 0
    for method in ("link_inverse", "temperature", "platt"):
        assert rows[method]["AP"] == rows["none"]["AP"], method


def test_the_table_is_printed_with_intervals_thresholds_and_anchors(folder: Path) -> None:
    out = (folder / "out.txt").read_text()
    for words in [*METHODS, "learnt on 6 images, measured on the other 6", "lrp", "f1", "cost"]:
        assert words in out
    assert "link_inverse, above" in out


def test_the_copy_holds_all_that_the_checkpoint_held_and_the_calibration(folder: Path) -> None:
    before = checkpoint.load(folder / "run" / "checkpoints" / "last.pt")
    after = checkpoint.load(folder / "calibrated.pt")
    assert set(after) - set(before) == {CALIBRATION}
    assert CALIBRATION not in before
    stored = stored_in(after)
    assert stored.calibrator is not None
    assert (stored.calibrator.kind, stored.calibrator.target) == ("platt", "hit")
    assert set(stored.raw) == set(stored.calibrated) == {"lrp", "f1", "cost", "fppi"}


def test_predict_maps_scores_by_the_stored_calibrator(command: Command, folder: Path) -> None:
    raw = predictions(command, folder, "threshold=0")
    mapped = predictions(command, folder, "threshold=0", "calibrated=true")
    stored = stored_in(checkpoint.load(folder / "calibrated.pt"))
    assert stored.calibrator is not None
    for before, after in zip(raw, mapped, strict=True):
        labels = np.array([i - 1 for i in before["category_ids"]])
        assert min(before["category_ids"]) >= 1
        expected = stored.calibrator(np.array(before["scores"]), labels)
        # Scores are single precision: half a unit in the last of 24 bits.
        np.testing.assert_allclose(after["scores"], np.sort(expected)[::-1], rtol=1e-6)
        assert after["scores"] != before["scores"]


@pytest.mark.parametrize("point", ["lrp", "f1", "cost", "fppi"])
@pytest.mark.parametrize("calibrated", [False, True])
def test_predict_shows_what_the_thresholds_of_each_class_keep(
    command: Command, folder: Path, point: str, calibrated: bool
) -> None:
    argv = [f"calibrated={str(calibrated).lower()}"]
    every = predictions(command, folder, "threshold=0", *argv)
    shown = predictions(command, folder, "threshold=auto", f"operating_point={point}", *argv)
    stored = stored_in(checkpoint.load(folder / "calibrated.pt"))
    points = (stored.calibrated if calibrated else stored.raw)[point]
    limits = [np.inf if limit is None else limit for limit in points.thresholds]
    for all_of_it, part in zip(every, shown, strict=True):
        # A threshold is the score of a detection in double precision, rounded in the file.
        expected = [
            score
            for score, i in zip(all_of_it["scores"], all_of_it["category_ids"], strict=True)
            if score >= limits[i - 1] * (1 - 1e-7)
        ]
        assert part["scores"] == expected
    numbers = [len(part["scores"]) for part in shown]
    assert sum(numbers) < sum(len(part["scores"]) for part in every)


def test_a_number_as_threshold_is_of_calibrated_scores_where_these_are_asked_for(
    command: Command, folder: Path
) -> None:
    every = predictions(command, folder, "threshold=0", "calibrated=true")
    limit = sorted(score for row in every for score in row["scores"])[-5]
    some = predictions(command, folder, f"threshold={limit}", "calibrated=true")
    kept = [score for row in some for score in row["scores"]]
    assert 0 < len(kept) <= 4
    assert min(kept) > limit


def test_evaluate_calibrated_changes_scores_and_not_ap(command: Command, folder: Path) -> None:
    found = {}
    for name in ("false", "true"):
        argv = [f"calibrated={name}", f"output_dir=to_{name}", "analysis=true", "pictures=false"]
        outcome = command(
            "evaluate", f"checkpoint={folder / 'calibrated.pt'}", "device=cpu", "draws=0", *argv
        )
        assert (outcome.code, outcome.err) == (0, "")
        found[name] = json.loads((Path(f"to_{name}") / "metrics.json").read_text())
    assert found["true"]["AP"] == found["false"]["AP"] > 0
    errors = [found[name]["analysis"]["calibration"]["all"]["D-ECE"] for name in ("false", "true")]
    assert errors[1]["value"] < errors[0]["value"] / 2


@pytest.mark.parametrize("method", ["none", "link_inverse", "temperature", "isotonic"])
def test_each_method_can_be_stored_and_read(command: Command, folder: Path, method: str) -> None:
    argv = [*source(folder), "output=other.pt", f"method={method}", "draws=0"]
    outcome = command("calibrate", *argv)
    assert (outcome.code, outcome.err) == (0, "")
    own = stored_in(checkpoint.load("other.pt")).calibrator
    assert (own.kind if own else "none") == method


def test_links_on_arrays_are_those_of_the_loss() -> None:
    link = link_of(FocalLoss(3))
    assert link is not None
    # eta / (1 - eta) = 3 B / A of `LOSSES`: at p = 1/2 A and B are equal, so eta = 3/4.
    assert link(np.array([0.5])) == pytest.approx([0.75], abs=1e-12)
    assert link_of(SSDLoss(3)) is None


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["output=a.json"], "output: a.json given, a name that ends in .pt is needed"),
        (["output=there.pt"], "output: there.pt is already there; overwrite=true replaces it"),
        (["output=a.pt", "miss=0"], "miss: 0.0 given, a number above 0 is needed"),
        (["output=a.pt", "method=plat"], "method: 'plat' is not one of platt, temperature, "),
        (["output=a.pt", "min_detections=0"], "min_detections: 0 given, at least 1 is needed"),
    ],
)
def test_a_mistake_is_answered_in_one_line(
    command: Command, folder: Path, tmp_path: Path, argv: list[str], message: str
) -> None:
    (tmp_path / "there.pt").touch()
    outcome = command("calibrate", *source(folder), *argv)
    assert outcome.code == 2
    assert outcome.message.startswith(message)
    assert {path.name for path in tmp_path.iterdir()} == {"there.pt"}


def test_the_checkpoint_itself_is_never_written(command: Command, folder: Path) -> None:
    path = folder / "run" / "checkpoints" / "last.pt"
    outcome = command("calibrate", *source(folder), f"output={path}", "overwrite=true")
    assert outcome.code == 2
    assert outcome.message.endswith("is the checkpoint, which is kept as it is")


def test_a_loss_without_a_known_link_refuses_it(
    command: Command, folder: Path, tmp_path: Path
) -> None:
    saved = checkpoint.load(folder / "run" / "checkpoints" / "last.pt")
    saved["config"]["loss"] = {"name": "varifocal", "weight": 1.0}
    checkpoint.save(tmp_path / "other.pt", saved)
    argv = ["checkpoint=other.pt", "output=a.pt", "device=cpu", "draws=0"]
    for words, key in ((["method=link_inverse"], "method"), (["anchors=true"], "anchors")):
        outcome = command("calibrate", *argv, *words)
        assert outcome.code == 2
        assert outcome.message == f"{key}: the loss varifocal has no link inverse that is known"
    assert command("calibrate", *argv).code == 0
    assert "link_inverse" not in json.loads((tmp_path / "a.json").read_text())["methods"]


@pytest.mark.parametrize("words", [["calibrated=true"], ["threshold=auto"]])
def test_predict_from_a_checkpoint_without_calibration_says_what_makes_one(
    command: Command, folder: Path, words: list[str]
) -> None:
    outcome = command("predict", *source(folder), f"source={folder / 'val'}", *words)
    assert outcome.code == 2
    assert "has no calibrator and no operating points; tools/calibrate.py" in outcome.message
    assert not Path("out").exists()


def test_predict_calibrated_refuses_a_checkpoint_that_has_thresholds_alone(
    command: Command, folder: Path
) -> None:
    command("calibrate", *source(folder), "output=none.pt", "method=none", "draws=0")
    argv = ["checkpoint=none.pt", f"source={folder / 'val'}", "device=cpu", "output_dir=out"]
    outcome = command("predict", *argv, "calibrated=true")
    assert outcome.code == 2
    assert outcome.message == "calibrated: true given, but method=none was stored"
    assert command("predict", *argv, "threshold=auto").code == 0


def test_links_pass_double_precision_through() -> None:
    link = link_of(FocalLoss(1))
    assert link is not None
    values = link(np.array([1e-9, 0.3]))
    assert values.dtype == np.float64
    assert torch.get_default_dtype() == torch.float32
