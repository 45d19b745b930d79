"""Image files are told apart by sizes and times, without reading them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from detector.data import stamps
from detector.data.readers.base import Dataset
from detector.data.stamps import stamp_of
from tests.data.files import make_dataset


class Files(Dataset):
    """A set of nothing but names."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths

    def image(self, index: int) -> None:  # type: ignore[override]
        raise AssertionError("an image is read")

    def files(self) -> list[Path]:
        return self._paths


@pytest.fixture
def files(tmp_path: Path) -> Files:
    paths = [tmp_path / f"{i}.jpg" for i in range(7)]
    for i, path in enumerate(paths):
        path.write_bytes(b"x" * i)
        os.utime(path, (1e9, 1e9))
    return Files(paths)


def test_what_is_the_same_has_the_same_stamp_however_it_is_asked_for(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = stamp_of(files)
    monkeypatch.setattr(stamps, "PART", 2)
    assert stamp_of(files) == before


def test_a_longer_file_has_another_size_and_a_touched_one_another_time(files: Files) -> None:
    before = stamp_of(files)
    os.utime(files.files()[3], (1e9, 2e9))
    touched = stamp_of(files)
    assert touched["sizes"] == before["sizes"]
    assert touched["times"] != before["times"]
    files.files()[3].write_bytes(b"longer")
    assert stamp_of(files)["sizes"] != before["sizes"]


def test_a_file_that_is_gone_has_another_size(files: Files) -> None:
    before = stamp_of(files)
    files.files()[0].unlink()  # of no bytes
    assert stamp_of(files)["sizes"] != before["sizes"]


def test_images_that_are_made_have_none() -> None:
    assert stamp_of(make_dataset([(16, 16)], [1])) == {}
