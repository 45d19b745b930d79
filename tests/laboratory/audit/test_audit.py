"""What the audit counts, foretells and advises, on data whose answer is known."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from detector.config import from_plain
from detector.config.registry import AUGMENTATIONS, DATASETS, LOSSES, MATCHERS
from detector.data.loader import evaluation_batches
from detector.laboratory.audit.audit import examine
from detector.laboratory.audit.outcome import Audit
from detector.laboratory.audit.summary import summary
from detector.models.anchors import AnchorGenerator
from tests.commands import Command
from tests.data.files import write_coco_set
from tests.training.tiny import tiny

SIZE = 256
NAME = "<script>alert(1)</script>"


def coco_set(root: Path, width: float, height: float) -> dict[str, str]:
    """Eight images, in each two objects of one shape, at places that no anchor is centred on."""
    images = [
        {"id": i, "file_name": f"{i}.png", "height": SIZE, "width": SIZE} for i in range(1, 9)
    ]
    boxes = [[x + 3.0 * i["id"], y, width, height] for i in images for x, y in ((9, 31), (120, 90))]
    annotations = [
        {"id": i + 1, "image_id": i // 2 + 1, "category_id": 1, "bbox": box}
        for i, box in enumerate(boxes)
    ]
    value = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": NAME}],
    }
    return write_coco_set(root, value)


def audited(plain: dict[str, Any]) -> Audit:
    train = from_plain(plain)
    return examine(train, plain, DATASETS.build(train.data).read("train"), loss_images=4)


def test_anchors_are_counted_as_the_matcher_has_them(tmp_path: Path) -> None:
    plain = tiny(tmp_path)
    found = summary(audited(plain))["now"]
    config = from_plain(plain)
    dataset = DATASETS.build(config.data).read("train")
    batches = evaluation_batches(
        dataset, AUGMENTATIONS.build(config.augment), images_per_group=3, rank=0, world_size=1,
        num_workers=0, timeout=0, limit=None,
    )  # fmt: skip
    generator, matcher = AnchorGenerator(config.model.anchors), MATCHERS.build(config.matcher)
    sizes = [(8, 8), (4, 4), (2, 2), (1, 1), (1, 1)]  # the maps of 64 px
    anchors = generator(sizes, torch.device("cpu"))
    positives = background = 0
    for _, targets in batches:
        matches = matcher(anchors, targets, None)
        positives += int(matches.foreground.sum())
        background += int((matches.valid & ~matches.foreground).sum())
    assert (found["positives"], found["background"]) == (positives, background)
    assert found["prior_any"] == pytest.approx(positives / (positives + background), rel=1e-12)


def test_objects_that_no_anchor_fits_are_reached_with_the_anchors_that_are_advised(
    tmp_path: Path,
) -> None:
    # Five times as high as wide: the anchors that are twice as high overlap by 0.46 at most.
    options = {"name": "coco", **coco_set(tmp_path, width=24, height=120)}
    plain = tiny(tmp_path / "out", data=options, augment={"name": "albumentations"})
    found = audited(plain)
    before = summary(found)
    assert before["now"]["forced"] == before["now"]["objects"] == 16
    (anchors,) = [item for item in found.advice if item.topic == "anchors"]
    advised = dict(anchors.changes)
    assert set(advised) == {"model.anchors.scales", "model.anchors.ratios"}
    plain["model"]["anchors"] = {key.rpartition(".")[2]: list(v) for key, v in advised.items()}
    again = summary(audited(plain))
    assert (again["now"]["forced"], again["now"]["unreached"]) == (0, 0)
    assert again["now"] == before["advised"]
    assert [i["overrides"] for i in again["advice"] if i["topic"] == "anchors"] == [[]]


def test_every_registered_loss_has_its_first_step_foretold(tmp_path: Path) -> None:
    found = audited(tiny(tmp_path))
    assert sorted(row.loss for row in found.losses) == LOSSES.names
    shares = [row.given.negative_share for row in found.losses if row.given]
    assert shares == sorted(shares, reverse=True)
    (focal,) = [row for row in found.losses if row.loss == "focal"]
    (plain,) = [row for row in found.losses if row.loss == "cross_entropy"]
    assert focal.given is not None
    assert plain.given is not None
    odds = [s.negative_share / (1 - s.negative_share) for s in (plain.given, focal.given)]
    # The slopes at a score of 0.01, of background and of an object's own class; an anchor has four
    # classes, and the other three of an object are on its side.
    p, q = 0.01, 0.99
    no = 0.75 * (p**3 - 2 * p**2 * q * math.log(q))
    yes = 0.25 * (q**3 - 2 * p * q**2 * math.log(p))
    expected = (4 * p / (q + 3 * p)) / (4 * no / (yes + 3 * no))
    assert odds[0] / odds[1] == pytest.approx(expected, rel=1e-3)  # logits in float32


def test_a_loss_that_background_dominates_is_told_what_would_balance_it(tmp_path: Path) -> None:
    plain = tiny(tmp_path, prior=0.3)
    found = {row.loss: row for row in audited(plain).losses}
    row = found["balanced_cross_entropy"]
    assert row.given is not None
    assert row.given.negative_share > 0.5
    assert row.balanced is not None
    assert row.balanced > 0.9
    plain["loss"] = {"name": row.loss, "weight": 1.0, "alpha": row.balanced}
    (again,) = [r for r in audited(plain).losses if r.loss == row.loss]
    assert again.given is not None
    assert again.given.negative_share == pytest.approx(0.5, abs=0.02)  # 1 - alpha has two digits


def test_the_tool_writes_its_findings_and_a_page_that_shows_names_as_text(
    tmp_path: Path, command: Command
) -> None:
    options = coco_set(tmp_path, width=24, height=120)
    data = [f"data.{key}={value}" for key, value in options.items()]
    words = ["data=coco", *data, "device=cpu", "loss_images=4", f"output_dir={tmp_path / 'out'}"]
    outcome = command("audit", *words)
    assert outcome.code == 0, outcome.err
    assert "16 only by force" in outcome.out
    numbers = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert numbers["now"]["forced"] == 16
    assert numbers["paste"] in outcome.out
    page = (tmp_path / "out" / "audit.html").read_text()
    assert NAME not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "http" not in page.replace("http://www.w3.org", "")  # it works offline
    again = command("audit", *words, *numbers["overrides"], "page=false", "overwrite=true")
    assert again.code == 0, again.err
    assert "0 only by force" in again.out


def test_data_without_objects_are_refused(tmp_path: Path, command: Command) -> None:
    options = write_coco_set(
        tmp_path,
        {
            "images": [{"id": 1, "file_name": "1.png", "height": 32, "width": 32}],
            "annotations": [],
            "categories": [{"id": 1, "name": "cat"}],
        },
    )
    data = [f"data.{key}={value}" for key, value in options.items()]
    outcome = command("audit", "data=coco", *data, f"output_dir={tmp_path / 'out'}")
    assert (outcome.code, "no objects" in outcome.err) == (3, True)
