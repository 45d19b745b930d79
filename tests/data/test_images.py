from __future__ import annotations

import os
import resource
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector.data.handling import require_megapixels
from detector.data.images import read_pixels, require_files, require_folder
from detector.errors import ConfigError, DataError
from tests.data.files import write_image


def test_pixels_are_those_of_the_file(tmp_path: Path) -> None:
    pixels = write_image(tmp_path / "a.png", 5, 7)
    read = read_pixels(tmp_path / "a.png", 1, annotated=(5, 7))
    assert np.array_equal(read, pixels)
    assert (read.dtype, read.shape) == (np.uint8, (5, 7, 3))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_grey_palette_and_the_like_become_rgb(tmp_path: Path, mode: str) -> None:
    suffix = "jpg" if mode == "CMYK" else "png"
    Image.new(mode, (7, 5), 1).save(tmp_path / f"a.{suffix}")
    assert read_pixels(tmp_path / f"a.{suffix}", 1, annotated=(5, 7)).shape == (5, 7, 3)


@pytest.mark.parametrize(("dtype", "name"), [(np.uint16, "a.png"), (np.float32, "a.tif")])
def test_pixels_of_more_than_8_bits_are_refused_and_not_cut_off(
    tmp_path: Path, dtype: type, name: str
) -> None:
    Image.fromarray(np.full((5, 7), 4000, dtype)).save(tmp_path / name)
    with pytest.raises(DataError, match=rf"{name}: has pixels of more than 8 bits"):
        read_pixels(tmp_path / name, 1, annotated=(5, 7))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_rotation_in_exif_is_not_applied(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(write_image(tmp_path / "plain.png", 16, 24))
    image.save(tmp_path / "a.jpg", exif=exif)
    image.save(tmp_path / "b.jpg")
    rotated = read_pixels(tmp_path / "a.jpg", 1, annotated=(16, 24))
    assert np.array_equal(rotated, read_pixels(tmp_path / "b.jpg", 1, annotated=(16, 24)))


def test_another_size_than_annotated_is_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", 5, 7)
    with pytest.raises(DataError, match=r"a\.png: 7 x 5 pixels.*annotated as 5 x 7"):
        read_pixels(tmp_path / "a.png", 1, annotated=(7, 5))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    """Truncated at any place, empty, a web page, another format under an image's name."""
    Image.fromarray(write_image(tmp_path / "a.png", 64, 64)).save(tmp_path / "whole.jpg")
    for whole in ("a.png", "whole.jpg"):
        data = (tmp_path / whole).read_bytes()
        contents = [data[: len(data) * i // 20] for i in range(20)]
        contents += [b"<html>404</html>", b"%PDF-1.4", b"\0" * 500]
        for content in contents:
            (tmp_path / "bad.jpg").write_bytes(content)
            with pytest.raises(DataError) as caught:
                read_pixels(tmp_path / "bad.jpg", 1, annotated=(64, 64))
            assert "bad.jpg" in str(caught.value)
            assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.png: cannot be read"):
        read_pixels(tmp_path / "none.png", 1, annotated=(1, 1))


def test_a_format_nobody_asked_for_is_not_decoded(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg", format="PPM")
    with pytest.raises(DataError, match=r"a\.jpg"):
        read_pixels(tmp_path / "a.jpg", 1, annotated=(4, 4))


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    """A file of some 100 kB with 80 MP, 240 MB decoded: the limit is on the header's size."""
    path = tmp_path / "bomb.png"
    Image.new("1", (8000, 10000)).save(path)
    assert path.stat().st_size < 200_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=r"bomb\.png.*data\.max_megapixels=50 are allowed"):
        read_pixels(path, 50, annotated=(10000, 8000))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_more_than_pillow_permits_is_one_line(tmp_path: Path) -> None:
    Image.new("1", (20000, 10000)).save(tmp_path / "bomb.png")
    with pytest.raises(
        DataError, match=r"bomb\.png: has 200 megapixels.*max_megapixels=200 reads it"
    ):
        read_pixels(tmp_path / "bomb.png", 178, annotated=(10000, 20000))


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf")])
def test_a_limit_that_cannot_hold_is_refused(value: float) -> None:
    with pytest.raises(ConfigError, match="max_megapixels"):
        require_megapixels(value)


HOSTILE = [
    "../secret.png",
    "../../secret.png",
    "sub/../../secret.png",
    "./../secret.png",
    "..",
    ".",
    "",
    "sub/",
    "sub/..",
    "/etc/passwd",
    "//server/share.png",
    "{outside}/secret.png",
    "..\\secret.png",
    "C:\\secret.png",
    "C:/secret.png",
    "secret.png\0.jpg",
    "file:///etc/passwd",
    "http://example.org/a.png",
    "data:image/png;base64,AAAA",
    "link.png",
    "linked/secret.png",
    "chain.png",
    "sub/\ud800.png",
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """images/a.png, images/sub/b.png; a secret beside; links that lead to it."""
    root = tmp_path / "images"
    write_image(root / "a.png", 4, 4)
    write_image(root / "sub" / "b.png", 4, 4)
    write_image(tmp_path / "secret.png", 4, 4)
    write_image(tmp_path / "images2" / "secret.png", 4, 4)
    os.symlink(tmp_path / "secret.png", root / "link.png")
    os.symlink(tmp_path, root / "linked")
    os.symlink(root / "link.png", root / "chain.png")
    os.symlink(root / "a.png", root / "inner.png")
    return root


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_leads_out_of_the_folder_is_refused(root: Path, name: str) -> None:
    name = name.replace("{outside}", str(root.parent))
    with pytest.raises(DataError) as caught:
        require_files(root, ["a.png", name], "set.json")
    assert str(caught.value).startswith("set.json: file name ")
    assert "\n" not in str(caught.value)


def test_a_folder_whose_name_only_begins_alike_is_outside(root: Path) -> None:
    with pytest.raises(DataError, match="leads out"):
        require_files(root, ["../images2/secret.png"], "set.json")


def test_names_inside_are_accepted_links_and_detours_included(root: Path) -> None:
    require_files(root, ["a.png", "sub/b.png", "inner.png", "sub/../a.png", "./a.png"], "set.json")


def test_a_linked_image_folder_is_a_folder(root: Path) -> None:
    os.symlink(root, root.parent / "alias")
    require_files(root.parent / "alias", ["a.png", "sub/b.png"], "set.json")


def test_missing_files_are_counted_and_named(root: Path) -> None:
    with pytest.raises(DataError, match=r"set\.json: 2 files are not in .*no/c\.png, x\.png"):
        require_files(root, ["a.png", "x.png", "no/c.png"], "set.json")
    with pytest.raises(DataError, match=r"25 files .* and 15 more"):
        require_files(root, [f"{i}.png" for i in range(25)], "set.json")


def test_a_missing_folder_names_its_key(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^data\.root=.*nowhere: there is no such folder"):
        require_folder(tmp_path / "nowhere", "data.root")
