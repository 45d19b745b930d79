"""Nothing is lost without a word: what was given is used or named, whatever the dirt."""

from __future__ import annotations

import json
import random
from dataclasses import fields
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

from detector.config.registry import DATASETS
from detector.config.schema import Plug
from detector.data.account import Account, Kind
from detector.data.handling import Handling, HandlingOptions
from detector.data.readers.base import Dataset
from detector.errors import ConfigError, DataError

CLASSES = ("red", "blue")
SIZE = (72, 96)
"""Height and width of every image."""

EVERYTHING = {"on_invalid": "drop", "max_dropped": 1.0}


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE[::-1], (9, 80, 3)).save(path)


def spoil_file(path: Path, draw: random.Random) -> bool:
    """Damages the file of an image in one of many ways, or not at all."""
    way = draw.randrange(12)
    if way == 0:
        path.unlink()
    elif way == 1:
        path.write_bytes(b"")
    elif way == 2:
        path.write_bytes(b"<html>404</html>")
    elif way == 3:
        Image.new("I;16", SIZE[::-1]).save(path, format="PNG")
    elif way == 4:
        Image.new("RGB", SIZE).save(path)
    elif way == 5:
        exif = Image.Exif()
        exif[0x0112] = draw.randrange(2, 9)
        Image.new("RGB", SIZE[::-1]).save(path, exif=exif)
    return way < 6


def a_box(draw: random.Random) -> list[Any]:
    """Left, top, width, height: of any kind, half of them good."""
    x, y = draw.uniform(0, 60), draw.uniform(0, 40)
    good = [x, y, draw.uniform(2, 30), draw.uniform(2, 30)]
    bad: list[list[Any]] = [
        [x, y, 0, 5], [x, y, -3, 5], [x, y, float("nan"), 5], [500, y, 5, 5], [x, y, 5],
        [], ["a", y, 3, 3], [x, y, None, 3], [-20, y, 22, 5], [x, y, 1e300, 5],
    ]  # fmt: skip
    return good if draw.random() < 0.5 else draw.choice(bad)


def write_dirty_coco(root: Path, draw: random.Random) -> tuple[int, int]:
    """A set of the worst kind; the images and objects that were written into the file."""
    images: list[Any] = []
    for i in range(draw.randrange(3, 9)):
        row: dict[str, Any] = {"id": i, "file_name": f"{i}.png", "height": 72, "width": 96}
        picture(root / "images" / f"{i}.png")
        spoil_file(root / "images" / f"{i}.png", draw)
        if draw.random() < 0.15:
            row[draw.choice(["id", "file_name", "height"])] = draw.choice([None, "x", 0, [], -5])
        images.append(row if draw.random() < 0.95 else draw.choice([None, 3, {}]))
    if draw.random() < 0.3:
        images.append(dict(images[0]) if isinstance(images[0], dict) else {})
    picture(root / "images" / "good.png")
    images.append({"id": 99, "file_name": "good.png", "height": 72, "width": 96})
    objects: list[Any] = [{"id": 0, "image_id": 99, "category_id": 1, "bbox": [1, 2, 20, 30]}]
    for i in range(draw.randrange(40)):
        row = {
            "id": i,
            "image_id": draw.choice([*range(9), 99, 99, 500]),
            "category_id": draw.choice([1, 2, 2, 7]),
            "bbox": a_box(draw),
        }
        if draw.random() < 0.2:
            row[draw.choice(["iscrowd", "area"])] = draw.choice([1, 0, -1, "x", None, 2])
        objects += [row] * draw.choice([1, 1, 1, 1, 2])
        if draw.random() < 0.05:
            objects.append(draw.choice([None, [], {}, {"id": 3}]))
    content = {
        "images": images,
        "annotations": objects,
        "categories": [{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}],
    }
    (root / "train.json").write_text(json.dumps(content))
    return len(images), len(objects)


def coco(root: Path, **options: Any) -> Dataset:
    options = {
        "root": str(root),
        "train_annotations": "train.json",
        "train_images": "images",
        "val_annotations": "train.json",
        "val_images": "images",
        **options,
    }
    return DATASETS.build(Plug("coco", options)).read("train")


def require_balance(dataset: Dataset, images: int, objects: int) -> None:
    """Given, by a count of the files that does not come from the reader = used + left out."""
    annotations = dataset.annotations
    account = annotations.account
    assert account.given["image"] == images
    assert images == len(annotations) + account.number_left_out("image"), account.lines()
    assert account.given["object"] == objects
    assert objects == len(annotations.labels) + account.number_left_out("object"), account.lines()
    named = sum(entry["count"] for entry in account.to_dict()["left_out"])
    assert named == sum(map(account.number_left_out, ("image", "object", "file")))


@pytest.mark.parametrize("seed", range(40))
def test_of_a_dirty_coco_set_everything_is_used_or_named(tmp_path: Path, seed: int) -> None:
    images, objects = write_dirty_coco(tmp_path, random.Random(seed))
    require_balance(coco(tmp_path, **EVERYTHING), images, objects)


@pytest.mark.parametrize("seed", range(40))
def test_of_a_dirty_yolo_set_everything_is_used_or_named(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    images, folder, labels = 1, tmp_path / "images", tmp_path / "labels"
    labels.mkdir()
    picture(folder / "good.png")
    (labels / "good.txt").write_text("0 .5 .5 .5 .5\n")
    for i in range(draw.randrange(2, 9)):
        suffix = draw.choice(["png", "png", "heic", "svg"])
        picture(folder / f"{i}.png")
        missing = spoil_file(folder / f"{i}.png", draw) and not (folder / f"{i}.png").exists()
        if suffix != "png" and not missing:
            (folder / f"{i}.png").rename(folder / f"{i}.{suffix}")
        images += not missing
        lines = []
        for _ in range(draw.randrange(6)):
            words = ["0", "1", "2", "-1", "x", "0.5"][draw.choice([0, 1, 0, 1, 2, 3, 4, 5])].split()
            values = [".5", ".5", "1.0004", ".1", "nan", "3", "-.2", "0"]
            words += [draw.choice(values) for _ in range(draw.choice([4, 4, 4, 3, 5, 6, 8]))]
            lines += [" ".join(words)] * draw.choice([1, 1, 1, 2])
        (labels / f"{i}.txt").write_text("\n\n".join(lines))
    if draw.random() < 0.3:
        (labels / "0.txt").write_bytes(b"\xff\xfe\x00")
    # Counted by nothing of the reader: lines of every file that is text.
    objects = 0
    for path in labels.glob("*.txt"):
        try:
            objects += sum(bool(line.strip()) for line in path.read_text().splitlines())
        except UnicodeDecodeError:
            continue
    dataset = DATASETS.build(
        Plug("yolo", {"root": str(tmp_path), "classes": list(CLASSES), "train_images": "images",
                      **EVERYTHING})
    ).read("train")  # fmt: skip
    require_balance(dataset, images, objects)


def voc_page(objects: list[str], *, size: str) -> str:
    return f"<annotation>{size}{''.join(objects)}</annotation>"


@pytest.mark.parametrize("seed", range(40))
def test_of_a_dirty_voc_set_everything_is_used_or_named(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    whole = "<size><width>96</width><height>72</height></size>"
    box = "<bndbox><xmin>{}</xmin><ymin>4</ymin><xmax>{}</xmax><ymax>30</ymax></bndbox>"
    good = f"<object><name>red</name>{box.format(3, 20)}</object>"
    pages = {"good": voc_page([good], size=whole)}
    for i in range(draw.randrange(2, 8)):
        objects = []
        for _ in range(draw.randrange(5)):
            boxes = [
                box.format(*draw.choice([(3, 9), (5, 60), (9, 9), (9, 3), ("x", 4), (900, 990)]))
                for _ in range(draw.choice([0, 1, 1, 1, 2, 3]))
            ]
            name = draw.choice(["red", "blue", "", "green"])
            objects += [f"<object><name>{name}</name>{''.join(boxes)}</object>"]
        size = draw.choice([whole, whole, "", whole.replace("96", "0"), whole.replace("96", "x")])
        pages[str(i)] = voc_page(objects, size=size)
        if draw.random() < 0.1:
            pages[str(i)] = pages[str(i)][:-7]
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    (tmp_path / "ImageSets/Main/train.txt").write_text("\n".join(pages))
    (tmp_path / "ImageSets/Main/val.txt").write_text("good")
    objects_given = 0
    for name, text in pages.items():
        picture(tmp_path / "JPEGImages" / f"{name}.jpg")
        if name != "good":
            spoil_file(tmp_path / "JPEGImages" / f"{name}.jpg", draw)
        (tmp_path / "Annotations" / f"{name}.xml").write_text(text)
        try:
            root = ElementTree.fromstring(text)
            objects_given += sum(max(1, len(o.findall("bndbox"))) for o in root.iter("object"))
        except ElementTree.ParseError:
            objects_given += text.count("<bndbox>")
    options = {"root": str(tmp_path), "classes": list(CLASSES), **EVERYTHING}
    dataset = DATASETS.build(Plug("voc", options)).read("train")
    unsized = [line for line in dataset.annotations.dropped if "size/" in line]
    # Of a file whose size makes no sense, boxes are counted in its text: it is not read further.
    for line in unsized:
        root = ElementTree.fromstring(pages[Path(line.split(".xml")[0]).name])
        objects_given -= sum(not o.findall("bndbox") for o in root.iter("object"))
    require_balance(dataset, len(pages), objects_given)


class TestBound:
    def fault(self, number: int, given: int, **options: Any) -> None:
        account = Account()
        account.given["object"] = given
        for i in range(number):
            account.leave_out(Kind("object", "whose box has no area"), f"a.json: object {i}")
        account.require_usable("a.json", Handling(on_invalid="drop", **options), {}, {})  # type: ignore[arg-type]

    @pytest.mark.parametrize(("number", "given"), [(20, 30), (20, 2000), (30, 3000), (0, 0)])
    def test_lets_1_percent_and_always_20_go(self, number: int, given: int) -> None:
        self.fault(number, given)

    @pytest.mark.parametrize(("number", "given"), [(21, 30), (21, 2000), (31, 3000)])
    def test_stops_above_it_and_names_the_share_that_would_do(
        self, number: int, given: int
    ) -> None:
        with pytest.raises(DataError, match=rf"{number} objects of {given} would be") as caught:
            self.fault(number, given)
        share = float(str(caught.value).rpartition("data.max_dropped=")[2].split()[0])
        self.fault(number, given, max_dropped=share)
        assert len(caught.value.details) == number

    def test_given_by_hand_replaces_the_20_as_well(self) -> None:
        with pytest.raises(DataError, match="5 objects of 100 would be left out, 1 may be"):
            self.fault(5, 100, max_dropped=0.01)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_dropped": 2.0}, "max_dropped: 2.0"),
        ({"depth": (5.0, 5.0)}, "depth: "),
        ({"val_share": 1.0}, "val_share: 1.0"),
        ({"max_megapixels": 0.0}, "max_megapixels: 0.0"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Handling(**options)


def test_the_options_of_readers_are_the_fields_of_what_they_make() -> None:
    """Their defaults are looked up by name."""
    assert list(HandlingOptions.__annotations__) == [item.name for item in fields(Handling)]
