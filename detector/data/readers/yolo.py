"""YOLO text labels: for each image a file with a line for each object, "class x y width height".

The numbers are the centre and the sides as shares of the image's width and height. Class names and
folders may stand in a yaml file as Ultralytics has it: https://docs.ultralytics.com/datasets/detect.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from reprlib import repr as short  # of a nest of aliases, the whole text would fill the memory
from typing import Any, Literal, Unpack

import numpy as np
import yaml

from detector.config.registry import DATASETS
from detector.config.schema import require
from detector.data.account import OF_LEFT_OUT_IMAGES, TWIN, Account, Kind
from detector.data.annotations import Annotations, Rows, pack
from detector.data.handling import Handling, HandlingOptions
from detector.data.headers import NO_SIZE, check_images
from detector.data.images import (
    UNREAD_SUFFIXES,
    FolderDataset,
    Names,
    list_images,
    require_files,
    require_folder,
)
from detector.data.readers.base import Split
from detector.data.readers.folders import FolderReader
from detector.data.suspicious import as_corners
from detector.errors import DataError
from detector.evaluation.canonical import read_regular

Polygons = Literal["error", "box"]
Scores = Literal["error", "ignore"]

Object = tuple[int, float, float, float, float]
"""Class; centre x, centre y, width, height as shares of the image."""

KEYS = ("centre x", "centre y", "width", "height")

MAX_SHARE = 1.5
"""A number above is no share of an image that was rounded, but pixels."""

LINE = Kind("object", "whose line cannot be read")
POLYGON = Kind("object", "that are polygons", way="data.polygons=box takes the box around each")
SCORE = Kind(
    "object", "with a sixth number", way="data.scores=ignore reads past it, as past a score"
)
NO_SHARE = Kind("object", "whose numbers are no shares of the image")
NO_TEXT = Kind("file", "of labels that are not UTF-8")
NO_IMAGE = Kind("file", "of labels without an image")
NO_IMAGE_OBJECTS = Kind("object", "in files of labels that are left out", None)
OTHER_TEXT = "files of text beside the labels hold none: not read"
UNREAD = Kind("image", "in a format that is not read", way="converted to JPEG or PNG it is")


@DATASETS.register("yolo")
class YoloReader(FolderReader):
    """root: the folder to which the others are relative.

    file: a yaml file with `names` (a list, or numbers and names) and, unless they are given here,
    the images of `train`, `val` and `test`: a folder, a list of folders, or a text file with a name
    on each line; its `path` is of somebody's machine and is not read. classes: names in the order
    of their numbers; null: those of the file, or of classes.txt, a name on each line, where there
    is no yaml. train_images, val_images, test_images: folders, searched with their subfolders.
    train_labels, val_labels, test_labels: folders of the text files; null: that of the images with
    the last `images` in it replaced by `labels`, or itself. polygons: what a line with a polygon
    does: "error" names it, "box" takes the box around it. scores: what a sixth number does: "error"
    names it, "ignore" reads past it. The other keys are those of `Handling`.

    An image without a file of labels has no objects. Image ids are 1, 2, ... in the order of the
    names, annotation ids 1, 2, ... in that of the lines, category ids the numbers in the files.
    """

    def __init__(
        self,
        *,
        root: str,
        file: str = "data.yaml",
        classes: tuple[str, ...] | None = None,
        train_images: str | None = None,
        train_labels: str | None = None,
        val_images: str | None = None,
        val_labels: str | None = None,
        test_images: str | None = None,
        test_labels: str | None = None,
        polygons: Polygons = "error",
        scores: Scores = "error",
        **handling: Unpack[HandlingOptions],
    ) -> None:
        super().__init__(Handling(**handling))
        require(
            classes is None or (len(classes) > 0 and len(set(classes)) == len(classes)),
            f"classes: {list(classes or [])} given, different names or null are needed",
        )
        self.root = Path(root).expanduser()
        self.file = self.root / file
        self.given_classes = classes
        self.images = {"train": train_images, "val": val_images, "test": test_images}
        self.labels = {"train": train_labels, "val": val_labels, "test": test_labels}
        self.polygons: Polygons = polygons
        self.scores: Scores = scores

    def read_source(self, split: Split) -> FolderDataset:
        require_folder(self.root, "data.root")
        classes, account = self.classes, Account()
        places = self.places(split)
        is_folder = len(places) == 1 and not places[0].endswith(".txt")
        if is_folder:
            folder = require_folder(self.root / places[0], f"data.{split}_images")
            names = list_images(folder)
            labels = self.labels[split] or labels_beside(places[0])
        else:
            folder, names = self.root, self.names_of(places, split)
            labels = self.labels[split]
        if not names:
            words = "holds no images" if is_folder else "lists no images"
            raise DataError(f"data.{split}_images={self.root / places[0]}: {words}")
        require_files(folder, names, str(folder))
        if labels is not None:
            beside = require_folder(self.root / labels, f"data.{split}_labels")
            files = label_files(folder, names, beside, f"data.{split}_labels")
            if is_folder:
                name_the_rest(folder, names, beside, account)
        else:
            files = listed_label_files(self.root, names, f"data.{split}_labels")
        annotations = read_set(
            folder,
            files,
            classes,
            polygons=self.polygons,
            scores=self.scores,
            handling=self.handling,
            account=account,
        )
        source = str(folder if is_folder else self.root / places[0])
        return FolderDataset(source, annotations, folder, self.handling)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        if self.given_classes is not None:
            return self.given_classes
        names = self.root / "classes.txt"
        if not self.file.is_file() and names.is_file():
            lines = [line.strip() for line in _text(names).splitlines()]
            return _unlike(tuple(line for line in lines if line), names)
        return names_in_yaml(self.file)

    def places(self, split: Split) -> list[str]:
        """Where the images of a split are: folders or text files, below the root."""
        given = self.images[split]
        if given is not None:
            return [given]
        if not self.file.is_file() and (self.root / "images").is_dir():
            inside = f"images/{split}"
            if (self.root / inside).is_dir():
                return [inside]
            if self.handling.val_share is not None:
                return ["images"]
            raise DataError(
                f"data.file={self.file}: there is no such file, and {self.root / 'images'} has no "
                f"folder {split}; data.train_images and data.val_images say where the splits are, "
                "data.val_share=0.2 draws a fifth of one folder for val"
            )
        return places_in_yaml(self.file, split)

    def names_of(self, places: list[str], split: Split) -> list[str]:
        """Names of the images, relative to the root, of folders and of files that list them."""
        found: dict[str, None] = {}
        known = Names(self.root)
        for place in places:
            path = self.root / place
            if not place.endswith(".txt"):
                require_folder(path, f"data.{split}_images")
                found |= dict.fromkeys(str(Path(place, name)) for name in list_images(path))
                continue
            if not path.is_file():
                raise DataError(f"data.{split}_images={path}: there is no such file")
            for line in _text(path).splitlines():
                if line.strip():
                    found[self.listed(line.strip(), place, known)] = None
        return list(found)

    def listed(self, line: str, place: str, known: Names) -> str:
        """The image, below the root, that a line of a file of names means.

        A name is relative to the file or to the root; of one that begins with / as much is cut off
        as is needed for it to be found, since it is of somebody's machine.
        """
        name = os.path.normpath(line.replace("\\", "/"))
        tries = [os.path.normpath(os.path.join(os.path.dirname(place), name)), name]
        parts = PurePosixPath(name).parts
        if name.startswith("/"):
            tries = [str(PurePosixPath(*parts[i:])) for i in range(1, len(parts))]
        for one in tries:
            if not one.startswith("..") and one in known:
                return one
        return tries[0]


def name_the_rest(folder: Path, names: list[str], labels: Path, account: Account) -> None:
    """Puts into the account what lies beside the images and is not read: images of other formats,
    and labels of no image."""
    stems = {str(Path(name).with_suffix("")) for name in names}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.suffix.lower() not in UNREAD_SUFFIXES or any(p[0] == "." for p in inside.parts):
            continue
        account.given["image"] += 1
        account.leave_out(UNREAD, f"{path}: {path.suffix} is not read")
        stem = str(inside.with_suffix(""))
        lines = looks_like_labels(labels / f"{stem}.txt")
        if lines and stem not in stems:
            account.given["object"] += lines
            account.leave_out(OF_LEFT_OUT_IMAGES, "", count=lines)
        stems.add(stem)
    for path in sorted(labels.rglob("*.txt")):
        inside = path.relative_to(labels)
        if str(inside.with_suffix("")) in stems or any(p[0] == "." for p in inside.parts):
            continue
        lines = looks_like_labels(path)
        if lines is None:
            account.rules[OTHER_TEXT] += 1
        else:
            account.given["file"] += 1
            account.leave_out(NO_IMAGE, f"{path}: there is no image {inside.stem} in {folder}")
            if lines:
                account.given["object"] += lines
                account.leave_out(NO_IMAGE_OBJECTS, "", count=lines)


def looks_like_labels(path: Path) -> int | None:
    """Lines of a text file of labels; None for another, such as a list of classes.

    A file is one of labels in which some line has three numbers after its first word.
    """
    try:
        lines = [
            line.split()
            for line in read_regular(path).decode("utf-8-sig").splitlines()
            if line.strip()
        ]
    except (OSError, UnicodeDecodeError):
        return None
    is_one = not lines or any(len(line) > 3 and all(map(is_number, line[1:4])) for line in lines)
    return len(lines) if is_one else None


def is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _text(path: Path) -> str:
    try:
        return read_regular(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8, at byte {error.start}") from None


def _unlike(names: tuple[str, ...], path: Path) -> tuple[str, ...]:
    """The names. Raises DataError where there is none, or two are the same."""
    if not names or len(set(names)) < len(names):
        raise DataError(f"{path}: {list(names)}, different class names are needed")
    return names


def read_yaml(path: Path) -> dict[Any, Any]:
    """The keys and values of a yaml file. Raises DataError naming the file."""
    if not path.is_file():
        raise DataError(
            f"data.file={path}: there is no such file; data.classes=[...] and data.train_images, "
            "data.val_images or data.val_share say the same"
        )
    try:
        content = yaml.safe_load(read_regular(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: is not yaml: {reason}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: keys and values are needed, among them names, train and val")
    return content


def names_in_yaml(path: Path) -> tuple[str, ...]:
    """`names` of a yaml file, a list or a mapping of 0 to K - 1. Raises DataError."""
    names = read_yaml(path).get("names")
    if isinstance(names, dict):
        numbers = sorted(names, key=str)
        if set(numbers) != set(range(len(names))):
            raise DataError(
                f"{path}: names has the numbers {short(numbers)}, 0, 1, 2, ... are needed"
            )
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list) or not names:
        raise DataError(f"{path}: names is {short(names)}, a list of class names is needed")
    for i, name in enumerate(names):
        if not isinstance(name, str):  # yaml reads the words no and 1 as something else
            raise DataError(f"{path}: names[{i}] is {short(name)}, text is needed (in quotes)")
        if name in names[:i]:
            raise DataError(f"{path}: names[{i}] is {name!r}, as another class is")
    return tuple(names)


def places_in_yaml(path: Path, split: Split) -> list[str]:
    """The images of a split as a yaml file has them: folders, or text files that list names.

    Each is below the root. Raises DataError.
    """
    value = read_yaml(path).get(split)
    names = value if isinstance(value, list) else [value]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise DataError(
            f"{path}: {split} is {short(value)}, the name of an image folder, several, or a text "
            f"file is needed there or as data.{split}_images"
        )
    return [_inside(path, split, str(name)) for name in names]


def _inside(path: Path, split: Split, name: str) -> str:
    # Roboflow writes ../train/images for what lies in train/images beside the file.
    relative = PurePosixPath(name.removeprefix("../"))
    if relative.is_absolute() or ".." in relative.parts or "\\" in name or "\0" in name:
        raise DataError(f"{path}: {split} is {name!r}, which leads out; data.{split}_images= may")
    return str(relative)


def labels_beside(images: str) -> str:
    """Where the labels of a folder of images lie unless it is said; see `YoloReader`."""
    parts = list(PurePosixPath(images).parts)
    for i in reversed(range(len(parts))):
        if parts[i] == "images":
            return str(PurePosixPath(*parts[:i], "labels", *parts[i + 1 :]))
    return images


def label_files(folder: Path, names: list[str], labels: Path, key: str) -> dict[str, Path | None]:
    """Image name -> its file of labels, None where there is none. Raises DataError.

    key: what sets the folder of labels. Also raised where two images would share a file, and where
    there is not a single one, which is a wrong folder.
    """
    owner_of: dict[str, str] = {}
    for name in names:
        stem = str(Path(name).with_suffix(".txt"))
        if stem in owner_of:
            raise DataError(f"{folder}: {owner_of[stem]} and {name} would share the labels {stem}")
        owner_of[stem] = name
    existing = {str(path.relative_to(labels)) for path in labels.rglob("*.txt")} & set(owner_of)
    if not existing:
        raise DataError(f"{key}={labels}: holds no file of labels for any of {len(names)} images")
    require_files(labels, sorted(existing), str(labels))
    return {name: labels / stem if stem in existing else None for stem, name in owner_of.items()}


def listed_label_files(root: Path, names: list[str], key: str) -> dict[str, Path | None]:
    """As `label_files`, for images anywhere below the root: each has its labels beside it."""
    owner_of: dict[str, str] = {}
    for name in names:
        stem = labels_beside(str(Path(name).with_suffix(".txt")))
        if stem in owner_of:
            raise DataError(f"{root}: {owner_of[stem]} and {name} would share the labels {stem}")
        owner_of[stem] = name
    known = Names(root)
    existing = {stem for stem in owner_of if stem in known}
    if not existing:
        raise DataError(
            f"{key}: {root} holds no file of labels for any of {len(names)} images, such as "
            f"{next(iter(owner_of))}"
        )
    require_files(root, sorted(existing), str(root))
    return {name: root / stem if stem in existing else None for stem, name in owner_of.items()}


def read_set(
    folder: Path,
    files: dict[str, Path | None],
    classes: Sequence[str],
    *,
    polygons: Polygons = "error",
    scores: Scores = "error",
    handling: Handling | None = None,
    account: Account | None = None,
) -> Annotations:
    """The annotations of images with their files of labels. Raises DataError naming file and line.

    Of each image the header is read, since labels are relative to its size. account: of what was
    met so far.
    """
    handling, account = handling or Handling(), account or Account()
    rows = Rows()
    for index, name in enumerate(files):
        rows.image_ids.append(index + 1)
        rows.file_names.append(name)
        rows.sizes.append((1, 1))
        rows.files.append(str(files[name] or folder))
    account.given["image"] += len(rows.image_ids)
    check_images(rows, folder, account, handling, str(folder), range(len(rows.sizes)))
    del account.rules[NO_SIZE]  # the form of these labels, and no other
    numbers = []
    for index, file in enumerate(files.values()):
        height, width = rows.sizes[index]
        found = read_labels(file, len(classes), polygons, scores, account) if file else ()
        for label, x, y, w, h in found:
            rows.owners.append(index)
            rows.xywh.append(((x - w / 2) * width, (y - h / 2) * height, w * width, h * height))
            rows.labels.append(label)
            rows.crowd.append(False)
            rows.areas.append(w * width * h * height)
            rows.ids.append(len(rows.ids) + 1)
            numbers.append((x * width, y * height, w * width, h * height))
    warn_of_corners(numbers, rows, account)
    categories = dict(enumerate(classes))
    return pack(rows, source=str(folder), categories=categories, handling=handling, account=account)


def warn_of_corners(
    numbers: list[tuple[float, float, float, float]], rows: Rows, account: Account
) -> None:
    """A warning where the four numbers are corners. numbers: in pixels, as the lines have them."""
    values = np.array(numbers, np.float64).reshape(-1, 4)
    sizes = np.array([rows.sizes[i] for i in rows.owners], np.int32).reshape(-1, 2)
    # What leaves the image as centre and sides is asked for, so the sides are moved to the centre.
    if (warning := as_corners(values, sizes, centred=True)) is not None:
        account.warnings.append(warning)


def read_labels(
    path: Path, num_classes: int, polygons: Polygons, scores: Scores, account: Account
) -> list[Object]:
    """The objects of a file; what is wrong with others is in the account."""
    try:
        lines = read_regular(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        account.given["file"] += 1
        account.leave_out(NO_TEXT, f"{path}: is not UTF-8, at byte {error.start}")
        return []
    line_of: dict[Object, int] = {}
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        account.given["object"] += 1
        try:
            found = parse(text.split(), num_classes, polygons, scores)
        except _Unusable as fault:
            account.leave_out(fault.kind, f"{path}: line {number}: {fault}", label=fault.label)
            continue
        if found in line_of:
            twin = f"{path}: line {number}: repeats line {line_of[found]}"
            account.leave_out(TWIN, twin, label=found[0])
        else:
            line_of[found] = number
    return list(line_of)


class _Unusable(ValueError):
    """A line that cannot be used, of a kind. label: its class, where it has one."""

    def __init__(self, message: str, kind: Kind = LINE, label: int | None = None) -> None:
        super().__init__(message)
        self.kind, self.label = kind, label


def parse(
    words: list[str], num_classes: int, polygons: Polygons, scores: Scores = "error"
) -> Object:
    """The object of a line. Raises _Unusable saying what is allowed."""
    if len(words) == 6 and scores == "ignore":
        words = words[:5]
    is_polygon = len(words) >= 7 and len(words) % 2 == 1
    if len(words) != 5 and not (is_polygon and polygons == "box"):
        kind = POLYGON if is_polygon else SCORE if len(words) == 6 else LINE
        keys = ", ".join(KEYS)
        raise _Unusable(f"has {len(words)} fields, class, {keys} are needed", kind)
    keys = KEYS if len(words) == 5 else [f"number {i}" for i in range(2, len(words) + 1)]
    label = _number(words[0], "class")
    if label not in range(num_classes):
        raise _Unusable(
            f"class is {words[0]!r}, 0 to {num_classes - 1} in whole numbers is allowed"
        )
    values = [_number(word, key) for word, key in zip(words[1:], keys, strict=True)]
    if len(words) > 5:
        values = around(values)
    x, y, w, h = values
    found = int(label), x, y, w, h
    if (reason := invalid(found)) is not None:
        raise _Unusable(reason, NO_SHARE, int(label))
    return found


def around(points: list[float]) -> list[float]:
    """Centre and sides of the box around a polygon x, y, x, y, ...; nan where a number is one."""
    if any(value != value for value in points):
        return [float("nan")] * 4
    (left, right), (top, bottom) = ((min(p), max(p)) for p in (points[::2], points[1::2]))
    return [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]


def invalid(found: Object) -> str | None:
    """Why a box is of no use, or None.

    A number may leave 0 to 1 by what was rounded or cut away: how much of the box has to lie in its
    image is for `pack`.
    """
    for key, value in zip(KEYS, found[1:], strict=True):
        if not 1 - MAX_SHARE <= value <= MAX_SHARE or (value < 0 and key in ("width", "height")):
            return f"{key} is {value:g}, 0 to 1 is allowed: a share of the image, not pixels"
        if value == 0 and key in ("width", "height"):
            return f"{key} is 0, above 0 is needed"
    return None


def _number(word: str, key: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise _Unusable(f"{key} is {word[:40]!r}, not a number") from None
