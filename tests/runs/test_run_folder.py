"""Names, and what a folder allows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from detector.config import from_plain
from detector.runs.run_folder import (
    RunFolder,
    config_hash,
    default_path,
)
from tests.training.tiny import tiny


def test_the_name_tells_loss_data_and_config(tmp_path: Path) -> None:
    plain = tiny(tmp_path)
    path = default_path(from_plain(plain), plain)
    assert path.parts[0] == "runs"
    assert path.name == f"focal-generated-{config_hash(plain)}"


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ({"name": "coco", "root": "/data/my set.v2/"}, "focal-coco-my_set_v2-"),
        ({"name": "held_out", "of": {"name": "voc", "root": "/bccd"}}, "focal-held_out-bccd-"),
        ({"name": "coco", "root": "/"}, "focal-coco-"),
    ],
)
def test_the_name_tells_the_folder_of_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: dict[str, Any], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    plain = tiny(tmp_path, data=data)
    path = default_path(from_plain(plain), plain)
    assert path == Path("runs") / f"{name}{config_hash(plain)}"
    older = Path("runs") / f"focal-{data['name']}-{config_hash(plain)}"
    older.mkdir(parents=True)
    assert default_path(from_plain(plain), plain) == older


def test_what_a_test_split_is_does_not_change_what_is_learned(tmp_path: Path) -> None:
    """So that a run from before there were any goes on."""
    plain = tiny(tmp_path)
    changed = tiny(tmp_path, data={**plain["data"], "num_test": 7})
    assert config_hash(plain) == config_hash(changed)


def test_the_hash_follows_what_is_learned_and_nothing_else(tmp_path: Path) -> None:
    plain = tiny(tmp_path)
    same = tiny(tmp_path / "elsewhere", log_every=3, save_every=7, loader={"num_workers": 3})
    assert config_hash(plain) == config_hash(same)
    assert config_hash(plain) != config_hash({**plain, "seed": 1})


def test_the_status_is_one_json_object(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_status("failed", step=3, message='"quoted"')
    assert json.loads(folder.status.read_text()) == {
        "state": "failed",
        "step": 3,
        "message": '"quoted"',
    }
