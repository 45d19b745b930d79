"""A step that is not finite is kept, named and repeated; a batch too large says what to lower."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from detector.config import from_plain
from detector.errors import ConfigError, DataError, DivergedError, OutOfMemory
from detector.inference.predictor import Predictor
from detector.runs.checkpoint import load
from detector.runtime import memory
from detector.runtime.distributed import World
from detector.training import replay
from detector.training.run import shared_memory_shortage
from detector.training.setup import build
from tests.commands import Command
from tests.training.faults import FaultInjector, Kind
from tests.training.test_train import assert_same
from tests.training.tiny import go, losses, tiny

Inject = Callable[..., None]


@pytest.fixture
def inject() -> Iterator[Inject]:
    """Installs a `FaultInjector`, which is taken out after the test."""
    removals: list[Callable[[], None]] = []

    def install(kind: Kind, step: int, steps: int = 1) -> None:
        removals.append(FaultInjector(kind, step, steps=steps).install())

    yield install
    for remove in reversed(removals):
        remove()


def test_a_single_bad_step_is_kept_and_the_run_goes_on(tmp_path: Path, inject: Inject) -> None:
    inject("nan", step=3)
    folder = go(tiny(tmp_path / "run", micro_batch=2))
    said = losses(folder)
    assert [i for i, loss in enumerate(said, 1) if loss is None] == [3]
    record = json.loads((folder / "crash" / "batch.json").read_text())
    assert (record["step"], record["values"]) == (3, {"loss": "nan", "gradient": "nan"})
    # Four images of a step, two at a time, each with the key of its draws.
    assert [len(b["image_ids"]) for b in record["batches"]] == [2, 2]
    assert [len(set(b["keys"])) for b in record["batches"]] == [2, 2]
    assert load(folder / "crash" / "checkpoint.pt")["step"] == 2
    assert json.loads((folder / "status.json").read_text())["skipped"] == 1


def test_a_kept_step_is_the_run_as_it_was_before(tmp_path: Path, inject: Inject) -> None:
    before = load(go(tiny(tmp_path / "two", steps=2)) / "checkpoints" / "last.pt")
    inject("nan", step=3)
    # The rate follows from the step and the end: the same for both.
    with pytest.raises(DivergedError):
        go(tiny(tmp_path / "run", steps=3, max_bad_steps=1, schedule={"name": "cosine"}))
    kept = load(tmp_path / "run" / "crash" / "checkpoint.pt")
    assert kept["step"] == before["step"] == 2
    assert kept["model"].keys() == before["model"].keys()
    assert kept["images"] == before["images"]  # the images of the bad step are not among them


def test_the_message_names_the_image_the_term_and_how_to_repeat_it(
    tmp_path: Path, inject: Inject, capsys: pytest.CaptureFixture[str]
) -> None:
    inject("nan", step=2, steps=2)
    with pytest.raises(DivergedError, match="2 times in a row; the last images were"):
        go(tiny(tmp_path / "run", max_bad_steps=2))
    assert f"python tools/replay.py folder={tmp_path / 'run'} repeats it" in capsys.readouterr().out
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["state"], status["exit_code"], status["step"]) == ("diverged", 4, 2)


def test_a_replay_repeats_the_step_and_names_what_is_at_fault(
    tmp_path: Path, inject: Inject, monkeypatch: pytest.MonkeyPatch
) -> None:
    from detector.losses.focal import FocalLoss
    from tests.training.faults import not_a_number

    remove = FaultInjector("nan", step=3).install()
    folder = go(tiny(tmp_path / "run", micro_batch=2))
    remove()
    record = json.loads((folder / "crash" / "batch.json").read_text())
    healthy = replay.replay(str(folder), "cpu")
    assert not healthy.is_repeated
    assert healthy.faults == healthy.gradients == []
    assert "NOT repeated" in replay.in_words(healthy)
    monkeypatch.setattr(FocalLoss, "forward", not_a_number(FocalLoss.forward))
    found = replay.replay(str(folder), "cpu")
    assert found.is_repeated
    last_of_each = [batch["image_ids"][-1] for batch in record["batches"]]
    assert [fault.partition(",")[0] for fault in found.faults] == [
        f"image {i}: term class" for i in last_of_each
    ]
    assert "values are not finite" in found.faults[0]
    assert replay.in_words(found).startswith("step 3: repeated; then {'loss': nan, ")


def test_weights_that_are_not_finite_are_named(
    tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    # A rate that no weight survives, and nothing patched: as a user has it.
    plain = tiny(tmp_path / "run", optim={"name": "sgd", "lr": 1e30}, clip=None, max_bad_steps=2)
    with pytest.raises(DivergedError):
        go(plain)
    capsys.readouterr()
    outcome = command("replay", f"folder={tmp_path / 'run'}", "device=cpu")
    assert outcome.code == 0
    assert outcome.out.splitlines()[0].startswith("step 2: repeated; ")
    assert "not finite" in outcome.out.splitlines()[1]


def test_a_run_without_such_a_step_has_nothing_to_repeat(tmp_path: Path, command: Command) -> None:
    outcome = command("replay", f"folder={tmp_path}", "device=cpu")
    assert (outcome.code, "holds no step that was not finite" in outcome.message) == (2, True)


def test_other_data_are_not_taken_for_the_step(tmp_path: Path, inject: Inject) -> None:
    inject("nan", step=1)
    folder = go(tiny(tmp_path / "run", steps=1))
    path = folder / "crash" / "batch.json"
    record = json.loads(path.read_text())
    record["batches"][0]["keys"][0] += 1
    path.write_text(json.dumps(record))
    with pytest.raises(DataError, match="step 1: its images are not those that the run had"):
        replay.replay(str(folder), "cpu")


def test_too_large_a_batch_says_what_it_held_and_what_to_lower(
    tmp_path: Path, inject: Inject
) -> None:
    inject("oom", step=2)
    with pytest.raises(OutOfMemory) as caught:
        go(tiny(tmp_path / "run"))
    message = str(caught.value)
    assert message.startswith("step 2: out of memory with 4 images of 64 x 64 at a time and ")
    assert message.endswith("; micro_batch=2 takes half the images at a time, to the same result")
    assert caught.value.exit_code == 2
    assert json.loads((tmp_path / "run" / "status.json").read_text())["step"] == 1


def test_a_single_image_too_large_wants_a_smaller_one(tmp_path: Path, inject: Inject) -> None:
    inject("oom", step=1)
    with pytest.raises(OutOfMemory, match=r"with 1 images of .* a smaller augment\.max_size"):
        go(tiny(tmp_path / "run", micro_batch=1))


@pytest.mark.parametrize(("number", "key"), [(2, r"\.images_per_group=1"), (1, r"\.max_size")])
def test_an_evaluation_without_memory_names_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, key: str
) -> None:
    # What torch's allocator says: a run under a limit of the system is in tests/outsider.
    def refuse(*_: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")

    monkeypatch.setattr(Predictor, "detect", refuse)
    plain = tiny(tmp_path / "run", steps=1, evaluation={"images_per_group": number})
    with pytest.raises(OutOfMemory, match=key):
        go(plain)
    assert load(tmp_path / "run" / "checkpoints" / "last.pt")["step"] == 1


def test_a_live_batch_norm_of_one_value_names_what_gives_it_more(tmp_path: Path) -> None:
    small = {"num_train": 2, "num_val": 1, "image_size": 32, "max_size": 16}
    plain = tiny(tmp_path / "run", steps=1, batch_size=1)
    plain["data"] |= small
    plain["backbone"] |= {"norm": "batch"}
    with pytest.raises(
        ConfigError, match=r"one value per channel.* 1 image of 32 x 32; a micro_ba"
    ):
        go(plain)
    go(plain | {"output_dir": str(tmp_path / "two"), "batch_size": 2})


def test_other_errors_are_left_as_they_are() -> None:
    with pytest.raises(ValueError, match="channels"), memory.explained(1, []):
        raise ValueError("channels do not fit")
    with pytest.raises(RuntimeError, match="shapes"), memory.explained(1, []):
        raise RuntimeError("shapes do not fit")


def test_the_memory_of_this_process_is_a_plausible_number() -> None:
    assert 0.05 < memory.peak_gigabytes(torch.device("cpu")) < 1000


def test_a_bad_step_is_no_step_for_weights(tmp_path: Path, inject: Inject) -> None:
    inject("nan", step=1)
    folder = go(tiny(tmp_path / "run", steps=1))
    kept, last = (load(folder / p) for p in ("crash/checkpoint.pt", "checkpoints/last.pt"))
    for part in ("model", "ema", "criterion"):
        assert_same(kept[part], last[part], part)
    assert kept["optimizer"]["state"] == last["optimizer"]["state"] == {}


def test_a_config_error_is_what_a_missing_folder_is() -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        replay.replay("nowhere", "cpu")


def test_too_little_shared_memory_is_told_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(tmp_path, loader={"num_workers": 3}, micro_batch=2)
    setup, _ = build(from_plain(config), config, World(0, 1, torch.device("cpu")))
    images = 2 + setup.config.evaluation.images_per_group
    room = 3 * 2 * images * 3 * 64 * 64  # workers, batches of each, images, bytes of an image
    monkeypatch.setattr(memory, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: _Usage(9, 8, room))
    assert shared_memory_shortage(setup) is None
    monkeypatch.setattr(shutil, "disk_usage", lambda path: _Usage(9, 8, room - 1))
    warning = shared_memory_shortage(setup)
    assert warning is not None
    assert warning.startswith("3 loader processes with 2 batches each, in training and in eval")
    assert warning.endswith("take a smaller loader.num_workers, or in Docker --ipc=host")


class _Usage(NamedTuple):
    total: int
    used: int
    free: int
