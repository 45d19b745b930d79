"""A checkpoint is whole or refused, and never runs code."""

from __future__ import annotations

import os
import pickle
import random
import shutil
import zipfile
from pathlib import Path

import pytest
import torch

from detector.errors import ConfigError, StorageError
from detector.runs.checkpoint import load, save, write_atomically


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
    with pytest.raises(StorageError, match="no space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


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
    with pytest.raises(ConfigError, match="format 99; a newer version of this project wrote it"):
        load(tmp_path / "new.pt")


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    save(path, {"w": torch.arange(500.0)})
    content = path.read_bytes()
    generator = random.Random(0)
    # 200 anywhere, and each bit of the checksum's own mark, without which there would be none.
    bits = [generator.randrange(8 * len(content)) for _ in range(200)]
    bits += range(8 * (len(content) - 64 - 7), 8 * (len(content) - 64))
    for bit in bits:
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(damaged))
        with pytest.raises(ConfigError, match="damaged"):
            load(path)


def test_every_truncation_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    save(path, {"w": torch.arange(500.0)})
    content = path.read_bytes()
    for length in range(0, len(content), 37):
        path.write_bytes(content[:length])
        with pytest.raises(ConfigError, match="damaged"):
            load(path)


def test_it_is_a_zip_archive_that_other_programs_read(tmp_path: Path) -> None:
    save(tmp_path / "a.pt", {"w": torch.arange(500.0)})
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(b"sha256:")
    assert torch.load(tmp_path / "a.pt", weights_only=True)["w"].sum() == 124750


def test_a_disk_without_room_is_one_line_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "a.pt", {"step": 1})
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(9, 9, 2**20))
    with pytest.raises(StorageError, match=r"0\.0 MB are to be written, 1\.0 MB are free"):
        save(tmp_path / "a.pt", {"step": 2})
    assert load(tmp_path / "a.pt")["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]
