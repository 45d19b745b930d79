"""Names, and what a folder allows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from detector.config import from_plain
from detector.distributed import World
from detector.engine.checkpoint import save
from detector.engine.run_folder import (
    RunFolder,
    config_hash,
    default_path,
    differences,
    open_folder,
)
from detector.errors import ConfigError
from tests.engine.tiny import tiny


def test_the_name_tells_loss_data_and_config(tmp_path: Path) -> None:
    plain = tiny(tmp_path)
    path = default_path(from_plain(plain), plain)
    assert path.parts[0] == "runs"
    assert path.name == f"focal-generated-{config_hash(plain)}"


def test_the_hash_follows_what_is_learned_and_nothing_else(tmp_path: Path) -> None:
    plain = tiny(tmp_path)
    same = tiny(tmp_path / "elsewhere", log_every=3, save_every=7, loader={"num_workers": 3})
    assert config_hash(plain) == config_hash(same)
    assert config_hash(plain) != config_hash({**plain, "seed": 1})


def test_differences_name_the_key_and_both_values(tmp_path: Path) -> None:
    plain = tiny(tmp_path)
    changed = {**plain, "optim": {"name": "adamw", "lr": 2e-3}, "log_every": 5}
    assert differences(plain, changed) == ["optim.lr: 0.001 -> 0.002"]


def test_clearing_removes_only_what_a_run_writes(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.last.parent.mkdir()
    folder.last.touch()
    folder.config.touch()
    (tmp_path / "notes.txt").touch()
    folder.clear()
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_the_status_is_one_json_object(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_status("failed", step=3, message='"quoted"')
    assert json.loads(folder.status.read_text()) == {
        "state": "failed",
        "step": 3,
        "message": '"quoted"',
    }


def make_run(path: Path) -> Path:
    """What a run of the tiny config leaves, as far as it matters here; its checkpoint."""
    folder = RunFolder(path)
    folder.last.parent.mkdir(parents=True)
    folder.config.write_text("mine")
    save(folder.last, {"config": tiny(path), "step": 3})
    return folder.last


def opened(**changes: Any) -> tuple[Path, int | None]:
    """Where a run with these keys would write, and the step it goes on from."""
    plain = tiny(Path("unused")) | {"output_dir": None} | changes
    world = World(0, 1, torch.device("cpu"))
    folder, checkpoint = open_folder(from_plain(plain), plain, world)
    return folder.path, None if checkpoint is None else checkpoint["step"]


def test_resuming_a_checkpoint_goes_on_in_its_own_run_folder(tmp_path: Path) -> None:
    last = make_run(tmp_path / "run")
    assert opened(resume=str(last)) == (tmp_path / "run", 3)
    assert opened(resume=str(last), output_dir=str(tmp_path / "run")) == (tmp_path / "run", 3)


def test_a_checkpoint_that_lies_in_no_run_folder_gets_the_default_one(tmp_path: Path) -> None:
    copy = make_run(tmp_path / "run").rename(tmp_path / "copy.pt")
    path, step = opened(resume=str(copy))
    assert (path.parts[0], step) == ("runs", 3)


def test_resuming_a_checkpoint_does_not_replace_another_run(tmp_path: Path) -> None:
    last = make_run(tmp_path / "run")
    make_run(tmp_path / "other")
    changes = {"resume": str(last), "output_dir": str(tmp_path / "other")}
    with pytest.raises(ConfigError, match="other already holds a run"):
        opened(**changes)
    assert (tmp_path / "other" / "config.yaml").read_text() == "mine"
    assert opened(**changes, overwrite=True) == (tmp_path / "other", 3)
    assert not (tmp_path / "other" / "config.yaml").exists()
    assert opened(resume=str(last), output_dir=str(tmp_path / "new")) == (tmp_path / "new", 3)


def test_resume_auto_takes_the_last_checkpoint_or_starts_where_there_is_none(
    tmp_path: Path,
) -> None:
    last = make_run(tmp_path / "run")
    changes = {"resume": "auto", "output_dir": str(tmp_path / "run")}
    assert opened(**changes) == (tmp_path / "run", 3)
    last.unlink()
    assert opened(**changes) == (tmp_path / "run", None)
    assert (tmp_path / "run" / "config.yaml").exists()
