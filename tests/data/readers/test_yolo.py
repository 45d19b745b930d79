from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from detector.config.registry import DATASETS
from detector.config.schema import Plug
from detector.data.annotations import Annotations
from detector.errors import DataError
from tests.data.files import write_image

REAL = Path(__file__).parents[4] / "shared" / "data" / "coco128"
REAL_OPTIONS = {
    "file": "coco128_yolo.yaml",
    "train_images": "val2017",
    "train_labels": "labels/val2017",
}

YAML = "path: ../somewhere\ntrain: images/train\nval: images/val\nnames: [cat, dog, cow]\n"
LABELS = "2 0.5 0.5 0.25 0.5\n\n0 0.1 0.9 0.2 0.2\n"
"""Of an image 40 px wide and 30 high."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two images to train on, b without objects; one to score on, in a subfolder."""
    (tmp_path / "data.yaml").write_text(YAML)
    write_image(tmp_path / "images/train/b.png", 10, 10)
    write_image(tmp_path / "images/train/a.jpg", 30, 40)
    write_image(tmp_path / "images/val/day/v.png", 30, 40)
    label(tmp_path, LABELS)
    label(tmp_path, "1 0.5 0.5 1 1", "val/day/v")
    return tmp_path


def label(root: Path, text: str, name: str = "train/a") -> Path:
    path = root / "labels" / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def read(root: Path, split: str = "train", **options: Any) -> Any:
    return DATASETS.build(Plug("yolo", {"root": str(root), **options})).read(split)


def annotations(root: Path, **options: Any) -> Annotations:
    return read(root, **options).annotations


def fault(root: Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(root, **options)
    return str(caught.value)


def test_centre_and_sides_become_pixels_of_the_image(root: Path) -> None:
    a = annotations(root)
    # 40 x 30 px: centre (20, 15), sides 10 and 15; centre (4, 27), sides 8 and 6.
    expected = [[15, 7.5, 25, 22.5], [0, 24, 8, 30]]
    np.testing.assert_allclose(a.boxes(0), expected, atol=1e-5)  # a float32 of 30 has 2e-6
    assert a.labels.tolist() == [2, 0]
    np.testing.assert_allclose(a.areas, [150, 48])
    assert (a.classes, a.category_ids) == (("cat", "dog", "cow"), (0, 1, 2))
    assert (a.crowd.tolist(), a.ids.tolist()) == ([False, False], [1, 2])


def test_images_are_numbered_by_name_and_one_without_labels_has_no_objects(root: Path) -> None:
    dataset = read(root)
    a = dataset.annotations
    assert [a.file_name(i) for i in range(len(a))] == ["a.jpg", "b.png"]
    assert a.image_ids.tolist() == [1, 2]
    assert a.sizes.tolist() == [[30, 40], [10, 10]]
    assert a.boxes(1).shape == (0, 4)
    assert "1 images without objects (kept)" in a.summary()[0]
    assert np.array_equal(dataset.image(1), np.asarray(Image.open(root / "images/train/b.png")))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0 0.5 0.5 0.5", "has 4 fields, class, centre x, centre y, width, height are needed"),
        ("0 0.5 0.5 0.5 0.5 0.9", "has 6 fields, .*; data.scores=ignore reads past it"),
        ("0 .1 .1 .9 .1 .9 .9", "has 7 fields, .*; data.polygons=box takes the box around each"),
        ("3 0.5 0.5 0.5 0.5", "class is '3', 0 to 2 in whole numbers is allowed"),
        ("-1 0.5 0.5 0.5 0.5", "class is '-1', 0 to 2 in whole numbers is allowed"),
        ("0.5 0.5 0.5 0.5 0.5", "class is '0.5', 0 to 2 in whole numbers is allowed"),
        ("nan 0.5 0.5 0.5 0.5", "class is 'nan', 0 to 2 in whole numbers is allowed"),
        ("cat 0.5 0.5 0.5 0.5", "class is 'cat', not a number"),
        ("0 0.5 0,5 0.5 0.5", "centre y is '0,5', not a number"),
    ],
)
def test_a_line_that_cannot_be_read_is_named_or_dropped(root: Path, line: str, words: str) -> None:
    file = label(root, f"1 0.5 0.5 0.5 0.5\n{line}\n")
    with pytest.raises(DataError, match=rf"^{file}: line 2: {words}[^\n]*$"):
        read(root)
    dropped = annotations(root, on_invalid="drop")
    assert (len(dropped.labels), len(dropped.dropped)) == (1, 1)
    assert dropped.dropped[0].startswith(f"{file}: line 2: ")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0 0.5 1.6 0.5 0.5", "centre y is 1.6, 0 to 1 is allowed: a share of the image"),
        ("0 -0.6 0.5 0.5 0.5", "centre x is -0.6, 0 to 1 is allowed"),
        ("0 20 15 10 15", "centre x is 20, 0 to 1 is allowed: a share of the image, not pixels"),
        ("0 nan 0.5 0.5 0.5", "centre x is nan, 0 to 1 is allowed"),
        ("0 0.5 0.5 inf 0.5", "width is inf, 0 to 1 is allowed"),
        ("0 0.5 0.5 0.5 0", "height is 0, above 0 is needed"),
    ],
)
def test_a_box_of_no_use_is_named_or_dropped(root: Path, line: str, words: str) -> None:
    file = label(root, f"1 0.5 0.5 0.5 0.5\n{line}\n")
    message = fault(root)
    assert message.startswith(f"{file}: line 2: {words}")
    assert "\n" not in message
    # The only object of its class: that is never left out unless it is asked for by a share.
    assert "all objects of class 'cat' would be left out" in fault(root, on_invalid="drop")
    dropped = annotations(root, on_invalid="drop", max_dropped=0.5)
    assert f"{dropped.dropped[0]}; data.on_invalid=drop leaves it out" == message
    assert dropped.labels.tolist() == [1]


@pytest.mark.parametrize(
    ("line", "box"),
    [
        ("1 0.5 0.5002185 1 1.000437", [0, 0, 40, 30]),
        ("1 -0.1 0.5 0.5 0.5", [0, 7.5, 6, 22.5]),
    ],
)
def test_what_leaves_the_image_by_rounding_or_a_part_is_clipped(
    root: Path, line: str, box: list[float]
) -> None:
    label(root, line)
    a = annotations(root)
    np.testing.assert_allclose(np.clip(a.boxes(0)[0], 0, [40, 30, 40, 30]), box, atol=1e-3)
    assert a.summary()[1] == "1 boxes leave their image and are clipped"


def test_a_line_that_is_there_twice_counts_once_and_is_told(root: Path) -> None:
    file = label(root, "1 0.5 0.5 0.5 0.5\n1 0.50 0.5 0.5 0.5\n")
    a = annotations(root)
    assert (len(a.labels), a.dropped, a.account.given["object"]) == (1, (), 2)
    words = f"left out: 1 object: stated twice ({file}: line 2: repeats line 1)"
    assert a.summary()[1] == words


def test_a_box_below_the_resolution_of_the_image_has_no_area(root: Path) -> None:
    file = label(root, "1 0.5 0.5 1e-12 0.5\n")
    assert fault(root).startswith(f"{file}: image a.jpg (id 1), annotation 1: box [19.99")
    assert fault(root).endswith("has no area; data.on_invalid=drop leaves it out")


def test_every_fault_is_listed_at_once(root: Path) -> None:
    label(root, "1 2 0.5 0.5 0.5\n1 0.5 0.5 1e-12 0.5\n1 0.5 0.5 0.5 2\n")
    head, *rest = fault(root).splitlines()
    assert "3 objects of 3 cannot be used; data.on_invalid=drop leaves them out" in head
    assert [line.strip().removeprefix(f"{root}/labels/train/a.txt: ")[:9] for line in rest] == [
        "2 objects",
        "line 1: c",
        "line 3: h",
        "1 object:",
        "image a.j",
    ]
    label(root, "1 1\n" * 25)
    assert len(fault(root).splitlines()) == 13
    assert fault(root).endswith("and 15 more")


def test_a_box_that_leaves_its_image_by_a_part_is_clipped_later(root: Path) -> None:
    label(root, "1 0.1 0.5 0.4 0.5\n")
    a = annotations(root)
    np.testing.assert_allclose(a.boxes(0), [[-4, 7.5, 12, 22.5]], atol=1e-5)
    assert a.summary()[1] == "1 boxes leave their image and are clipped"


def test_the_box_around_a_polygon_is_taken_if_asked_for(root: Path) -> None:
    label(root, "1 0.1 0.2 0.5 0.9 0.3 0.4\n0 0.5 0.5 0.5 0.5\n0 0.1 nan 0.5 0.9 0.3 0.4\n")
    a = annotations(root, polygons="box", on_invalid="drop")
    # x from 0.1 to 0.5 of 40 px, y from 0.2 to 0.9 of 30 px.
    np.testing.assert_allclose(a.boxes(0)[0], [4, 6, 20, 27], atol=1e-5)
    assert a.labels.tolist() == [1, 0]
    assert "line 3: centre x is nan" in a.dropped[0]


def test_a_mark_of_the_byte_order_and_line_ends_of_windows_do_not_matter(root: Path) -> None:
    (root / "labels/train/a.txt").write_bytes(
        b"\xef\xbb\xbf" + LABELS.encode().replace(b"\n", b"\r\n")
    )
    assert annotations(root).labels.tolist() == [2, 0]


def test_bytes_that_are_no_text_are_named(root: Path) -> None:
    (root / "labels/train/a.txt").write_bytes(b"0 0.5 0.5 0.5 0.5\n\xff")
    assert fault(root).endswith(
        "a.txt: is not UTF-8, at byte 18; data.on_invalid=drop leaves it out"
    )


def test_a_truncated_file_of_labels_is_read_or_named(root: Path) -> None:
    """Any prefix: a box or one line that names the file, never anything else."""
    for length in range(len(LABELS)):
        file = label(root, LABELS[:length])
        with contextlib.suppress(DataError):
            read(root)
            continue
        assert fault(root).startswith(f"{file}: line ")


@pytest.mark.skipif(not REAL.is_dir(), reason="no COCO images on this machine")
def test_real_labels_are_those_of_the_files() -> None:
    dataset = read(REAL, **REAL_OPTIONS)
    a = dataset.annotations
    names = yaml.safe_load((REAL / "coco128_yolo.yaml").read_text())["names"]
    assert a.classes == tuple(names[i] for i in range(80))
    assert len(a) == 128
    for index in range(128):
        name = a.file_name(index)
        text = REAL / "labels/val2017" / f"{Path(name).stem}.txt"
        rows = [line.split() for line in text.read_text().splitlines()] if text.exists() else []
        with Image.open(REAL / "val2017" / name) as image:
            width, height = image.size
        expected = []
        for _, x, y, w, h in ([float(word) for word in row] for row in rows):
            corners = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
            expected.append(
                [c * side for c, side in zip(corners, [width, height] * 2, strict=True)]
            )
        # 1e-3 px: what is asked for; a float32 of 640 has 6e-5.
        np.testing.assert_allclose(a.boxes(index), np.reshape(expected, (-1, 4)), atol=1e-3)
        assert [a.classes[k] for k in a.labels[a.objects(index)]] == [
            names[int(row[0])] for row in rows
        ]


@pytest.mark.skipif(not REAL.is_dir(), reason="no COCO images on this machine")
def test_real_coco_boxes_survive_the_way_through_yolo_text(tmp_path: Path) -> None:
    """COCO's own JSON as text of six digits, and back: half a digit of 640 px is 3e-4 px."""
    options = {"root": str(REAL), "val_annotations": "", "on_invalid": "drop"}
    truth = DATASETS.build(Plug("coco", options)).read("train").annotations
    os.symlink(REAL / "train2017", tmp_path / "images")
    for index in range(len(truth)):
        height, width = truth.sizes[index].tolist()
        lines = []
        for b in range(*truth.objects(index).indices(len(truth.labels))):
            x, y, w, h = truth.xywh[b].tolist()
            shares = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
            lines.append(" ".join([str(truth.labels[b]), *(f"{v:.6f}" for v in shares)]))
        label(tmp_path, "\n".join(lines), Path(truth.file_name(index)).stem)
    a = annotations(tmp_path, classes=list(truth.classes), train_images="images")
    assert (len(a), len(a.labels)) == (len(truth), len(truth.labels))
    assert a.classes == truth.classes
    for index in range(len(truth)):
        assert a.file_name(index) == truth.file_name(index)
        np.testing.assert_allclose(a.boxes(index), truth.boxes(index), atol=1e-3)
        assert a.labels[a.objects(index)].tolist() == truth.labels[truth.objects(index)].tolist()
