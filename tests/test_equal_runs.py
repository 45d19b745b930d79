"""What `scripts/equal_runs.py` says of two folders of runs: each kind of difference is found."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import equal_runs
import pytest
import torch

CHECKPOINT: dict[str, Any] = {
    "format_version": 2,
    "torch_version": "2.10.0",
    "config": {"loss": {"name": "ghm", "bins": 2}, "ramps": [], "output_dir": "here"},
    "step": 8,
    "model": {"weight": torch.tensor([[1.0, 2.0], [3.0, 4.0]])},
    "loss": {"shares": torch.tensor([0.25, 0.75], dtype=torch.float64)},
    "optimizer": {"state": {0: {"step": torch.tensor(8.0)}}, "param_groups": [{"lr": 0.1}]},
    "balance": {"ema_positives": 66.03158319, "class_scale": 0.1},
}
LOG: list[dict[str, Any]] = [
    {"step": 2, "loss": 1.5, "lr": 0.1, "seconds_data": 0.01, "memory_gb": 1.0},
    {"step": 4, "loss": 1.25, "lr": 0.1, "seconds_data": 0.02, "images_per_second": 20.0},
]


def write(
    side: Path, checkpoint: dict[str, Any], log: list[dict[str, Any]], score: float = 0.5
) -> Path:
    """A folder with one run, as far as it is compared."""
    run = side / "focal"
    (run / "checkpoints").mkdir(parents=True)
    torch.save(checkpoint, run / "checkpoints" / "last.pt")
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    (run / "evaluations.jsonl").write_text('{"step": 4, "AP": 0.5, "seconds": 1.0}\n')
    for name in ("metrics", "initial_loss"):
        (run / f"{name}.json").write_text(json.dumps({"AP": None, "seconds": 2.0}))
    (run / "detections.json").write_text(json.dumps([{"image_id": 1, "score": score}]))
    return side


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return write(tmp_path / "old", CHECKPOINT, LOG)


def lines(old: Path, new: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The comparisons that are not equal; the exit code has to say the same."""
    code = equal_runs.main(old, new)
    *said, total = capsys.readouterr().out.splitlines()
    different = [line for line in said if not line.split(maxsplit=1)[1].startswith("equal")]
    assert total == f"{len(said) - len(different)} of 6 comparisons are equal"
    assert code == (1 if different else 0)
    return different


def test_equal_runs_pass_whatever_their_times_their_place_and_their_version(
    old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = copy.deepcopy(CHECKPOINT) | {"format_version": 3, "torch_version": "2.11.0"}
    checkpoint["config"]["output_dir"] = "there"
    log = [{**line, "seconds_data": 7.0, "memory_gb": 2.0} for line in LOG]
    assert lines(old, write(tmp_path / "new", checkpoint, log), capsys) == []


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("model", "weight"), torch.tensor([[1.0, 2.0], [3.0, 4.0000005]]), "model.weight"),
        (("model", "weight"), torch.tensor([[1.0, 2.0, 3.0, 4.0]]), "model.weight"),
        (
            ("model", "weight"),
            torch.tensor([[1, 2], [3, 4]], dtype=torch.float64),
            "model.weight torch.float32 (2, 2) -> torch.float64 (2, 2)",
        ),
        (("model", "bias"), torch.zeros(1), "model.bias is new"),
        (("optimizer", "state", 0, "step"), torch.tensor(9.0), "optimizer.state.0.step"),
        (("optimizer", "param_groups"), [{"lr": 0.2}], "optimizer.param_groups.0.lr 0.1 -> 0.2"),
        (("step",), 9, "step 8 -> 9"),
        (("config", "loss", "bins"), 3, "config.loss.bins 2 -> 3"),
        (("config", "ramps"), ["a"], "config.ramps is gone"),
        (("loss", "shares"), torch.zeros(2, dtype=torch.float64), "criterion.loss.shares"),
        (("balance", "class_scale"), 0.2, "criterion.weighting.class_scale"),
    ],
)
def test_a_change_in_the_checkpoint_is_found(
    old: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    path: tuple[str, ...],
    value: Any,
    words: str,
) -> None:
    checkpoint = copy.deepcopy(CHECKPOINT)
    node = checkpoint
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    (line,) = lines(old, write(tmp_path / "new", checkpoint, LOG), capsys)
    assert line.startswith("focal/checkpoints/last.pt")
    assert words in line


def test_a_logged_loss_that_differs_is_found(
    old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = [LOG[0], {**LOG[1], "loss": 1.2500001}]
    (line,) = lines(old, write(tmp_path / "new", CHECKPOINT, log), capsys)
    assert line.split()[0] == "focal/log.jsonl"
    assert line.endswith("differs: 1.loss 1.25 -> 1.2500001")
    assert equal_runs.main(old, write(tmp_path / "short", CHECKPOINT, LOG[:1])) == 1


def test_one_byte_of_the_detections_is_found(
    old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = write(tmp_path / "new", CHECKPOINT, LOG)
    detections = new / "focal" / "detections.json"
    detections.write_text(detections.read_text() + " ")  # the same values
    (line,) = lines(old, new, capsys)
    assert line.split(maxsplit=1)[0] == "focal/detections.json"
    (line,) = lines(old, write(tmp_path / "other", CHECKPOINT, LOG, score=0.25), capsys)
    assert "0.score 0.5 -> 0.25" in line


@pytest.mark.parametrize("file", sorted(equal_runs.FILES))
@pytest.mark.parametrize("side", ["old", "new"])
def test_a_file_that_a_side_does_not_have_is_a_difference(
    old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, side: str
) -> None:
    new = write(tmp_path / "new", CHECKPOINT, LOG)
    (tmp_path / side / "focal" / file).unlink()
    (line,) = lines(old, new, capsys)
    assert line.startswith(f"focal/{file} ")
    assert line.endswith(f"differs: {tmp_path / side / 'focal' / file} is missing")


def test_folders_without_runs_are_not_called_equal(tmp_path: Path) -> None:
    assert equal_runs.main(tmp_path, tmp_path) == 1


MOVED: dict[str, Any] = {
    "criterion": {
        "loss.shares": torch.tensor([0.25, 0.75], dtype=torch.float64),
        "weighting.ema_positives": torch.tensor(66.03158319, dtype=torch.float64),
        "weighting.class_scale": torch.tensor(0.1, dtype=torch.float64),
    }
}
"""What `CHECKPOINT` holds of its loss and its balance, under the names of newer checkpoints."""


@pytest.mark.parametrize("change", [{}, {"weighting.class_scale": torch.tensor(0.1).double()}])
def test_state_that_has_moved_under_another_name_is_compared_with_what_it_was(
    old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any]
) -> None:
    kept = {key: value for key, value in CHECKPOINT.items() if key not in ("loss", "balance")}
    checkpoint = kept | {"criterion": MOVED["criterion"] | change}
    different = lines(old, write(tmp_path / "new", checkpoint, LOG), capsys)
    assert len(different) == len(change)  # 0.1 rounded to float32 is another number
    again = write(tmp_path / "again", checkpoint, LOG)
    assert lines(tmp_path / "new", again, capsys) == []
