"""A probe sees what a loss does to the gradient, and the run does not notice it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from detector.errors import Preempted
from detector.layouts import Sigmoid
from detector.runs.checkpoint import load
from detector.structures import IGNORE, Predictions
from detector.training.probe import histograms
from detector.training.probe.probe import steps_to_record
from detector.training.probe.step_record import LOGITS, SCORES, StepRecord, counted
from tests.synthetic import PlainCoder, make_anchors, make_matches, make_targets
from tests.training.faults import FaultInjector
from tests.training.test_train import assert_same
from tests.training.tiny import go, tiny, torchrun

PROBE = {"enabled": True, "points": 4, "images": 2}


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(x) for x in (folder / "probe" / "steps.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("loss", ["focal", "ghm", "equalized_focal", "random_sampling", "ssd"])
def test_a_run_with_a_probe_is_the_run_without_it_to_the_bit(loss: str, tmp_path: Path) -> None:
    options = {"loss": {"name": loss, "weight": 1.0}, "steps": 4}
    plain = go(tiny(tmp_path / "plain", **options))
    drawn = torch.get_rng_state()
    probed = go(tiny(tmp_path / "probed", probe=PROBE, **options))
    assert torch.equal(torch.get_rng_state(), drawn)
    before, after = (load(folder / "checkpoints" / "last.pt") for folder in (plain, probed))
    for part in ("model", "ema", "optimizer", "criterion", "images"):
        assert_same(before[part], after[part], part)
    assert [line["step"] for line in lines(probed)] == [1, 2, 3, 4]


def test_the_shares_are_those_of_a_gradient_worked_by_hand() -> None:
    anchors = make_anchors()
    matches = make_matches(anchors, make_targets([2, 1], 3))
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, len(anchors.boxes), 3, generator=generator).requires_grad_()
    predictions = Predictions(logits, torch.zeros(2, len(anchors.boxes), 4), anchors, PlainCoder())
    factor = torch.rand(logits.shape, generator=generator)
    factor[0, matches.background[0].nonzero()[0]] = 0
    factor[matches.labels == IGNORE] = 0
    record = StepRecord(Sigmoid(3))
    terms = {"loss_class": (factor * logits).sum(), "loss_box": torch.zeros(())}
    record.add(predictions, matches, terms)
    assert logits.grad is None
    found = record.line(Alone(), 7)  # type: ignore[arg-type]
    magnitude = factor.double().sum(-1)
    every = sum(magnitude[matches.valid].tolist())
    background = magnitude[matches.background].tolist()
    assert found["negative_share"] == pytest.approx(sum(background) / every, rel=1e-9)
    number = int(matches.valid.sum())
    largest = sorted(magnitude[matches.valid].tolist(), reverse=True)[: -(-number // 100)]
    assert found["hardest_share"] == pytest.approx(sum(largest) / every, rel=1e-9)
    assert found["selected_background"] == found["num_background"] - 1 == len(background) - 1
    assert (
        sum(found["p_t"]["foreground"]) == found["num_foreground"] == int(matches.foreground.sum())
    )
    assert found["scores"]["edges"] == SCORES.tolist()
    assert len(found["scores"]["background"]) == len(SCORES) - 1
    # Of background p_t is one less the greatest probability: its logit is the negative one.
    gradient = [0.0] * (len(LOGITS) - 1)
    of_background = (-logits.detach().double().amax(-1))[matches.background].tolist()
    for logit, size in zip(of_background, background, strict=True):
        gradient[math.floor((logit + 10) / 0.5)] += size / every
    assert found["gradient"]["background"] == pytest.approx(gradient, rel=1e-9)
    shares = [sum(found["gradient"][side]) for side in ("foreground", "background")]
    assert shares[1] == pytest.approx(found["negative_share"], rel=1e-9)
    assert sum(shares) == pytest.approx(1, rel=1e-9)


def test_what_lies_beyond_the_outermost_edges_is_counted_in_the_outermost_bins() -> None:
    values = torch.tensor([-math.inf, -11.0, -10.0, -9.6, -9.5, 9.5, 10.0, math.inf])
    counts = counted(values, LOGITS)
    assert (counts[0], counts[1], counts[-1], counts.sum()) == (4, 1, 3, 8)
    weights = torch.arange(8.0)
    assert counted(values, LOGITS, weights)[0] == 0 + 1 + 2 + 3


class Alone:
    """A setup of which only the world is asked: one process."""

    class world:
        @staticmethod
        def sum(values: torch.Tensor) -> torch.Tensor:
            return values

        @staticmethod
        def gather(value: Any) -> list[Any]:
            return [value]


def test_images_are_looked_at_at_the_start_in_the_middle_and_at_the_end(tmp_path: Path) -> None:
    folder = go(tiny(tmp_path / "run", probe=PROBE))
    content = json.loads((folder / "probe" / "images.json").read_text())
    assert [content[m]["step"] for m in ("start", "middle", "end")] == [0, 3, 6]
    ids = content["image_ids"]
    assert len(ids) == 2
    assert {row["image_id"] for row in content["truth"]} == set(ids)
    final = json.loads((folder / "detections.json").read_text())
    for image_id in ids:
        with Image.open(folder / "probe" / "images" / f"{image_id}.png") as image:
            assert list(image.size) == content["sizes"][str(image_id)] == [64, 64]
        own = [r["score"] for r in content["end"]["detections"] if r["image_id"] == image_id]
        evaluated = sorted((r["score"] for r in final if r["image_id"] == image_id), reverse=True)
        # An image alone and in a batch: convolutions may add up in another order.
        assert sorted(own, reverse=True) == pytest.approx(evaluated[: len(own)], rel=1e-4)


@pytest.mark.parametrize("loss", ["cross_entropy", "ssd", "yolo"])
def test_the_losses_of_the_trained_model_are_counted(loss: str, tmp_path: Path) -> None:
    folder = go(tiny(tmp_path / "run", probe=PROBE, steps=2, loss={"name": loss, "weight": 1.0}))
    final = json.loads((folder / "probe" / "final.json").read_text())
    foreground, background = final["foreground"], final["background"]
    assert sum(foreground["counts"]) > 0
    assert sum(background["counts"]) > 10 * sum(foreground["counts"])
    x, y = histograms.curve(background, "2")
    assert x[-1] == y[-1] == pytest.approx(1)
    assert (np.diff(y) >= 0).all()


def test_a_stopped_run_goes_on_with_its_records(tmp_path: Path) -> None:
    probe = {"enabled": True, "points": 6, "images": 1}
    whole = go(tiny(tmp_path / "whole", probe=probe))
    plain = tiny(tmp_path / "run", probe=probe)
    remove = FaultInjector("sigterm", 4).install()
    with pytest.raises(Preempted):
        go(plain)
    remove()
    path = tmp_path / "run" / "probe" / "steps.jsonl"
    path.write_text(path.read_text() + json.dumps({"step": 6}) + "\n")  # made, and then not saved
    go(plain | {"resume": "auto"})
    assert lines(tmp_path / "run") == lines(whole)
    for name in ("images.json", "final.json"):
        assert json.loads((tmp_path / "run" / "probe" / name).read_text()) == json.loads(
            (whole / "probe" / name).read_text()
        )


def test_two_processes_record_what_one_does(tmp_path: Path) -> None:
    plain = tiny(tmp_path / "one", probe=PROBE, precision="float64", steps=2)
    one = go(plain)
    two = torchrun(2, plain | {"output_dir": str(tmp_path / "two")}, tmp_path)
    for a, b in zip(lines(one), lines(two), strict=True):
        for key in ("negative_share", "hardest_share", "selected_score"):
            assert a[key] == pytest.approx(b[key], rel=1e-6)  # 1e-6: of sums in another order
        assert a["num_background"] == b["num_background"]
        assert a["p_t"] == b["p_t"]
        for side in ("foreground", "background"):
            assert a["gradient"][side] == pytest.approx(b["gradient"][side], rel=1e-6)


def test_steps_lie_close_at_first_and_end_with_the_last() -> None:
    assert steps_to_record(1000, 5) == [1, 6, 32, 178, 1000]
    assert steps_to_record(3, 20) == [1, 2, 3]
