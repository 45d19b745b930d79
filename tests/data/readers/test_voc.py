from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detector.config.registry import DATASETS
from detector.config.schema import Plug
from detector.errors import ConfigError, DataError
from tests.data.files import write_image

REAL = Path(__file__).parents[4] / "shared" / "data" / "bccd"

OBJECT = (
    "<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{box[0]}</xmin>"
    "<ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
)


def page(*objects: tuple[str, Any], suffix: str = ".jpg", difficult: int = 0) -> str:
    """An XML file of an image of 30 x 40 px."""
    inner = "".join(OBJECT.format(name=n, box=box, difficult=difficult) for n, box in objects)
    return (
        f"<annotation><filename>other{suffix}</filename><path>/etc/passwd</path>"
        f"<size><width>40</width><height>30</height><depth>3</depth></size>{inner}</annotation>"
    )


def write(root: Path, split: str, pages: dict[str, str]) -> None:
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        (root / "Annotations" / f"{name}.xml").write_text(text)
        write_image(root / "JPEGImages" / f"{name}.jpg", 30, 40)
    (root / "ImageSets/Main" / f"{split}.txt").write_text("\n".join(pages) + "\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, "train", {"z": page(("dog", (1, 1, 40, 30))), "a": page()})
    write(tmp_path, "val", {"v": page(("cat", (3, 4, 10, 20)), ("dog", (2, 2, 3, 3)))})
    return tmp_path


def read(root: Path, split: str = "train", **options: Any) -> Any:
    return DATASETS.build(Plug("voc", {"root": str(root), **options})).read(split)


def test_corners_are_counted_from_1_and_belong_to_the_box(root: Path) -> None:
    train, val = read(root).annotations, read(root, "val").annotations
    assert train.boxes(0).tolist() == [[0, 0, 40, 30]]
    assert val.boxes(0).tolist() == [[2, 3, 10, 20], [1, 1, 3, 3]]
    assert val.areas.tolist() == [8 * 17, 4]


def test_images_are_numbered_in_the_order_of_the_list(root: Path) -> None:
    dataset = read(root)
    assert dataset.annotations.image_ids.tolist() == [1, 2]
    assert [dataset.annotations.file_name(i) for i in range(2)] == ["z.jpg", "a.jpg"]
    assert dataset.annotations.boxes(1).shape == (0, 4)
    pixels = np.asarray(Image.open(root / "JPEGImages" / "z.jpg"))
    assert np.array_equal(dataset.image(0), pixels)


def test_classes_are_those_of_both_splits_or_as_given(root: Path) -> None:
    assert read(root).annotations.classes == ("cat", "dog")
    given = read(root, classes=["dog", "cow", "cat"]).annotations
    assert given.classes == ("dog", "cow", "cat")
    assert given.category_ids == (1, 2, 3)
    assert given.labels.tolist() == [0]
    with pytest.raises(DataError, match=r"v\.xml: class 'cat' is not one of data\.classes: dog"):
        read(root, "val", classes=["dog"])


@pytest.mark.parametrize(
    "box", [(5, 5, 5, 9), (5, 5, 9, 5), (9, 5, 5, 9), ("nan", 1, 5, 5), (1, 1, "inf", 5)]
)
def test_a_box_without_area_is_named_or_dropped(root: Path, box: Any) -> None:
    """xmin = xmax is none, although the pixel convention would make one pixel of it."""
    write(root, "train", {"z": page(("dog", (1, 1, 9, 9)), ("dog", box)), "a": page()})
    with pytest.raises(DataError) as caught:
        read(root)
    message = str(caught.value)
    assert all(word in message for word in ("z.xml", "z.jpg", "(id 1)", "annotation 2"))
    dropped = read(root, on_invalid="drop").annotations
    assert f"{dropped.dropped[0]}; data.on_invalid=drop leaves it out" == message
    assert dropped.boxes(0).tolist() == [[0, 0, 9, 9]]


def test_difficult_objects_are_objects_unless_ignored(root: Path) -> None:
    write(root, "train", {"z": page(("dog", (1, 1, 9, 9)), difficult=1)})
    assert read(root).annotations.crowd.tolist() == [False]
    assert read(root, ignore_difficult=True).annotations.crowd.tolist() == [True]


def test_the_suffix_is_that_of_the_filename_and_nothing_else_of_it(root: Path) -> None:
    write(root, "train", {"z": page(suffix=".png"), "a": page(suffix=".exe")})
    write_image(root / "JPEGImages" / "z.png", 30, 40)
    annotations = read(root).annotations
    assert [annotations.file_name(i) for i in range(2)] == ["z.png", "a.jpg"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not XML"),
        ("<annotation>", "is not XML"),
        ("<html></html>", "<size/height> is missing"),
        (page().replace("40", "forty"), "<size/width> is 'forty'"),
        (page().replace("40", "0"), "<size/width> is 0"),
        (page().replace("40", "inf"), "<size/width> is inf"),
        (page(("dog", ("x", 1, 2, 3))), "object 1 of the file: <bndbox/xmin> is 'x'"),
        (page(("", (1, 1, 2, 3))), "<name> is missing"),
        (page(("dog", (1, 1, 2, 3)), difficult=7), "<difficult> is '7'"),
        (page(("dog", (1, 1, 2, 3))).replace("ymax", "top"), "<bndbox/ymax> is missing"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "DOCTYPE"),
    ],
)
def test_a_spoilt_file_is_named_with_the_place(root: Path, text: str, words: str) -> None:
    (root / "Annotations" / "z.xml").write_text(text)
    with pytest.raises(DataError) as caught:
        read(root)
    assert "z.xml: " in str(caught.value)
    assert words in str(caught.value)


def test_truncated_files_are_clean_errors(root: Path) -> None:
    text = page(("dog", (1, 1, 9, 9)))
    for length in range(0, len(text), 5):
        (root / "Annotations" / "z.xml").write_text(text[:length])
        with pytest.raises(DataError, match=r"z\.xml: is not XML"):
            read(root)


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "a\\b", "http://x.org/a"])
def test_a_hostile_name_in_a_list_is_refused(root: Path, name: str) -> None:
    (root / "ImageSets/Main/train.txt").write_text(f"z\n{name}\n")
    with pytest.raises(DataError, match=r"train\.txt: file name"):
        read(root)


def test_what_is_missing_is_named(root: Path) -> None:
    with pytest.raises(DataError, match=r"^data\.root=.*nowhere"):
        read(root / "nowhere")
    with pytest.raises(DataError, match=r"^data\.val_split=.*no\.txt"):
        read(root, val_split="no")
    (root / "JPEGImages" / "a.jpg").unlink()
    with pytest.raises(DataError, match=r"a\.xml: image a\.jpg \(id 2\): there is no such file"):
        read(root)
    (root / "Annotations" / "z.xml").unlink()
    with pytest.raises(DataError, match=r"train\.txt: image z: there is no file .*z\.xml"):
        read(root)


@pytest.mark.parametrize(("text", "words"), [("", "no images"), ("z\nz\n", "more than once: z")])
def test_an_empty_or_repeating_list_is_refused(root: Path, text: str, words: str) -> None:
    (root / "ImageSets/Main/train.txt").write_text(text)
    with pytest.raises(DataError, match=rf"train\.txt: .*{words}"):
        read(root)


@pytest.mark.parametrize("classes", [[], ["a", "a"]])
def test_classes_have_to_differ(root: Path, classes: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"data\.classes"):
        read(root, classes=classes)


@pytest.mark.skipif(not REAL.is_dir(), reason="no blood cell images on this machine")
def test_the_two_bad_boxes_of_the_blood_cells_are_named() -> None:
    with pytest.raises(DataError, match="BloodImage_00343"):
        read(REAL)
    with pytest.raises(DataError, match="BloodImage_00338"):
        read(REAL, "val")
    train, val = (read(REAL, split, on_invalid="drop") for split in ("train", "val"))
    assert train.annotations.classes == ("Platelets", "RBC", "WBC")
    assert (len(train), len(val)) == (205, 87)
    assert len(train.annotations.labels) + len(val.annotations.labels) == 3943 - 2
    assert val.image(0).shape == (480, 640, 3)
