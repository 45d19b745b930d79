"""What is predicted on: names and pixels of files, patterns, lists and videos."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from detector.data.handling import AS_STORED
from detector.errors import ConfigError, DataError
from detector.inference.sources import find
from tests.data.files import write_image


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b.png", "sub/c.jpg"):
        write_image(tmp_path / "photos" / name, 40, 60)
    (tmp_path / "photos" / "notes.md").write_text("no image")
    return tmp_path / "photos"


def names(source: object, output: Path) -> list[str]:
    return [item.name for item in find(source, output)]  # type: ignore[arg-type]


def test_a_folder_a_pattern_and_lists_name_the_same_files(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    every = ["a.jpg", "b.png", "sub/c.jpg"]
    assert names(photos, out) == every
    assert names(f"{photos}/**/*", out) == every
    assert names([photos / name for name in every], out) == every
    assert names([photos / "a.jpg", f"{photos}/*"], out) == ["a.jpg", "b.png"]  # each once
    (tmp_path / "list.txt").write_text("photos/sub/c.jpg\n\nphotos/a.jpg\n")
    assert names(tmp_path / "list.txt", out) == ["sub/c.jpg", "a.jpg"]


def test_what_lies_below_the_output_is_no_source(photos: Path) -> None:
    assert names(photos, photos / "sub") == ["a.jpg", "b.png"]


@pytest.mark.parametrize(
    ("source", "kind", "message"),
    [
        ("photos/*.gif", DataError, r"^source=photos/\*.gif: no image or video has such a name$"),
        ("nowhere", ConfigError, "^source: nowhere is not a file or a folder; a pattern such as"),
        ("https://x.org/a.jpg", ConfigError, "^source: https://x.org/a.jpg is an address; nothing"),
        ([], ConfigError, "^source: none given, a file, folder or pattern is needed$"),
    ],
)
def test_what_is_no_source_is_named_with_what_is(
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: object,
    kind: type[Exception],
    message: str,
) -> None:
    monkeypatch.chdir(photos.parent)
    with pytest.raises(kind, match=message):
        names(source, Path("out"))


def test_a_missing_file_of_a_list_is_named(photos: Path) -> None:
    (photos / "list.txt").write_text("a.jpg\ngone.jpg\n")
    with pytest.raises(DataError, match=r"list.txt: not there: .*gone.jpg$"):
        names(photos / "list.txt", photos / "out")


def test_a_file_of_another_kind_says_what_is_read(photos: Path) -> None:
    (photos / "paper.pdf").write_bytes(b"%PDF-1.4")
    (item,) = find(photos / "paper.pdf", photos / "out")
    with pytest.raises(DataError, match=r"paper.pdf: cannot be read .*; JPEG, PNG, .* are read$"):
        item.read(1.0, AS_STORED)


def test_a_video_is_its_frames_in_rgb(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(
        str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 5.0, (64, 48)
    )
    for red in (0, 100, 200):
        writer.write(np.full((48, 64, 3), (10, 20, red), np.uint8))  # OpenCV's order is B, G, R
    writer.release()
    items = find(tmp_path / "clip.avi", tmp_path / "out")
    assert [item.name for item in items] == [f"clip.avi/00000{i}.jpg" for i in (1, 2, 3)]
    for item, red in zip(items, (0, 100, 200), strict=True):
        pixels = item.read(1.0, AS_STORED)
        assert pixels.shape == (48, 64, 3)
        # JPEG in YCbCr: a plain colour comes back within a few of 255.
        np.testing.assert_allclose(pixels[0, 0], (red, 20, 10), atol=6)
    assert find(tmp_path, tmp_path / "out")[0].name == "clip.avi/000001.jpg"


def test_what_is_no_video_is_named(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"clip.mp4: cannot be read as a video"):
        find(tmp_path / "clip.mp4", tmp_path / "out")
