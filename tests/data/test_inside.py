"""A file is opened inside of its folder or not at all, at the moment at which it is opened."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector.data import inside
from detector.data.images import read_inside
from detector.data.inside import open_inside
from detector.errors import DataError
from detector.inference.evaluate import pixels_of


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of images, and a secret beside it."""
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    Image.new("RGB", (3, 2), (1, 2, 3)).save(folder / "sub" / "a.png")
    Image.new("RGB", (3, 2), (9, 9, 9)).save(tmp_path / "secret.png")
    (folder / "inner.png").symlink_to("sub/a.png")
    (folder / "folder").symlink_to("sub")
    (folder / "out.png").symlink_to("../secret.png")
    (folder / "up").symlink_to("..")
    (folder / "far").symlink_to(tmp_path)
    os.mkfifo(folder / "fifo.png")
    (folder / "loop.png").symlink_to("loop.png")
    return folder


@pytest.mark.parametrize("name", ["sub/a.png", "./sub//a.png", "sub/../sub/a.png", "inner.png",
                                  "folder/a.png"])  # fmt: skip
def test_what_lies_inside_is_read_links_included(root: Path, name: str) -> None:
    assert read_inside(root, name, 1.0)[0, 0].tolist() == [1, 2, 3]


HOSTILE = (
    "../secret.png", "out.png", "up/secret.png", "far/secret.png", "sub/../../secret.png",
    "folder/../../secret.png", "fifo.png", "loop.png", "sub", "sub/a.png\0", "sub\\a.png",
    "file:sub/a.png", "", ".", "missing.png", "sub/a.png/x", "\ud800.png",
)  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_leads_out_or_is_no_file_is_refused(root: Path, name: str) -> None:
    with pytest.raises(DataError):
        read_inside(root, name, 1.0)


def test_an_absolute_name_is_refused(root: Path) -> None:
    with pytest.raises(DataError, match="is absolute"):
        read_inside(root, str(root.parent / "secret.png"), 1.0)


def test_a_file_that_becomes_a_link_after_the_check_is_not_followed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    realpath = os.path.realpath

    def swapped(path: object) -> str:
        found = realpath(path)  # type: ignore[arg-type]
        if found.endswith("a.png"):  # now it is checked; and now it is another file
            Path(found).unlink()
            Path(found).symlink_to(root.parent / "secret.png")
        return found

    monkeypatch.setattr(inside.os.path, "realpath", swapped)
    with pytest.raises(DataError, match="became a link while it was opened"):
        open_inside(root, "inner.png")


def test_the_pictures_of_an_evaluation_open_nothing_outside_of_their_folder(root: Path) -> None:
    names = ["sub/a.png", "out.png", "../secret.png", "sub/a.png\0"]
    truth = {"images": [{"id": i, "file_name": name} for i, name in enumerate(names)]}
    read = pixels_of(truth, str(root))  # type: ignore[arg-type]
    assert np.asarray(read(0))[0, 0].tolist() == [1, 2, 3]
    for image_id in (1, 2, 3):
        with pytest.raises(DataError):
            read(image_id)


def test_no_descriptor_is_left_open(root: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for name in HOSTILE:
        with pytest.raises(DataError):
            read_inside(root, name, 1.0)
    read_inside(root, "folder/a.png", 1.0)
    assert len(os.listdir("/proc/self/fd")) == before
