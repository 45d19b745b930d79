"""Hard cases on the training page: no objects, other ids, uneven shares, weights that explode."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector.config import from_plain
from detector.config.registry import DATASETS
from detector.data.export import write_coco
from detector.data.readers.base import SPLITS, Dataset
from detector.data.sampler import step_samples
from detector.inference.evaluate import evaluate
from detector.runs.checkpoint import load, save
from tests.commands import Command
from tests.training.tiny import TINY, go, launch, losses, tiny


def generated(**options: Any) -> dict[str, Any]:
    return {**TINY["data"], **options}


def read(data: dict[str, Any]) -> list[Dataset]:
    """The train and the val split."""
    reader = DATASETS.build(from_plain(tiny(Path("unused"), data=data)).data)
    return [reader.read(split) for split in SPLITS]


def objects_of_ranks(train_set: Dataset, num_steps: int) -> list[list[int]]:
    """Objects in the share of each of two ranks, step by step."""
    counts = np.diff(train_set.annotations.starts)
    shares = []
    for step in range(num_steps):
        objects = [counts[index] for _, index in step_samples(0, step, 4, len(train_set))]
        shares.append([int(sum(objects[:2])), int(sum(objects[2:]))])
    return shares


SPARSE = {
    "data": generated(seed=2, num_val=5, min_objects=0, max_objects=1),
    "precision": "float64",
    "steps": 4,
}
LIMITS = (3, 5)
"""Images scored in groups of two: each process has one group, or one has one and one has two."""

TWO_PROCESSES = """
import json, sys
from detector.runtime import distributed
from detector.config import from_plain
from detector.inference.evaluate import evaluate
from detector.training.run import run

stop, distributed.stop = distributed.stop, lambda: None  # one conversation for all that follows
plain, jobs = json.loads(sys.argv[1])
run(from_plain(plain), plain)
for path, output, limit in jobs:
    evaluate(path, output_dir=output, limit=limit, device="cpu")
stop()
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which one process and two did the same: `one` and `two`, and `one_3`, ..."""
    folder = tmp_path_factory.mktemp("folders")
    go(tiny(folder / "one", **SPARSE))
    saved = load(folder / "one" / "checkpoints" / "last.pt")
    for limit in LIMITS:
        saved["config"]["evaluation"] = {"limit": limit, "images_per_group": 2}
        save(folder / f"{limit}.pt", saved)
        output = str(folder / f"one_{limit}")
        evaluate(folder / f"{limit}.pt", output_dir=output, limit=limit, device="cpu")
    jobs = [(str(folder / f"{n}.pt"), str(folder / f"two_{n}"), n) for n in LIMITS]
    argument = json.dumps([tiny(folder / "two", **SPARSE), jobs])
    launch(2, TWO_PROCESSES, argument, folder, wanted=folder / "two_5" / "metrics.json")
    return folder


def test_a_process_without_any_object_in_its_share_changes_nothing(folders: Path) -> None:
    shares = objects_of_ranks(read(SPARSE["data"])[0], num_steps=4)
    assert any(first == 0 < second for first, second in shares), shares
    assert any(second == 0 < first for first, second in shares), shares
    one, two = losses(folders / "one"), losses(folders / "two")
    # Group norm and float64: only the order of sums differs.
    assert one == pytest.approx(two, rel=1e-9)
    assert len(two) == 4


@pytest.mark.parametrize("limit", LIMITS)
def test_two_processes_score_as_one_to_the_bit(folders: Path, limit: int) -> None:
    one, two = folders / f"one_{limit}", folders / f"two_{limit}"
    rows = (one / "detections.json").read_text()
    assert (two / "detections.json").read_text() == rows
    assert len({row["image_id"] for row in json.loads(rows)}) == limit
    first, second = (json.loads((f / "metrics.json").read_text()) for f in (one, two))
    assert first["images"] == limit
    assert {**first, "seconds": 0} == {**second, "seconds": 0}


def terms(folder: Path, name: str) -> list[float]:
    return [json.loads(line)[name] for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("loss", "background_counts"),
    [
        ({"name": "focal"}, True),
        ({"name": "ssd"}, False),
        ({"name": "ohem", "negatives_per_positive": 3.0}, False),
    ],
    ids=["focal", "ssd", "ohem"],
)
def test_without_any_object_a_run_goes_to_its_end_and_has_no_ap(
    tmp_path: Path, loss: dict[str, Any], background_counts: bool
) -> None:
    data = generated(min_objects=0, max_objects=0)
    assert sum(len(dataset.annotations.labels) for dataset in read(data)) == 0
    folder = go(tiny(tmp_path / "run", data=data, loss=loss, steps=2))
    assert terms(folder, "loss_box") == [0.0, 0.0]
    if background_counts:
        assert all(0 < value < np.inf for value in terms(folder, "loss_class"))
        assert all(0 < value < np.inf for value in terms(folder, "grad_norm"))
    else:
        assert terms(folder, "loss_class") == terms(folder, "grad_norm") == [0.0, 0.0]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["AP"] is None
    assert set(metrics["per_class"].values()) == {None}
    assert json.loads((folder / "status.json").read_text())["state"] == "done"
    # With nothing to choose by, the latest weights are the best.
    assert load(folder / "checkpoints" / "best.pt")["step"] == 2


def exported(data: dict[str, Any], folder: Path, new_ids: dict[int, int]) -> dict[str, Any]:
    """The generated set as files, with other category ids; the `data` part that reads it."""
    options: dict[str, Any] = {"name": "coco", "root": str(folder)}
    for split, dataset in zip(SPLITS, read(data), strict=True):
        path = write_coco(dataset, folder, split)
        content = json.loads(path.read_text())
        for category in content["categories"]:
            category["id"] = new_ids[category["id"]]
        for annotation in content["annotations"]:
            annotation["category_id"] = new_ids[annotation["category_id"]]
        path.write_text(json.dumps(content))
        options |= {f"{split}_annotations": str(path.relative_to(folder)), f"{split}_images": split}
    return options


def test_other_category_ids_in_the_same_order_change_no_bit_of_the_result(tmp_path: Path) -> None:
    data = generated(num_train=6, num_val=2)
    new_ids = {1: 0, 2: 91, 3: 1_000_000, 4: 1_000_001}
    folders = []
    for name, ids in [("plain", {k: k for k in new_ids}), ("gaps", new_ids)]:
        files = exported(data, tmp_path / name, ids)
        folders.append(go(tiny(tmp_path / f"run_{name}", data=files, steps=3)))
    plain, gaps = (json.loads((f / "detections.json").read_text()) for f in folders)
    assert {row["category_id"] for row in gaps} <= set(new_ids.values())
    assert [{**row, "category_id": new_ids[row["category_id"]]} for row in plain] == gaps
    plain, gaps = (json.loads((f / "metrics.json").read_text()) for f in folders)
    assert plain["AP"] > 0
    assert {**plain, "seconds": 0} == {**gaps, "seconds": 0}
    assert losses(folders[0]) == losses(folders[1])


def test_weights_that_explode_before_the_evaluation_end_the_run_as_diverged(
    command: Command,
) -> None:
    # Four steps, so fewer bad ones in a row than `max_bad_steps`: the evaluation finds out.
    outcome = command(
        "train",
        *("experiment=smoke", "loss=yolo", "prior=0.5", "optim=sgd", "clip=null", "optim.lr=1000"),
        *("steps=4", "output_dir=run", "device=cpu", "precision=float32", "tensorboard=false"),
        *("data.image_size=64", "data.max_size=32", "data.num_val=2"),
        *("model.fpn.channels=16", "model.head.channels=16"),
    )
    assert outcome.code == 4
    message = outcome.err.removeprefix("error: ").removesuffix("\n")
    assert message == "image 1: scores or boxes of the model are not finite"
    status = json.loads(Path("run/status.json").read_text())
    assert status == {"state": "diverged", "step": 4, "exit_code": 4, "message": message}
    assert load("run/checkpoints/last.pt")["step"] == 4
    assert not Path("run/metrics.json").exists()
