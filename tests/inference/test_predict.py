"""Detections of image files, by a checkpoint alone."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detector.config import from_plain
from detector.config.registry import DATASETS
from detector.data.export import write_coco
from detector.errors import ConfigError, DataError, StorageError
from detector.inference.predict import predict
from detector.runs import checkpoint
from detector.training.run import run
from tests.commands import Command
from tests.data.files import write_image
from tests.training.tiny import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run under `run`, and the images that it was scored on, one at a time, under `val`."""
    path = tmp_path_factory.mktemp("predict")
    plain = tiny(path / "run", steps=12, batch_size=8, evaluation={"images_per_group": 1})
    run(from_plain(plain), plain)
    write_coco(DATASETS.build(from_plain(plain).data).read("val"), path, "val")
    return path


def call(folder: Path, source: Path, output: Path | None, **changes: Any) -> Path:
    options = {"output_dir": output, "device": "cpu", "threshold": 0.0} | changes
    path = options.pop("checkpoint", folder / "run" / "checkpoints" / "last.pt")
    return predict(path, source, **options)


def rows(folder: Path, source: Path, output: Path, **changes: Any) -> list[dict[str, Any]]:
    return json.loads(call(folder, source, output, **changes).read_text())


def test_what_is_found_is_what_was_scored(folder: Path, tmp_path: Path) -> None:
    """The same model on the same pixels: to the last bit, but for x + (x2 - x), which rounds."""
    scored = json.loads((folder / "run" / "detections.json").read_text())
    found = rows(folder, folder / "val", tmp_path / "out")
    assert [row["file"] for row in found] == ["000001.png", "000002.png", "000003.png"]
    for image_id, row in enumerate(found, 1):
        mine = [r for r in scored if r["image_id"] == image_id]
        assert len(mine) == 100
        assert row["scores"] == [r["score"] for r in mine]
        assert row["category_ids"] == [r["category_id"] for r in mine]
        xyxy = [[x, y, x + w, y + h] for x, y, w, h in (r["bbox"] for r in mine)]
        np.testing.assert_allclose(row["boxes"], xyxy, atol=1e-9)


def test_names_are_those_of_the_category_ids(folder: Path, tmp_path: Path) -> None:
    saved = checkpoint.load(folder / "run" / "checkpoints" / "last.pt")
    name_of = dict(zip(saved["category_ids"], saved["classes"], strict=True))
    for row in rows(folder, folder / "val", tmp_path / "out"):
        assert row["labels"] == [name_of[i] for i in row["category_ids"]]


def test_a_threshold_keeps_what_is_above_it(folder: Path, tmp_path: Path) -> None:
    every = rows(folder, folder / "val", tmp_path / "all", limit=1)[0]
    threshold = every["scores"][10]
    some = rows(folder, folder / "val", tmp_path / "some", limit=1, threshold=threshold)[0]
    kept = [score for score in every["scores"] if score > threshold]
    assert 0 < len(kept) <= 10
    assert some == {**every, **{k: every[k][: len(kept)] for k in every if k != "file"}}


def test_boxes_are_in_pixels_of_the_file_not_of_the_model(folder: Path, tmp_path: Path) -> None:
    """The model of the checkpoint sees images at their size; here one of twice the size."""
    saved = checkpoint.load(folder / "run" / "checkpoints" / "last.pt")
    saved["config"]["augment"]["max_size"] = 64
    checkpoint.save(tmp_path / "half.pt", saved)
    (tmp_path / "in").mkdir()
    with Image.open(folder / "val" / "000001.png") as image:
        image.resize((128, 128), Image.Resampling.NEAREST).save(tmp_path / "in" / "a.png")
    small = rows(folder, folder / "val", tmp_path / "small", limit=1)[0]
    large = rows(folder, tmp_path / "in", tmp_path / "large", checkpoint=str(tmp_path / "half.pt"))[
        0
    ]
    np.testing.assert_allclose(large["boxes"], np.multiply(small["boxes"], 2), rtol=1e-6)
    assert large["scores"] == small["scores"]


def test_each_readable_image_gets_a_copy_under_its_own_name(folder: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    pixels = write_image(source / "a.png", 40, 60)
    image = Image.fromarray(pixels)
    image.save(source / "a.jpg")
    (source / "sub").mkdir()
    image.save(source / "sub" / "a.png")
    image.convert("L").save(source / "grey.BMP")
    image.convert("P").save(source / "palette.png")
    image.convert("RGBA").save(source / "alpha.webp")
    (source / "notes.txt").write_text("no image")
    (source / "._a.jpg").write_bytes(b"Mac OS X")
    expected = ["a.jpg", "a.png", "alpha.webp", "grey.BMP", "palette.png", "sub/a.png"]
    before = {name: (source / name).read_bytes() for name in expected}
    found = rows(folder, source, out)
    assert [row["file"] for row in found] == expected
    written = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
    assert written == {*expected, "predictions.json"}
    for name in expected:
        with Image.open(out / name) as copy:
            assert copy.size == (60, 40)
        assert (source / name).read_bytes() == before[name]
    with Image.open(out / "a.png") as copy:
        assert (np.asarray(copy) != pixels).any()


def test_a_file_that_cannot_be_read_is_named_and_the_rest_goes_on(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    write_image(source / "z.png", 40, 60)
    (source / "broken.jpg").write_bytes(b"<html>404</html>")
    Image.fromarray(np.full((40, 60), 4000, np.uint16)).save(source / "deep.png")
    write_image(source / "large.png", 1000, 1001)
    with pytest.raises(DataError) as caught:
        call(folder, source, out, max_megapixels=1.0)
    names = "broken.jpg, deep.png, large.png"
    assert str(caught.value) == f"source: 3 of 4 images cannot be read: {names}"
    assert caught.value.exit_code == 3
    lines = capsys.readouterr().err.splitlines()
    for line, words in zip(
        lines,
        [
            "broken.jpg: cannot be read as an image",
            "deep.png: has pixels of more than 8 bits",
            "large.png: 1001 x 1000 pixels, max_megapixels=1 are allowed",
        ],
        strict=True,
    ):
        assert line.startswith(f"left out: {source / words}"), line
    assert [row["file"] for row in json.loads((out / "predictions.json").read_text())] == ["z.png"]


@pytest.mark.parametrize("orientation", [3, 6])
def test_an_image_that_exif_turns_is_drawn_and_searched_as_it_is_shown(
    folder: Path, tmp_path: Path, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(write_image(tmp_path / "plain.png", 40, 60))
    (tmp_path / "in").mkdir()
    image.save(tmp_path / "in" / "a.png", exif=exif)
    turn = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_270}[orientation]
    image.transpose(turn).save(tmp_path / "in" / "b.png")
    tagged, upright = rows(folder, tmp_path / "in", tmp_path / "out")
    assert {**tagged, "file": ""} == {**upright, "file": ""}
    with Image.open(tmp_path / "out" / "a.png") as copy:
        assert copy.size == ((60, 40) if orientation == 3 else (40, 60))
        assert not copy.getexif()  # so that it is shown as it was drawn


def test_one_file_is_enough_and_needs_no_suffix(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "photo"
    file.write_bytes((folder / "val" / "000002.png").read_bytes())
    found = rows(folder, file, tmp_path / "out")
    assert [row["file"] for row in found] == ["photo"]
    assert (tmp_path / "out" / "photo.png").exists()
    assert found[0]["boxes"] == rows(folder, folder / "val", tmp_path / "all")[1]["boxes"]


def test_the_default_output_lies_in_the_run_or_beside_the_checkpoint(folder: Path) -> None:
    path = call(folder, folder / "val", None, limit=1)
    assert path == folder / "run" / "predictions" / "val" / "predictions.json"
    loose = folder / "loose.pt"
    shutil.copy(folder / "run" / "checkpoints" / "last.pt", loose)
    path = call(folder, folder / "val" / "000001.png", None, checkpoint=loose)
    assert path == folder / "predictions" / "000001" / "predictions.json"


def test_a_disk_that_cannot_be_written_is_one_line(folder: Path, tmp_path: Path) -> None:
    """/dev/full is a disk without room; here a copy is to be written to where a folder lies."""
    (tmp_path / "out" / "000001.png").mkdir(parents=True)
    with pytest.raises(
        StorageError, match=r"^output_dir: .*out cannot be written \(Is a directory"
    ):
        call(folder, folder / "val", tmp_path / "out", overwrite=True)


def test_all_that_can_be_written_is(folder: Path, tmp_path: Path) -> None:
    formats = ("json", "coco", "yolo", "csv")
    out = tmp_path / "out"
    found = rows(folder, folder / "val", out, formats=formats, crops=True, draw=False, limit=2)
    assert {p.name for p in out.iterdir()} == {
        *("predictions.json", "coco.json", "labels", "predictions.csv", "crops")
    }
    coco = json.loads((out / "coco.json").read_text())
    assert len(coco["annotations"]) == sum(len(row["boxes"]) for row in found)
    scores = [row["score"] for row in coco["annotations"]]
    assert scores == [score for row in found for score in row["scores"]]


def test_what_an_earlier_call_has_drawn_is_no_source(folder: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", 40, 60)
    first = rows(folder, tmp_path, tmp_path / "out")
    assert rows(folder, tmp_path, tmp_path / "out", overwrite=True) == first
    assert [row["file"] for row in first] == ["a.png"]


def test_the_folder_of_the_source_is_never_written_into(folder: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "in" / "a.png", 40, 60)
    before = (tmp_path / "in" / "a.png").read_bytes()
    for source in (tmp_path / "in", tmp_path / "in" / "a.png"):
        for output in (tmp_path / "in", tmp_path / "in" / ".." / "in"):
            with pytest.raises(ConfigError, match=r"^output_dir: .* is the folder of the source"):
                call(folder, source, output, overwrite=True)
    assert (tmp_path / "in" / "a.png").read_bytes() == before


def test_a_folder_with_files_is_not_written_into_unasked(folder: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "in" / "sub" / "a.png", 40, 60)
    write_image(tmp_path / "in" / "mine.png", 40, 60)
    with pytest.raises(ConfigError, match=r"^output_dir: .* overwrite=true writes into it$"):
        call(folder, tmp_path / "in" / "sub", tmp_path / "in")


def test_a_source_without_images_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^source: .*nowhere is not a file or a folder"):
        call(folder, tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"^source=.*empty: holds no images \(\.jpg, "):
        call(folder, tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out").exists()


class TestTool:
    @pytest.mark.parametrize(
        ("argv", "message"),
        [
            (["checkpoint=a"], "source: has to be given"),
            (["checkpoint=no.pt", "source=b"], "checkpoint: no.pt is not a file"),
            (["checkpoint=a", "source=b", "threshold=1"], "threshold: 1.0 given, 0 to below 1 is"),
            (
                ["checkpoint=a", "source=b", "limit=0"],
                "limit: 0 given, at least 1 or null",
            ),
            (["checkpoint=a", "source=b", "max_megapixels=0"], "max_megapixels: 0.0 given, above"),
        ],
    )
    def test_a_mistake_is_answered_in_one_line(
        self, command: Command, tmp_path: Path, argv: list[str], message: str
    ) -> None:
        outcome = command("predict", *argv)
        assert outcome.code == 2
        assert outcome.message.startswith(message)
        assert list(tmp_path.iterdir()) == []

    def test_a_checkpoint_draws_what_it_finds_in_the_files_it_can_read(
        self, command: Command, folder: Path, tmp_path: Path
    ) -> None:
        checkpoint = folder / "run" / "checkpoints" / "last.pt"
        argv = [f"checkpoint={checkpoint}", "source=in", "output_dir=out", "device=cpu"]
        write_image(tmp_path / "in" / "a.png", 40, 60)
        outcome = command("predict", *argv)
        assert (outcome.code, outcome.err) == (0, "")
        assert outcome.out.startswith("1 images, ")
        assert outcome.out.endswith("written: out/predictions.json\n")
        (tmp_path / "in" / "b.png").write_text("no image")
        outcome = command("predict", *argv, "overwrite=true")
        assert outcome.code == 3
        named, counted = outcome.err.splitlines()
        assert named.startswith("left out: in/b.png: cannot be read as an image: ")
        assert counted == "error: source: 1 of 2 images cannot be read: b.png"
        assert sorted(os.listdir("out")) == ["a.png", "predictions.json"]
