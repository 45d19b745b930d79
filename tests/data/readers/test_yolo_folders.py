"""Folders, names and links of YOLO data; what stands in the text files is in `test_yolo`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from detector.errors import ConfigError, DataError
from tests.data.files import write_image
from tests.data.readers.test_yolo import YAML, annotations, fault, read, root

__all__ = ["root"]  # a fixture


def test_images_lie_in_subfolders_too_and_those_with_a_dot_are_no_images(root: Path) -> None:
    write_image(root / "images/val/.thumbs/v.png", 4, 4)
    (root / "images/val/day/._v.png").write_bytes(b"Mac OS X")
    a = annotations(root, split="val")
    assert [a.file_name(i) for i in range(len(a))] == ["day/v.png"]
    assert a.boxes(0).tolist() == [[0, 0, 40, 30]]


def test_names_may_be_numbered(root: Path) -> None:
    (root / "data.yaml").write_text(YAML.replace("[cat, dog, cow]", "{1: dog, 0: cat, 2: cow}"))
    assert annotations(root).classes == ("cat", "dog", "cow")


def test_everything_can_be_said_without_a_file(root: Path) -> None:
    (root / "data.yaml").unlink()
    (root / "labels/train").rename(root / "texts")
    options = {"classes": ["x", "y", "z"], "train_images": "images/train", "train_labels": "texts"}
    assert annotations(root, **options).classes == ("x", "y", "z")
    assert len(annotations(root, **options).labels) == 2
    assert "data.file=" in fault(root, train_images="images/train")


def test_labels_lie_where_labels_replaces_the_last_images(root: Path) -> None:
    """Roboflow's layout is the other way round, and its ../ leads to nowhere."""
    (root / "train").mkdir()
    (root / "images/train").rename(root / "train/images")
    (root / "labels/train").rename(root / "train/labels")
    (root / "data.yaml").write_text(YAML.replace("images/train", "../train/images"))
    assert annotations(root).labels.tolist() == [2, 0]


def test_labels_may_lie_beside_their_images(root: Path) -> None:
    (root / "images").rename(root / "photos")
    (root / "photos/train/a.txt").write_text("1 0.5 0.5 1 1")
    assert annotations(root, train_images="photos/train").labels.tolist() == [1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "is not yaml"),
        ("\x00", "is not yaml"),
        ("!!python/object/apply:os.system [ls]", "is not yaml"),
        ("x", "keys and values are needed"),
        ("train: images/train", "names is None, a list of class names is needed"),
        ("names: []", "names is \\[\\]"),
        ("names: 3", "names is 3"),
        ("names: {0: a, 2: b}", "names has the numbers \\[0, 2\\], 0, 1, 2"),
        ("names: [yes, no]", "names\\[0\\] is True, text is needed"),
        ("names: [a, b, a]", "names\\[2\\] is 'a', as another class is"),
        ("names: [a, b, c]", "train is None, the name of an image folder, several, or a text file"),
        ("names: [a]\ntrain: [x, 3]", "train is \\['x', 3\\]"),
        ("names: [a]\ntrain: /etc", "train is '/etc', which leads out"),
        ("names: [a]\ntrain: ../../etc", "train is '../../etc', which leads out"),
        ("names: [a]\ntrain: images/../../etc", "train is .*, which leads out"),
    ],
)
def test_a_spoilt_yaml_file_is_named_with_the_key(root: Path, text: str, words: str) -> None:
    (root / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=rf"data\.yaml: {words}[^\n]*$"):
        read(root)


def test_what_is_missing_is_named(root: Path) -> None:
    assert fault(root / "nowhere").startswith("data.root=")
    assert fault(root, train_images="no").startswith("data.train_images=")
    assert fault(root, train_labels="no").startswith("data.train_labels=")
    assert fault(root, file="no.yaml").startswith("data.file=")
    (root / "empty").mkdir()
    assert fault(root, train_images="empty").endswith("empty: holds no images")
    message = fault(root, train_labels="empty")
    assert message.endswith("empty: holds no file of labels for any of 2 images")


def test_two_images_that_would_share_their_labels_are_named(root: Path) -> None:
    write_image(root / "images/train/a.png", 30, 40)
    assert fault(root).endswith("a.jpg and a.png would share the labels a.txt")


def test_a_link_that_leads_out_is_refused(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    write_image(outside / "s.png", 4, 4)
    (outside / "s.txt").write_text("0 0.5 0.5 1 1")
    os.symlink(outside / "s.txt", root / "labels/train/b.txt")
    assert "leads out of" in fault(root)
    (root / "labels/train/b.txt").unlink()
    os.symlink(outside / "s.png", root / "images/train/s.png")
    assert "leads out of" in fault(root)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_an_image_that_exif_rotates_is_refused_since_its_labels_may_be_of_either(
    root: Path, suffix: str
) -> None:
    path = root / f"images/train/r.{suffix}"
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new("RGB", (40, 30)).save(path, exif=exif)
        if orientation == 1:
            assert len(read(root)) == 3
        else:
            assert f"r.{suffix} (id 3): is turned by EXIF (orientation {orientation})" in fault(
                root
            )


def test_a_damaged_image_is_named(root: Path) -> None:
    (root / "images/train/b.png").write_bytes(b"<html>404</html>")
    assert "b.png: cannot be read as an image" in fault(root)


@pytest.mark.parametrize("classes", [[], ["a", "a"]])
def test_classes_have_to_differ(root: Path, classes: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"data\.classes"):
        read(root, classes=classes)
