"""What the audit says of each class, on data of a frequent class and a rare one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector.config import from_plain
from detector.config.registry import DATASETS
from detector.laboratory.audit.advice import on_classes
from detector.laboratory.audit.anchors import alike
from detector.laboratory.audit.audit import examine
from detector.laboratory.audit.classes import ClassFacts
from detector.laboratory.audit.outcome import Audit
from detector.laboratory.audit.summary import summary
from tests.commands import Command
from tests.data.files import write_coco_set
from tests.training.tiny import tiny

WEIGHTS = ["class_weights=effective_number", "effective_number_beta=0.9999"]


def blood(root: Path, *, num_rare: int = 10, rare: tuple[int, int] = (10, 60)) -> dict[str, str]:
    """Ten images of 256 px: nine squares of 64 px in each, of `cell`; and in some a `splinter`.

    rare: width and height of a splinter; by default no anchor fits it.
    """
    images = [{"id": i, "file_name": f"{i}.png", "height": 256, "width": 256} for i in range(1, 11)]
    squares = [
        (i["id"], 1, [x, y, 64, 64]) for i in images for x in (0, 70, 140) for y in (0, 70, 140)
    ]
    splinters = [(1 + i, 2, [220, 190, *rare]) for i in range(num_rare)]
    annotations = [
        {"id": n, "image_id": image, "category_id": k, "bbox": box}
        for n, (image, k, box) in enumerate([*squares, *splinters], start=1)
    ]
    names = ("cell", "splinter")
    categories = [{"id": n, "name": name} for n, name in enumerate(names, start=1)]
    value = {"images": images, "annotations": annotations, "categories": categories}
    return write_coco_set(root, value)


def audited(root: Path, options: dict[str, str], **changes: Any) -> Audit:
    data = {"name": "coco", **options}
    plain = tiny(root / "out", data=data, augment={"name": "albumentations"}, **changes)
    train = from_plain(plain)
    return examine(train, plain, DATASETS.build(train.data).read("train"), loss_images=4)


def facts(name: str, *, objects: int, share: float) -> ClassFacts:
    return ClassFacts(name, objects, objects, share, 1.0, 1.0, 50.0, 50.0, 0.0, 1.0)


def row(found: Audit, name: str) -> dict[str, Any]:
    return next(row for row in summary(found)["per_class"] if row["class"] == name)


def test_each_class_has_its_objects_images_size_and_weight(tmp_path: Path) -> None:
    found = audited(tmp_path, blood(tmp_path, num_rare=4))
    cell, splinter = row(found, "cell"), row(found, "splinter")
    assert (cell["objects"], cell["images"], cell["side"]) == (90, 10, pytest.approx(64))
    assert (splinter["objects"], splinter["images"]) == (4, 4)
    assert splinter["side"] == pytest.approx(600**0.5)
    assert splinter["share"] == pytest.approx(4 / 94)
    # Cui et al. 2019, equation 3: (1 - b) / (1 - b^n), scaled to a mean of 1.
    rates = [1e-4 / (1 - 0.9999**n) for n in (90, 4)]
    assert cell["weight"] == pytest.approx(2 * rates[0] / sum(rates))
    assert splinter["weight"] == pytest.approx(2 * rates[1] / sum(rates))


def test_a_rare_class_is_advised_class_weights_and_a_frequent_one_is_not(tmp_path: Path) -> None:
    found = audited(tmp_path, blood(tmp_path, rare=(64, 64)))
    advice = row(found, "splinter")["advice"]
    assert [(item["topic"], item["overrides"]) for item in advice] == [("class weights", WEIGHTS)]
    assert row(found, "cell")["advice"] == []
    assert summary(found)["overrides"] == WEIGHTS
    assert found.advised_config.class_weights == "effective_number"


def test_classes_with_as_many_objects_each_are_advised_no_weights(tmp_path: Path) -> None:
    rows = [facts(name, objects=10, share=1 / 2) for name in ("cat", "dog")]
    advice = on_classes(from_plain(tiny(tmp_path)), rows)
    assert advice is not None
    assert advice.overrides == []
    assert on_classes(from_plain(tiny(tmp_path)), rows[:1]) is None


def test_weights_that_are_set_already_stay(tmp_path: Path) -> None:
    found = audited(tmp_path, blood(tmp_path), class_weights=[1.0, 3.0])
    (advice,) = [item for item in found.advice if item.topic == "class weights"]
    assert advice.overrides == []
    assert "class_weights is set already" in advice.reason


def test_a_loss_that_takes_no_weights_is_said(tmp_path: Path) -> None:
    found = audited(tmp_path, blood(tmp_path), loss={"name": "distributional_ranking"})
    (advice,) = [item for item in found.advice if item.topic == "class weights"]
    assert advice.overrides == []
    assert "loss=distributional_ranking takes no class weights" in advice.reason


def test_anchors_are_advised_for_the_class_that_has_none_however_rare_it_is(
    tmp_path: Path,
) -> None:
    found = audited(tmp_path, blood(tmp_path, num_rare=1))
    splinter = row(found, "splinter")
    assert splinter["reached"] == 0
    assert splinter["advised"] == 1
    (anchors,) = [item for item in splinter["advice"] if item["topic"] == "anchors"]
    assert [word.partition("=")[0] for word in anchors["overrides"]] == [
        "model.anchors.scales",
        "model.anchors.ratios",
    ]
    assert row(found, "cell")["advised"] == 1


def test_the_class_with_the_smallest_objects_decides_about_the_size_of_images(
    tmp_path: Path,
) -> None:
    found = audited(tmp_path, blood(tmp_path, rare=(4, 4)))
    (size,) = [item for item in row(found, "splinter")["advice"] if item["topic"] == "image size"]
    # Cells of 8 px: sides twice as long make the splinters as wide as one.
    assert size["overrides"] == ["augment.max_size=512"]
    assert "100% of its objects" in size["reason"]


def test_a_class_without_objects_is_named(tmp_path: Path) -> None:
    found = audited(tmp_path, blood(tmp_path, num_rare=0))
    (advice,) = row(found, "splinter")["advice"]
    assert (advice["topic"], advice["overrides"]) == ("no objects", [])


def test_every_class_is_picked_alike_and_one_class_alone_as_it_is() -> None:
    picked = alike(np.array([0, 0, 0, 0, 1]), most=100)
    assert sorted(picked.tolist()) == [0, 1, 2, 3, 4, 4, 4, 4]
    assert alike(np.array([2, 2, 2]), most=100).tolist() == [0, 1, 2]
    assert len(alike(np.array([0] * 50 + [1] * 7), most=10)) == 10


def test_the_tool_says_it_in_its_text_its_numbers_and_its_page(
    tmp_path: Path, command: Command
) -> None:
    data = [f"data.{key}={value}" for key, value in blood(tmp_path).items()]
    words = ["data=coco", *data, "device=cpu", "loss_images=2", f"output_dir={tmp_path / 'out'}"]
    outcome = command("audit", *words)
    assert outcome.code == 0, outcome.err
    assert f"splinter, class weights: {' '.join(WEIGHTS)}" in outcome.out
    numbers = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert set(WEIGHTS) <= set(numbers["overrides"])
    page = (tmp_path / "out" / "audit.html").read_text()
    assert "splinter: class weights" in page
    assert "<code>class_weights=effective_number</code>" in page
