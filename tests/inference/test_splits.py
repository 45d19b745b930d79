"""A model on a test split, on other data and on other files, none of which its training saw."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from detector.config import from_plain
from detector.config.registry import DATASETS
from detector.config.schema import Plug
from detector.data.export import write_coco
from detector.errors import ConfigError, DataError
from detector.inference.evaluate import evaluate, evaluate_detections
from detector.inference.predict import predict
from detector.training.run import run
from tests.commands import Command
from tests.training.tiny import TINY, tiny

FILES = {
    f"{split}_{what}": name
    for split in ("train", "val", "test")
    for what, name in (("annotations", f"annotations/{split}.json"), ("images", split))
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COCO set of three splits, and a run that was trained and scored on two images of it."""
    root = tmp_path_factory.mktemp("made")
    reader = DATASETS.build(Plug("generated", {**_options(), "num_test": 5}))
    for split in ("train", "val", "test"):
        file = write_coco(reader.read(split), root / "data", split)
        target = root / "data" / FILES[f"{split}_annotations"]
        target.parent.mkdir(exist_ok=True)
        shutil.copy(file, target)
        if not (root / "data" / split).is_dir():
            shutil.move(_images(root / "data", split), root / "data" / split)
    plain = tiny(
        root / "run",
        steps=30,
        batch_size=8,
        data={"name": "coco", "root": str(root / "data"), **FILES},
        evaluation={"limit": 2},
    )
    run(from_plain(plain), plain)
    return root


def _options() -> dict[str, Any]:
    return {key: value for key, value in TINY["data"].items() if key != "name"}


def _images(folder: Path, split: str) -> Path:
    return next(p for p in folder.rglob(f"*{split}*") if p.is_dir())


def best(made: Path) -> Path:
    return made / "run" / "checkpoints" / "best.pt"


def test_the_limit_of_a_training_does_not_stick_to_its_checkpoint(made: Path) -> None:
    assert json.loads((made / "run" / "metrics.json").read_text())["images"] == 2
    assert evaluate(best(made), device="cpu").metrics["images"] == 3
    assert evaluate(best(made), device="cpu", limit=1).metrics["images"] == 1


def test_a_test_split_is_scored_beside_the_val_split_and_needs_no_other(
    made: Path, tmp_path: Path
) -> None:
    root = tmp_path / "test_only"
    shutil.copytree(made / "data", root)
    shutil.rmtree(root / "train")
    (root / FILES["train_annotations"]).unlink()
    (root / FILES["val_annotations"]).unlink()
    found = evaluate(best(made), split="test", data_root=str(root), device="cpu")
    assert found.metrics["images"] == 5
    assert found.folder.path == best(made).parent / "evaluation_test"


def test_data_of_another_kind_are_scored_by_the_names_of_their_classes(
    made: Path, tmp_path: Path
) -> None:
    """The val images again, with classes in another order, under other ids, and one that no image
    has left out: the numbers stay, and the detections fit the file."""
    content = json.loads((made / "data" / FILES["val_annotations"]).read_text())
    numbers = {row["id"]: 50 - row["id"] for row in content["categories"]}
    used = {row["category_id"] for row in content["annotations"]}
    content["categories"] = [
        {**row, "id": numbers[row["id"]]} for row in content["categories"] if row["id"] in used
    ]
    for row in content["annotations"]:
        row["category_id"] = numbers[row["category_id"]]
    file = tmp_path / "other.json"
    file.write_text(json.dumps(content))
    data = {
        "name": "coco",
        "root": str(tmp_path),
        "val_annotations": "other.json",
        "val_images": str(made / "data" / "val"),
    }
    other = evaluate(best(made), data=data, device="cpu", output_dir=tmp_path / "out").metrics
    own = evaluate(best(made), device="cpu").metrics
    assert own["AP"] > 0
    assert {**other, "seconds": 0} == {**own, "seconds": 0}
    again = evaluate_detections(
        tmp_path / "out" / "detections.json", file, analysis=False, output_dir=tmp_path / "again"
    )
    # A mean over the same classes in another order.
    assert again.metrics["AP"] == pytest.approx(own["AP"], rel=1e-12)


def test_a_class_that_the_model_does_not_know_is_named(made: Path, tmp_path: Path) -> None:
    content = json.loads((made / "data" / FILES["val_annotations"]).read_text())
    content["categories"][0]["name"] = "zebra"
    (tmp_path / "other.json").write_text(json.dumps(content))
    data = {"val_annotations": str(tmp_path / "other.json")}
    with pytest.raises(DataError, match=r"objects of 'zebra', no class of .*best.pt"):
        evaluate(best(made), data=data, device="cpu")


def test_a_split_that_the_config_does_not_name_is_asked_for(made: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.test_annotations: has to be given"):
        evaluate(best(made), split="test", data={"test_annotations": None}, device="cpu")


def test_what_predict_writes_is_what_evaluate_reads(made: Path, tmp_path: Path) -> None:
    written = predict(
        best(made), made / "data" / "val", output_dir=tmp_path / "p", threshold=0.0, device="cpu"
    )
    annotations = made / "data" / FILES["val_annotations"]
    found = evaluate_detections(written, annotations, analysis=False, output_dir=tmp_path / "e")
    own = evaluate(best(made), device="cpu").metrics
    assert found.metrics["AP"] == pytest.approx(own["AP"], rel=1e-6)  # corners, then sides again


def test_a_prediction_of_a_file_that_is_no_image_is_named(made: Path, tmp_path: Path) -> None:
    entry = {"file": "nowhere.png", "boxes": [], "scores": [], "labels": []}
    (tmp_path / "predictions.json").write_text(json.dumps([entry]))
    with pytest.raises(DataError, match=r"entry 0: nowhere.png is none of the images"):
        evaluate_detections(tmp_path / "predictions.json", made / "data" / FILES["val_annotations"])


@pytest.mark.parametrize(
    ("words", "data"),
    [
        (["data.val_split=test"], {"val_split": "test"}),
        (["data=voc", "data.root=D"], {"name": "voc", "root": "D"}),
        (["evaluation.limit=null"], None),
    ],
)
def test_the_command_takes_data_and_what_a_training_calls_evaluation(
    command: Command, words: list[str], data: dict[str, Any] | None
) -> None:
    seen = []
    outcome = command("evaluate", "checkpoint=x", *words, run=seen.append)
    assert outcome.code == 0, outcome.err
    if data is None:
        assert seen[0].data is None
    else:
        assert {key: seen[0].data[key] for key in data} == data
        assert ("name" in seen[0].data) == ("name" in data)
