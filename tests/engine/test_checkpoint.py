"""A checkpoint is whole or refused, and never runs code."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

from detector.engine.checkpoint import load, save, write_atomically
from detector.errors import ConfigError


class Payload:
    """Unpickling it would make a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.target}",)


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    content = {"step": 3, "model": {"w": torch.arange(4.0)}, "config": {"loss": {"name": "focal"}}}
    save(tmp_path / "a.pt", content)
    loaded = load(tmp_path / "a.pt")
    assert loaded["config"] == content["config"]
    assert torch.equal(loaded["model"]["w"], torch.arange(4.0))
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]


def test_the_old_file_stays_whole_until_the_new_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    write_atomically(path, b"old")

    def fail(descriptor: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("through_torch", [True, False])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path, through_torch: bool) -> None:
    target = tmp_path / "touched"
    path = tmp_path / "evil.pt"
    if through_torch:
        torch.save({"format_version": 1, "x": Payload(target)}, path)
    else:
        path.write_bytes(pickle.dumps({"format_version": 1, "x": Payload(target)}))
    with pytest.raises(ConfigError, match=r"evil\.pt cannot be read"):
        load(path)
    assert not target.exists()


@pytest.mark.parametrize("content", [b"", b"<html>", b"PK\x03\x04 truncated"])
def test_a_damaged_file_is_one_clear_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.pt"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"bad\.pt") as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_a_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.pt", {"w": torch.zeros(1000)})
    content = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "a.pt")


def test_a_missing_file_and_another_format_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a file"):
        load(tmp_path / "nothing.pt")
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    with pytest.raises(ConfigError, match="not a checkpoint of this project"):
        load(tmp_path / "other.pt")
    torch.save({"format_version": 99}, tmp_path / "new.pt")
    with pytest.raises(ConfigError, match="format 99"):
        load(tmp_path / "new.pt")
