"""A folder whose layout is found out: what people have, by the marks that the tools leave."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Unpack

import yaml

from detector.config.registry import DATASETS
from detector.config.schema import Plug
from detector.data.foreign import Foreign, json_in, recognized
from detector.data.handling import Handling, HandlingOptions
from detector.data.images import FolderDataset, Names, require_folder
from detector.data.readers.base import Dataset, Reader, Split
from detector.data.readers.coco import read_content
from detector.data.readers.folders import FolderReader
from detector.errors import DataError
from detector.evaluation.canonical import read_regular

VAL_SHARE = 0.2
"""Of the images, where a folder has no val split and it is not said."""

MOST_BYTES = 500_000_000
"""Of a JSON file that is opened to see what it is."""

DEEPEST = 3
"""Folders below the root in which annotations are looked for."""

SPLIT_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""Words in the name of a file, or of its folder, that tell its split."""

LAYOUTS = (
    "COCO JSON (annotations/instances_*.json, _annotations.coco.json in each split, or one file)",
    "YOLO (data.yaml, or images, labels and classes.txt)",
    "Pascal VOC (Annotations and JPEGImages)",
    "CVAT's XML, Label Studio's JSON, LabelMe's JSON beside each image, or a CSV with a header",
)
"""What is recognised, for messages."""


@DATASETS.register("auto")
class AutoReader(Reader):
    """root: a folder in one of the usual layouts, which is found out and said.

    The explicit keys that it stands for are in the log. Where there is no val split, a fifth of the
    images is drawn for it, unless val_share says otherwise. The other keys are those of `Handling`.
    """

    def __init__(self, *, root: str, **handling: Unpack[HandlingOptions]) -> None:
        self.handling = Handling(**handling)
        self.options: dict[str, Any] = {k: v for k, v in handling.items() if v is not None}
        self.root = Path(root).expanduser()

    def read(self, split: Split) -> Dataset:
        dataset = self.reader.read(split)
        dataset.annotations.account.notes.insert(0, self.note)
        return dataset

    @cached_property
    def plug(self) -> Plug | Foreign:
        """What the layout stands for."""
        require_folder(self.root, "data.root")
        plug = recognize(self.root)
        if isinstance(plug, Plug):
            return replace(plug, options={**plug.options, **self.options})
        return plug

    @cached_property
    def reader(self) -> Reader:
        if isinstance(self.plug, Plug):
            return DATASETS.build(self.plug)
        share = self.handling.val_share or VAL_SHARE
        return ForeignReader(self.plug, replace(self.handling, val_share=share))

    @property
    def note(self) -> str:
        """What was found, and the keys that say the same."""
        if isinstance(self.plug, Foreign):
            share = self.handling.val_share or VAL_SHARE
            return f"data.root holds {self.plug.form}; val is a share of {share:g} of it"
        own = {key: v for key, v in self.plug.options.items() if key not in self.options}
        words = " ".join(f"data.{key}={_as_word(value)}" for key, value in own.items())
        return f"data.root holds {NAMES[self.plug.name]}: the same as data={self.plug.name} {words}"


NAMES = {"coco": "COCO JSON", "yolo": "YOLO labels", "voc": "Pascal VOC XML"}


class ForeignReader(FolderReader):
    """Annotations of a form that was turned into COCO's. They have no splits: val is drawn."""

    def __init__(self, foreign: Foreign, handling: Handling) -> None:
        super().__init__(handling)
        self.foreign = foreign

    def read_source(self, split: Split) -> FolderDataset:
        if split == "test":
            raise DataError(f"{self.foreign.source}: has no test split; data=coco can have one")
        annotations = read_content(
            self.foreign.content, self.foreign.source, self.handling, self.foreign.folder
        )
        return FolderDataset(
            str(self.foreign.source), annotations, self.foreign.folder, self.handling
        )


def recognize(root: Path) -> Plug | Foreign:
    """What a folder holds. Raises DataError, which lists what is recognised."""
    for found in (_yolo(root), _voc(root), _coco(root), recognized(root)):
        if found is not None:
            return found
    known = "; ".join(LAYOUTS)
    raise DataError(
        f"data.root={root}: none of the layouts that data=auto knows; {known}; data=coco, yolo or "
        "voc take explicit names"
    )


def _yolo(root: Path) -> Plug | None:
    for file in sorted([*root.glob("*.yaml"), *root.glob("*.yml")]):
        try:
            content = yaml.safe_load(read_regular(file))
        except (OSError, yaml.YAMLError, ValueError):
            continue
        if isinstance(content, dict) and "names" in content and "train" in content:
            options: dict[str, Any] = {"root": str(root), "file": file.name}
            if not content.get("val"):
                options["val_share"] = VAL_SHARE
            return Plug("yolo", options)
    parts = [(root / name).exists() for name in ("images", "labels", "classes.txt")]
    if all(parts):
        has_splits = all((root / "images" / split).is_dir() for split in ("train", "val"))
        share = {} if has_splits else {"val_share": VAL_SHARE}
        return Plug("yolo", {"root": str(root), **share})
    return None


def _voc(root: Path) -> Plug | None:
    if not ((root / "Annotations").is_dir() and (root / "JPEGImages").is_dir()):
        return None
    if next((root / "Annotations").glob("*.xml"), None) is None:
        return None
    lists = root / "ImageSets" / "Main"
    has_splits = all((lists / f"{split}.txt").is_file() for split in ("train", "val"))
    return Plug("voc", {"root": str(root), **({} if has_splits else {"val_share": VAL_SHARE})})


def _coco(root: Path) -> Plug | None:
    """COCO files below the root, by the split that their names tell."""
    files = [file for file in _below(root, ".json") if _is_coco(file)]
    by_split: dict[str, list[Path]] = {"train": [], "val": [], "test": [], "": []}
    for file in files:
        by_split[_split_of(file, root)].append(file)
    if len(files) == 1 and not by_split["train"]:
        by_split = {"train": files, "val": [], "test": [], "": []}
    if len(by_split["train"]) != 1 or len(by_split["val"]) > 1:
        if len(files) > 1:
            names = ", ".join(str(file.relative_to(root)) for file in files[:8])
            raise DataError(
                f"data.root={root}: holds several COCO files whose splits are not plain ({names}); "
                "data=coco with data.train_annotations and data.val_annotations names them"
            )
        return None
    options: dict[str, Any] = {"root": str(root)}
    for split in ("train", "val", "test"):
        for file in by_split[split][:1]:
            options[f"{split}_annotations"] = str(file.relative_to(root))
            options[f"{split}_images"] = str(_images_of(file, root, split).relative_to(root))
    if not by_split["val"]:
        options["val_share"] = VAL_SHARE
    return Plug("coco", options)


def _below(root: Path, suffix: str) -> Iterator[Path]:
    """Files of a suffix, at most `DEEPEST` folders below the root."""
    for place, folders, names in os.walk(root):
        depth = len(Path(place).relative_to(root).parts)
        folders[:] = sorted(f for f in folders if not f.startswith(".")) if depth < DEEPEST else []
        yield from (Path(place, name) for name in sorted(names) if name.endswith(suffix))


def _is_coco(file: Path) -> bool:
    if file.stem.startswith("instances_") or file.name == "_annotations.coco.json":
        return True
    try:
        if file.stat().st_size > MOST_BYTES:
            return False
    except OSError:
        return False
    content = json_in(file)
    return isinstance(content, dict) and {"images", "annotations", "categories"} <= set(content)


def _split_of(file: Path, root: Path) -> str:
    """train, val, test, or nothing: by the words of the name, then of the folder."""
    for part in (file.stem, *reversed(file.relative_to(root).parent.parts)):
        words = set(re.split(r"[^a-z]+", part.lower()))
        for split, known in SPLIT_WORDS.items():
            if words & set(known):
                return split
    return ""


def _images_of(file: Path, root: Path, split: str) -> Path:
    """The folder in which the images of a file lie: the first that holds one of them."""
    try:
        names = [str(row.get("file_name", "")) for row in json_in(file)["images"][:5]]
    except (KeyError, TypeError, AttributeError):
        names = []  # is told by the reader
    digits = "".join(re.findall(r"\d+", file.stem))
    words = [split, *SPLIT_WORDS[split], f"{split}{digits}"]
    tried = [file.parent, file.parent / "images", root, root / "images"]
    tried += [root / word for word in words] + [root / "images" / word for word in words]
    tried += [root / word / "images" for word in words]
    for folder in tried:
        known = Names(folder)
        if folder.is_dir() and any(name in known or known.of_stem(name) for name in names if name):
            return folder
    return next((folder for folder in tried[3:] if folder.is_dir()), root)


def _as_word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
