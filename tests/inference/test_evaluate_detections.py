"""`tools/evaluate.py` on COCO results of any detector, as a user calls it."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.commands import Command

NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
IDS = [0, 91, 10**6]
"""Of categories: what pycocotools takes, and readers that count on 1, 2, 3 do not."""


def drawn(seed: int = 0) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ground truth of 12 images with objects, a crowd each, and noisy, tied, shuffled results."""
    rng = np.random.default_rng(seed)
    images = [{"id": i, "width": 200, "height": 200, "file_name": f"{i}.png"} for i in range(3, 15)]
    annotations, rows = [], []
    for image in images:
        for number in range(4):
            box = [*rng.uniform(0, 120, 2).tolist(), *rng.uniform(20, 80, 2).tolist()]
            category = int(rng.choice(IDS))
            place = {"image_id": image["id"], "category_id": category}
            row = {**place, "bbox": box, "area": box[2] * box[3], "iscrowd": int(number == 3)}
            annotations.append({"id": len(annotations) + 1, **row})
            near = (np.array(box) + rng.normal(0, 4, 4)).clip(1).tolist()
            rows.append({**place, "bbox": near, "score": round(float(rng.uniform(0.2, 1)), 1)})
            far = [*rng.uniform(0, 120, 2).tolist(), 30.0, 30.0]
            rows.append({**place, "bbox": far, "score": round(float(rng.uniform(0, 0.7)), 1)})
    categories = [{"id": i, "name": f"kind {i}"} for i in IDS]
    rng.shuffle(rows)  # type: ignore[arg-type]
    return {"images": images, "categories": categories, "annotations": annotations}, rows


def write(truth: Any, rows: Any) -> list[str]:
    """The files, in the working folder, as arguments of the tool."""
    Path("truth.json").write_text(json.dumps(truth))
    Path("found.json").write_text(json.dumps(rows))
    return ["detections=found.json", "annotations=truth.json"]


def by_hand() -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO("truth.json")
        rows = sorted(
            json.loads(Path("found.json").read_text()), key=lambda r: (r["image_id"], -r["score"])
        )
        Path("sorted.json").write_text(json.dumps(rows))
        evaluation = COCOeval(truth, truth.loadRes("sorted.json"), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return list(evaluation.stats)


def test_the_twelve_numbers_are_those_of_pycocotools_by_hand(
    command: Command, tmp_path: Path
) -> None:
    argv = write(*drawn())
    outcome = command("evaluate", *argv, "pictures=false", "draws=20")
    assert (outcome.code, outcome.err) == (0, "")
    metrics = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert 0.2 < metrics["AP"] < 0.9
    for name, value in zip(NAMES, by_hand(), strict=True):
        assert metrics[name] == (None if value == -1 else value), name
    assert metrics["evaluator"]["name"] == "pycocotools"
    assert set(metrics["per_class"]) == {f"kind {i}" for i in IDS}


def test_the_terminal_has_every_table_with_the_name_of_what_made_the_numbers(
    command: Command,
) -> None:
    out = command("evaluate", *write(*drawn()), "pictures=false", "draws=20").out
    for words in ("by pycocotools ", "D-ECE", "Kueppers et al. 2020", "optimal LRP", "delta"):
        assert (words in out) == (words != "delta"), words
    for words in ("localisation", "F1 threshold", "images with the most misses", "1-4"):
        assert words in out


def test_the_other_evaluator_is_used_when_it_is_asked_for(command: Command, tmp_path: Path) -> None:
    pytest.importorskip("faster_coco_eval")
    argv = [*write(*drawn()), "analysis=false"]
    found = []
    for name in ("pycocotools", "faster_coco_eval"):
        command("evaluate", *argv, f"evaluator={name}", f"output_dir={name}")
        found.append(json.loads((tmp_path / name / "metrics.json").read_text()))
        assert found[-1]["evaluator"]["name"] == name
        assert "analysis" not in found[-1]
    # Sums in another order: the last digits of a double.
    assert [found[0][n] for n in NAMES] == pytest.approx([found[1][n] for n in NAMES], abs=1e-12)


def test_curves_and_the_worst_images_are_drawn(command: Command, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    truth, rows = drawn()
    (tmp_path / "pixels").mkdir()
    for row in truth["images"]:
        Image.new("RGB", (200, 200)).save(tmp_path / "pixels" / row["file_name"])
    outcome = command(
        "evaluate", *write(truth, rows), "images=pixels", "output_dir=out", "worst=2", "draws=0"
    )
    assert (outcome.code, outcome.err) == (0, "")
    names = {path.stem for path in (tmp_path / "out" / "figures").iterdir()}
    assert names == {"reliability", "reliability_classes", "precision_recall"}
    kinds = ["false_positives", "misses"]
    worst = json.loads((tmp_path / "out" / "metrics.json").read_text())["analysis"]["worst_images"]
    expected = {
        f"{kind}_{n:02d}_image_{row['image_id']}.png"
        for kind in kinds
        for n, row in enumerate(worst[kind][:2], 1)
    }
    assert len(expected) >= 3
    assert {path.name for path in (tmp_path / "out" / "worst").iterdir()} == expected
    with Image.open(tmp_path / "out" / "worst" / min(expected)) as picture:
        assert picture.width > 400  # twice, side by side
        assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 5


def test_an_image_to_be_drawn_that_is_not_there_is_named(command: Command, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "pixels").mkdir()
    outcome = command("evaluate", *write(*drawn()), "images=pixels", "draws=0")
    assert outcome.code == 3
    assert outcome.message.startswith("pixels/")


GOOD = {"image_id": 3, "category_id": 91, "bbox": [0.0, 0.0, 5.0, 5.0], "score": 0.5}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": float("nan")}, "found.json: detections[1] (image 3): score nan and box [0.0, "),
        ({"score": "high"}, "found.json: detections[1] (image 3): score 'high' is no number"),
        ({"score": 1.5}, "found.json: detections[1] (image 3): score 1.5 given, "),
        (
            {"category_id": 2},
            "found.json: detections[1] (image 3): category_id 2 is none of the categories; "
            "allowed: 0, 91, 1000000",
        ),
        ({"image_id": 99}, "found.json: detections[1]: image_id 99 is none of the 12 images"),
        ({"image_id": "c"}, "found.json: detections[1] (image 'c'): image_id 'c' is no integer"),
        ({"bbox": [0, 0, -1, 5]}, "found.json: detections[1] (image 3): bbox [0, 0, -1, 5] is not"),
        ({"bbox": [0, 0, 5]}, "found.json: detections[1] (image 3): bbox [0, 0, 5] is not four "),
        ({"bbox": None}, "found.json: detections[1] (image 3): bbox None is not four fin"),
    ],
)
def test_a_detection_that_makes_no_sense_is_answered_in_one_line_with_its_place(
    command: Command, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    outcome = command("evaluate", *write(drawn()[0], [GOOD, GOOD | change]), "pictures=false")
    assert outcome.code == 3
    assert outcome.message.startswith(message)
    assert not (tmp_path / "evaluation" / "metrics.json").exists()


@pytest.mark.parametrize(
    ("group", "change", "message"),
    [
        ("images", {"id": 3}, "truth.json: images: id 3 is listed twice"),
        ("categories", {"id": 0}, "truth.json: categories: id 0 is listed twice"),
        ("annotations", {"image_id": 99}, "truth.json: annotations[1]: image_id 99 is none of"),
        ("annotations", {"category_id": 1}, "truth.json: annotations[1] (image 3): category_id 1"),
        (
            "annotations",
            {"bbox": [0, 0, float("nan"), 5]},
            "truth.json: annotations[1] (id 2, image",
        ),
        ("annotations", {"area": "big"}, "truth.json: annotations[1] (id 2, image 3): area 'big'"),
    ],
)
def test_a_ground_truth_that_contradicts_itself_is_answered_in_one_line_with_its_place(
    command: Command, group: str, change: dict[str, Any], message: str
) -> None:
    truth, rows = drawn()
    truth[group][1] |= change
    outcome = command("evaluate", *write(truth, rows), "pictures=false")
    assert outcome.code == 3
    assert outcome.message.startswith(message)


@pytest.mark.parametrize("ids", [[0] * 48, [7] * 48, None])
def test_annotation_ids_that_are_0_twice_or_absent_change_nothing(
    command: Command, tmp_path: Path, ids: list[int] | None
) -> None:
    truth, rows = drawn()
    argv = ["analysis=false"]
    command("evaluate", *write(truth, rows), *argv, "output_dir=before")
    for i, row in enumerate(truth["annotations"]):
        row.pop("id")
        if ids is not None:
            row["id"] = ids[i]
    command("evaluate", *write(truth, rows), *argv, "output_dir=after")
    before, after = (tmp_path / name / "metrics.json" for name in ("before", "after"))
    assert before.read_text() == after.read_text()


def test_no_detections_are_a_score_of_0_and_not_a_failure(command: Command, tmp_path: Path) -> None:
    outcome = command("evaluate", *write(drawn()[0], []), "pictures=false", "draws=20")
    assert (outcome.code, outcome.err) == (0, "")
    metrics = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert (metrics["AP"], metrics["AR100"]) == (0.0, 0.0)
    assert metrics["analysis"]["calibration"]["all"]["D-ECE"]["value"] is None


@pytest.mark.parametrize(
    ("truth", "rows", "message"),
    [
        ([], [], "truth.json: is not an object with images, annotations and categories"),
        ({"images": []}, [], "truth.json: 'categories' is missing"),
        (drawn()[0], {"annotations": []}, "found.json: detections is not a list"),
        (drawn()[0], [3], "found.json: detections[0]: is not an object"),
        (drawn()[0], [{"image_id": 3}], "found.json: detections[0] (image 3): 'category_id' is m"),
    ],
)
def test_a_file_of_another_kind_is_answered_in_one_line(
    command: Command, truth: Any, rows: Any, message: str
) -> None:
    outcome = command("evaluate", *write(truth, rows), "pictures=false")
    assert outcome.code == 3
    assert outcome.message.startswith(message)


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["detections=a"], 2, "annotations: has to be given with detections"),
        (["annotations=a"], 2, "detections: has to be given with annotations"),
        (["checkpoint=a", "detections=b"], 2, "detections: given with a checkpoint, which has its"),
        (["detections=a", "annotations=b", "calibrated=true"], 2, "calibrated: given with detect"),
        (["detections=a", "annotations=no.json"], 3, "annotations=no.json: there is no such file"),
        (["detections=no.json", "annotations=broken.json"], 3, "broken.json: is not JSON: "),
    ],
)
def test_a_mistake_is_answered_in_one_line(
    command: Command, tmp_path: Path, argv: list[str], code: int, message: str
) -> None:
    (tmp_path / "broken.json").write_text('{"images": [')
    outcome = command("evaluate", *argv, "pictures=false")
    assert outcome.code == code
    assert outcome.message.startswith(message)
