"""Ten layouts that people have, each found out and read as the same four objects."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from detector.config.registry import DATASETS
from detector.config.schema import Plug
from detector.data.readers.auto import recognize
from detector.data.readers.base import Dataset
from detector.errors import DataError

WIDTH, HEIGHT = 60, 40
NAMES = ("a.png", "b.png", "c.png", "d.png")
BOX = (6, 4, 26, 24)
"""Left, top, right, bottom of the object of every image."""
LABEL = {"a.png": "cat", "b.png": "dog", "c.png": "cat", "d.png": "dog"}
SHARES = ((6 + 26) / 2 / WIDTH, (4 + 24) / 2 / HEIGHT, 20 / WIDTH, 20 / HEIGHT)


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT), (len(path.name), 9, 80)).save(path)


def coco(names: tuple[str, ...]) -> dict[str, Any]:
    return {
        "images": [
            {"id": i, "file_name": name, "width": WIDTH, "height": HEIGHT}
            for i, name in enumerate(names)
        ],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1 + (LABEL[name] == "dog"),
             "bbox": [6, 4, 20, 20]}
            for i, name in enumerate(names)
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }  # fmt: skip


def write_coco_2017(root: Path) -> None:
    (root / "annotations").mkdir()
    for split, names in (("train", NAMES[:2]), ("val", NAMES[2:])):
        (root / f"annotations/instances_{split}2017.json").write_text(json.dumps(coco(names)))
        for name in names:
            picture(root / f"{split}2017" / name)


def write_labelling_service(root: Path) -> None:
    for split, names in (("train", NAMES[:2]), ("valid", NAMES[2:])):
        for name in names:
            picture(root / split / name)
        (root / split / "_annotations.coco.json").write_text(json.dumps(coco(names)))


def write_one_coco(root: Path) -> None:
    for name in NAMES:
        picture(root / "images" / name)
    (root / "labels.json").write_text(json.dumps(coco(NAMES)))


def yolo_line(name: str) -> str:
    return " ".join([str(int(LABEL[name] == "dog")), *(f"{value:.6f}" for value in SHARES)])


def write_yolo(root: Path) -> None:
    for split, names in (("train", NAMES[:2]), ("val", NAMES[2:])):
        for name in names:
            picture(root / "images" / split / name)
            file = root / "labels" / split / f"{Path(name).stem}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(yolo_line(name))
    yaml = "path: /somewhere\ntrain: images/train\nval: images/val\nnames: [cat, dog]\n"
    (root / "my.yaml").write_text(yaml)


def write_label_studio_yolo(root: Path) -> None:
    (root / "labels").mkdir()
    for name in NAMES:
        picture(root / "images" / name)
        (root / "labels" / f"{Path(name).stem}.txt").write_text(yolo_line(name))
    (root / "classes.txt").write_text("cat\ndog\n")
    (root / "notes.json").write_text("{}")


def write_voc(root: Path, *, lists: bool = True) -> None:
    (root / "Annotations").mkdir()
    for name in NAMES:
        picture(root / "JPEGImages" / name)
        x1, y1, x2, y2 = BOX
        box = f"<xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
        (root / "Annotations" / f"{Path(name).stem}.xml").write_text(
            f"<annotation><filename>{name}</filename><size><width>{WIDTH}</width>"
            f"<height>{HEIGHT}</height></size><object><name>{LABEL[name]}</name>"
            f"<bndbox>{box}</bndbox></object></annotation>"
        )
    if lists:
        (root / "ImageSets/Main").mkdir(parents=True)
        for split, names in (("train", "a\nb\n"), ("val", "c\nd\n")):
            (root / f"ImageSets/Main/{split}.txt").write_text(names)


def write_voc_without_lists(root: Path) -> None:
    write_voc(root, lists=False)


def write_cvat(root: Path) -> None:
    rows = []
    for i, name in enumerate(NAMES):
        picture(root / "images" / name)
        x1, y1, x2, y2 = BOX
        shape = f'<box label="{LABEL[name]}" xtl="{x1}" ytl="{y1}" xbr="{x2}" ybr="{y2}"/>'
        if name == "d.png":
            shape = f'<polygon label="dog" points="{x1},{y1};{x2},{y1};{x2},{y2}"/>'
        rows.append(f'<image id="{i}" name="{name}" width="60" height="40">{shape}</image>')
    (root / "annotations.xml").write_text(
        f'<?xml version="1.0" encoding="utf-8"?><annotations>{"".join(rows)}</annotations>'
    )


def write_label_studio(root: Path) -> None:
    tasks = []
    for i, name in enumerate(NAMES):
        picture(root / "images" / name)
        value = {"x": 10, "y": 10, "width": 100 / 3, "height": 50, "rotation": 0,
                 "rectanglelabels": [LABEL[name]]}  # fmt: skip
        result = {"type": "rectanglelabels", "original_width": WIDTH, "original_height": HEIGHT,
                  "value": value}  # fmt: skip
        data = {"image": f"/data/local-files/?d=images/{name}"}
        tasks.append({"id": i, "data": data, "annotations": [{"result": [result]}]})
    (root / "project.json").write_text(json.dumps(tasks))


def write_labelme(root: Path) -> None:
    for name in NAMES:
        picture(root / name)
        x1, y1, x2, y2 = BOX
        shape = {"label": LABEL[name], "points": [[x2, y2], [x1, y1]], "shape_type": "rectangle"}
        content = {"shapes": [shape], "imagePath": name, "imageWidth": 60, "imageHeight": 40}
        (root / f"{Path(name).stem}.json").write_text(json.dumps(content))


def write_table(root: Path) -> None:
    with open(root / "labels.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"])
        for name in NAMES:
            picture(root / name)
            writer.writerow([name, WIDTH, HEIGHT, LABEL[name], *BOX])


LAYOUTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "COCO 2017": (write_coco_2017, "data.train_images=train2017"),
    "labelling service": (write_labelling_service, "data.val_images=valid"),
    "one COCO file": (write_one_coco, "data.train_images=images data.val_share=0.2"),
    "YOLO": (write_yolo, "data.file=my.yaml"),
    "Label Studio's YOLO": (write_label_studio_yolo, "data=yolo"),
    "VOC": (write_voc, "data=voc"),
    "VOC without lists": (write_voc_without_lists, "data.val_share=0.2"),
    "CVAT": (write_cvat, "CVAT's XML"),
    "Label Studio's JSON": (write_label_studio, "Label Studio's JSON"),
    "LabelMe": (write_labelme, "LabelMe's JSON"),
    "table": (write_table, "a table of labels.csv"),
}


def read(root: Path, **more: Any) -> tuple[Dataset, Dataset]:
    reader = DATASETS.build(Plug("auto", {"root": str(root), **more}))
    return reader.read("train"), reader.read("val")


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_found_out_said_and_read(tmp_path: Path, name: str) -> None:
    write, said = LAYOUTS[name]
    write(tmp_path)
    train, val = read(tmp_path)
    found = {}
    for dataset in (train, val):
        annotations = dataset.annotations
        assert annotations.classes == ("cat", "dog")
        assert said in annotations.summary()[1]
        for i in range(len(annotations)):
            (label,) = annotations.labels[annotations.objects(i)]
            base = Path(annotations.file_name(i)).name
            assert base not in found
            found[base] = annotations.classes[label]
            assert annotations.boxes(i).tolist() == [pytest.approx(BOX, abs=1e-3)]
            assert dataset.image(i).shape == (HEIGHT, WIDTH, 3)
    assert found == LABEL


@pytest.mark.parametrize("name", ["CVAT", "LabelMe", "table", "VOC without lists"])
def test_options_reach_the_reader(tmp_path: Path, name: str) -> None:
    LAYOUTS[name][0](tmp_path)
    train, val = read(tmp_path, val_share=0.5)
    assert (len(train), len(val)) == (2, 2)
    picked = next(path for path in tmp_path.rglob("a.png"))
    picked.write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.png.*cannot be read as an image.*data\.on_corrupt"):
        read(tmp_path)
    assert sum(map(len, read(tmp_path, on_corrupt="drop"))) == 3


def test_what_cannot_be_read_in_a_foreign_form_is_named(tmp_path: Path) -> None:
    write_table(tmp_path)
    file = tmp_path / "labels.csv"
    file.write_text(file.read_text().replace("6,4,26,24", "six,4,26,24", 1))
    with pytest.raises(DataError, match=r"annotations\[0\] .*bbox is None, four numbers"):
        read(tmp_path)


def test_a_folder_of_nothing_known_lists_what_is(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"none of the layouts that data=auto knows; COCO JSON"):
        read(tmp_path)


def test_several_files_of_one_split_are_named(tmp_path: Path) -> None:
    write_coco_2017(tmp_path)
    (tmp_path / "annotations/instances_train2014.json").write_text(json.dumps(coco(NAMES)))
    with pytest.raises(DataError, match=r"several COCO files.*instances_train2014\.json"):
        read(tmp_path)


def test_nothing_is_read_out_of_the_folder(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    write_table(root)
    picture(tmp_path / "secret.png")
    file = root / "labels.csv"
    file.write_text(file.read_text().replace("a.png", "../secret.png", 1))
    with pytest.raises(DataError, match="leads out"):
        read(root)
    (root / "annotations.xml").write_text('<!DOCTYPE a [<!ENTITY b "c">]><annotations>&b;')
    with pytest.raises(DataError, match="DOCTYPE"):
        read(root)


def test_shapes_that_have_no_box_are_named_and_not_passed_over(tmp_path: Path) -> None:
    write_cvat(tmp_path)
    file = tmp_path / "annotations.xml"
    shapes = '<points label="cat" points="3,4"/><box label="cat" xtl="1" ytl="1" xbr="9" ybr="9" '
    shapes += 'rotation="30.0"/><box label="" xtl="1" ytl="1" xbr="9" ybr="9"/><tag label="day"/>'
    file.write_text(file.read_text().replace("</image>", f"{shapes}</image>", 1))
    train, _ = read(tmp_path, on_invalid="drop")
    account = train.annotations.account
    assert account.given["object"] == 4 + 3
    assert len(account.faults()) == 3
    assert train.annotations.classes == ("cat", "dog")


def test_results_of_label_studio_that_are_no_rectangle_are_read_or_named(tmp_path: Path) -> None:
    write_label_studio(tmp_path)
    file = tmp_path / "project.json"
    tasks = json.loads(file.read_text())
    x1, y1, x2, y2 = BOX
    points = [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in ((x1, y1), (x2, y1), (x2, y2))]
    (first,) = tasks[0]["annotations"][0]["result"]
    size = {key: first[key] for key in ("original_width", "original_height")}
    tasks[0]["annotations"] = [
        {"result": [
            {**size, "type": "polygonlabels", "value": {"points": points,
                                                        "polygonlabels": ["cat"]}},
            {**size, "type": "brushlabels", "value": {"brushlabels": ["dog"]}},
            {**first, "value": first["value"] | {"rotation": 20}},
            {"type": "choices", "value": {"choices": ["day"]}},
        ]},
        None,
    ]  # fmt: skip
    file.write_bytes(json.dumps(tasks).encode("utf-16"))
    train, val = read(tmp_path, on_invalid="drop")
    assert train.annotations.account.given["object"] == 3 + 3
    assert len(train.annotations.account.faults()) == 2
    found = [d.annotations.boxes(i).tolist() for d in (train, val) for i in range(len(d))]
    assert found == [[pytest.approx(BOX, abs=1e-3)]] * 4


@pytest.mark.parametrize("kind", ["device", "FIFO"])
@pytest.mark.parametrize("name", ["data.yaml", "set.json", "set.xml"])
def test_what_never_ends_is_not_read(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    if kind == "FIFO":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises((DataError, OSError), match=r"none of the layouts|is not a regular file"):
        recognize(tmp_path)
