"""What the files of images say is compared with what is annotated, before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detector.config.registry import DATASETS
from detector.config.schema import Plug
from detector.data import headers
from detector.data.headers import without_damaged
from detector.data.images import FolderDataset
from detector.errors import DataError

HEIGHT, WIDTH = 40, 60


def write_set(root: Path, number: int = 3) -> dict[str, Any]:
    """Images of stripes with an object each; the options of the reader."""
    rows = [
        {"id": i, "file_name": f"{i}.png", "height": HEIGHT, "width": WIDTH} for i in range(number)
    ]
    objects = [
        {"id": i, "image_id": i, "category_id": 1, "bbox": [4, 6, 20, 12]} for i in range(number)
    ]
    content = {"images": rows, "annotations": objects, "categories": [{"id": 1, "name": "cat"}]}
    (root / "images").mkdir()
    for i in range(number):
        stripes().save(root / "images" / f"{i}.png")
    (root / "set.json").write_text(json.dumps(content))
    return {
        "root": str(root),
        "train_annotations": "set.json",
        "train_images": "images",
        "val_annotations": "set.json",
        "val_images": "images",
    }


def stripes() -> Image.Image:
    """No turn or reflection of it is itself."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:10, :, 0], pixels[:, :10, 1] = 200, 90
    return Image.fromarray(pixels)


def read(options: dict[str, Any], **more: Any) -> Any:
    return DATASETS.build(Plug("coco", options | more)).read("train")


def turned(path: Path, turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    stripes().save(path, format="PNG", exif=exif)


@pytest.mark.parametrize("turn", range(2, 9))
def test_an_image_that_exif_turns_is_refused_until_it_is_said_what_its_boxes_are_of(
    tmp_path: Path, turn: int
) -> None:
    options = write_set(tmp_path)
    turned(tmp_path / "images/1.png", turn)
    with pytest.raises(DataError) as caught:
        read(options)
    for words in (
        f"image 1.png (id 1): is turned by EXIF (orientation {turn})",
        "data.exif=stored",
    ):
        assert words in str(caught.value)
    assert ("of the image as stored" in str(caught.value).partition("shown")[2]) == (turn >= 5)
    stored = read(options, exif="stored")
    assert np.array_equal(stored.image(1), np.asarray(stripes()))
    if turn < 5:
        upright = read(options, exif="upright").image(1)
        expected = Image.open(tmp_path / "images/1.png").transpose(headers_transpose(turn))
        assert np.array_equal(upright, np.asarray(expected))
    else:
        with pytest.raises(DataError, match=r"40 x 60 .* annotated as 60 x 40, which data\.exif"):
            read(options, exif="upright")


def headers_transpose(turn: int) -> Any:
    """EXIF 2.3, table of Orientation: mirrored, by 180 degrees, both."""
    return {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
    }[turn]


def test_pixels_of_16_bits_are_scaled_by_the_range_that_is_stated(tmp_path: Path) -> None:
    options = write_set(tmp_path)
    values = np.linspace(1000, 5000, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "images/0.png")
    with pytest.raises(DataError, match=r"image 0\.png .*more than 8 bits.*data\.depth=\[lowest"):
        read(options)
    pixels = read(options, depth=[2000.0, 4000.0]).image(0)
    expected = np.rint(np.clip(values.astype(float) - 2000, 0, 2000) * 255 / 2000)
    assert np.array_equal(pixels, np.repeat(expected[..., None], 3, 2).astype(np.uint8))


def test_an_image_of_more_than_178_megapixels_is_read_by_who_asks_for_it(tmp_path: Path) -> None:
    options = write_set(tmp_path, 1)
    Image.new("1", (20000, 10000)).save(tmp_path / "images/0.png")
    content = json.loads((tmp_path / "set.json").read_text())
    content["images"][0] |= {"width": 20000, "height": 10000}
    (tmp_path / "set.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"20000 x 10000 pixels.*data\.max_megapixels=200 reads it"):
        read(options)
    before = Image.MAX_IMAGE_PIXELS
    assert read(options, max_megapixels=200.0).image(0).shape == (10000, 20000, 3)
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("suffix", ["avif", "gif", "jfif", "webp", "tif"])
def test_formats_that_people_have_are_read(tmp_path: Path, suffix: str) -> None:
    options = write_set(tmp_path)
    (tmp_path / "images/2.png").unlink()
    stripes().save(tmp_path / f"images/2.{suffix}", format="JPEG" if suffix == "jfif" else None)
    found = read(options)
    assert found.annotations.file_name(2) == f"2.{suffix}"
    assert "only file of that stem" in found.annotations.summary()[1]
    assert np.abs(found.image(2).astype(int) - np.asarray(stripes()).astype(int)).mean() < 10


def test_a_film_is_no_image(tmp_path: Path) -> None:
    options = write_set(tmp_path)
    (tmp_path / "images/2.png").unlink()
    frames = [Image.new("L", (WIDTH, HEIGHT), shade) for shade in (0, 90, 250)]
    frames[0].save(tmp_path / "images/2.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match=r"2\.gif: holds 3 images, one is needed"):
        read(options)


def truncate(path: Path) -> None:
    stripes().resize((WIDTH * 8, HEIGHT * 8)).resize((WIDTH, HEIGHT)).save(path, format="JPEG")
    path.write_bytes(path.read_bytes()[:-40])


def test_a_file_whose_header_is_whole_and_whose_pixels_are_not_is_found(tmp_path: Path) -> None:
    options = write_set(tmp_path)
    truncate(tmp_path / "images/1.png")
    dataset = read(options)
    with pytest.raises(DataError, match=r"image 1\.png \(id 1\): .*truncated.*data\.on_corrupt"):
        without_damaged(dataset)
    rest = without_damaged(read(options, on_corrupt="drop"))
    assert isinstance(rest, FolderDataset)
    account = rest.annotations.account
    assert rest.annotations.image_ids.tolist() == [0, 2]
    assert account.given == {"image": 3, "object": 3}
    assert (account.number_left_out("image"), account.number_left_out("object")) == (1, 1)


def test_what_is_found_in_many_files_is_kept_for_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(headers, "MANY", 2)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    options = write_set(tmp_path, 4)
    opened: list[str] = []
    real = headers.read_header

    def counted(path: Path) -> headers.Header:
        opened.append(path.name)
        return real(path)

    monkeypatch.setattr(headers, "read_header", counted)
    first = read(options).annotations.fingerprint
    assert sorted(opened) == [f"{i}.png" for i in range(4)]
    opened.clear()
    assert read(options).annotations.fingerprint == first
    assert opened == []
    turned(tmp_path / "images/3.png", 6)
    with pytest.raises(DataError, match=r"3\.png"):
        read(options)
    assert opened == ["3.png"]


def test_a_cache_that_is_damaged_or_cannot_be_written_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(headers, "MANY", 2)
    options = write_set(tmp_path, 4)
    (tmp_path / "cache").write_text("a file where the folder is to be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert len(read(options)) == 4
    (tmp_path / "cache").unlink()
    assert len(read(options)) == 4
    (file,) = (tmp_path / "cache/dense-detector").iterdir()
    for content in ("", "[]", '{"0.png": 3}', '{"0.png": [[1, 2], [3]]}'):
        file.write_text(content)
        assert len(read(options)) == 4
