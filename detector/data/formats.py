"""A data set written in another form: COCO JSON, YOLO text or Pascal VOC XML.

Images are copied, not decoded. What a form cannot say (a crowd in YOLO's) is named, not lost in
silence; a box keeps its numbers to 1e-4 of a pixel or better.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree import ElementTree

import yaml

from detector.data.annotations import Annotations
from detector.data.export import coco_content
from detector.data.readers.base import Dataset, Split
from detector.errors import ConfigError, DataError


def write_as(form: str, dataset: Dataset, folder: Path, split: Split) -> list[str]:
    """Writes a split of images that are files; what the form could not say, a line each.

    The readers of `data=coco`, `yolo` and `voc` take the
    folder with the keys that `keys_of` states. Raises DataError for images that are no files.
    """
    files = dataset.files()
    if not files:
        raise DataError(f"{dataset.name}: its images are no files; tools/generate.py writes them")
    names = unique_names(dataset.annotations)
    place(files, folder / IMAGES[form].format(split=split), names)
    return WRITERS[form](dataset.annotations, folder, split, names)


def keys_of(form: str, splits: Sequence[Split]) -> str:
    """The keys of a training on what was written."""
    if form == "coco":
        return " ".join(
            f"data.{split}_annotations=annotations/instances_{split}.json "
            f"data.{split}_images={split}"
            for split in splits
        )
    return ""


def unique_names(annotations: Annotations) -> list[str]:
    """File names without folders: a folder's name goes in front where two would be the same, and
    in YOLO's and VOC's forms where they would differ in their suffix alone."""
    whole = [annotations.file_name(i) for i in range(len(annotations))]
    stems = [Path(name).stem for name in whole]
    if len(set(stems)) == len(stems):
        return [Path(name).name for name in whole]
    flat = [name.replace("/", "_") for name in whole]
    if len({Path(name).stem for name in flat}) < len(flat):
        flat = [f"{i:06d}_{name}" for i, name in enumerate(flat, 1)]
    return flat


def place(files: Sequence[Path], folder: Path, names: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file, name in zip(files, names, strict=True):
        shutil.copyfile(file, folder / name)


def _coco(annotations: Annotations, folder: Path, split: Split, names: list[str]) -> list[str]:
    path = folder / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(coco_content(annotations, names)))
    return []


def _yolo(annotations: Annotations, folder: Path, split: Split, names: list[str]) -> list[str]:
    """Ten digits: of an image of 20,000 pixels, 2e-6 of one."""
    labels = folder / "labels" / split
    labels.mkdir(parents=True, exist_ok=True)
    lost = []
    for i, name in enumerate(names):
        height, width = annotations.sizes[i].tolist()
        lines = []
        for b in range(*annotations.objects(i).indices(len(annotations.labels))):
            if annotations.crowd[b]:
                lost.append(f"{split}/{name}: annotation {annotations.ids[b]} is a crowd")
                continue
            x, y, w, h = annotations.xywh[b].tolist()
            shares = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
            lines.append(" ".join([str(annotations.labels[b]), *(f"{v:.10f}" for v in shares)]))
        (labels / f"{Path(name).stem}.txt").write_text("\n".join(lines) + "\n" if lines else "")
    content = {"names": list(annotations.classes)}
    content |= {
        s: f"images/{s}" for s in ("train", "val", "test") if (folder / "images" / s).exists()
    }
    (folder / "data.yaml").write_text(yaml.safe_dump(content, allow_unicode=True, sort_keys=False))
    return lost


def _voc(annotations: Annotations, folder: Path, split: Split, names: list[str]) -> list[str]:
    """A crowd is written as `difficult`, which data.ignore_difficult=true reads as one."""
    pages = folder / "Annotations"
    pages.mkdir(exist_ok=True)
    for i, name in enumerate(names):
        root = ElementTree.Element("annotation")
        _text(root, "filename", name)
        size = ElementTree.SubElement(root, "size")
        height, width = annotations.sizes[i].tolist()
        for key, value in (("width", width), ("height", height), ("depth", 3)):
            _text(size, key, str(value))
        for b in range(*annotations.objects(i).indices(len(annotations.labels))):
            node = ElementTree.SubElement(root, "object")
            _text(node, "name", annotations.classes[annotations.labels[b]])
            _text(node, "difficult", str(int(annotations.crowd[b])))
            box = ElementTree.SubElement(node, "bndbox")
            x, y, w, h = annotations.xywh[b].tolist()
            # VOC counts corner pixels from 1, and its box covers them: see VocReader.
            for key, value in (("xmin", x + 1), ("ymin", y + 1), ("xmax", x + w), ("ymax", y + h)):
                _text(box, key, f"{value:.10g}")
        ElementTree.ElementTree(root).write(pages / f"{Path(name).stem}.xml", encoding="utf-8")
    lists = folder / "ImageSets" / "Main"
    lists.mkdir(parents=True, exist_ok=True)
    (lists / f"{split}.txt").write_text("".join(f"{Path(name).stem}\n" for name in names))
    # One with sides of a pixel or less would have corners in the wrong order.
    sides = annotations.xywh[:, 2:].min(1) if len(annotations.xywh) else []
    return [
        f"{split}: annotation {annotations.ids[b]} is thinner than a pixel, which VOC cannot say"
        for b, side in enumerate(sides)
        if side <= 1
    ]


def _text(parent: ElementTree.Element, tag: str, text: str) -> None:
    ElementTree.SubElement(parent, tag).text = text


WRITERS: dict[str, Callable[[Annotations, Path, Split, list[str]], list[str]]] = {
    "coco": _coco,
    "yolo": _yolo,
    "voc": _voc,
}
IMAGES = {"coco": "{split}", "yolo": "images/{split}", "voc": "JPEGImages"}
"""Where the images of a split lie, by form."""


def convert(
    read: Callable[[Split], Dataset],
    form: str,
    folder: Path,
    splits: Sequence[Split],
) -> list[str]:
    """Writes splits into a new folder in another form; lines of what was done and what was lost.

    read: the data of a split. Raises ConfigError for a folder that holds something, DataError for
    data that cannot be used as they are.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"output_dir: {folder} is not a new or empty folder")
    lines = []
    for split in splits:
        dataset = read(split)
        lines += [f"{split}: {line}" for line in dataset.annotations.account.lines()]
        folder.mkdir(parents=True, exist_ok=True)
        lost = write_as(form, dataset, folder, split)
        number = len(dataset.annotations.labels)
        lines.append(
            f"{split}: {len(dataset)} images, {number} objects; {len(lost)} not as they are"
        )
        lines += [f"  {line}" for line in lost]
    return lines
