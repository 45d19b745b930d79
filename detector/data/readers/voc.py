"""Pascal VOC XML. Everingham et al. 2010, IJCV 88(2); the layout of its development kit."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Unpack
from xml.etree import ElementTree

from detector.config.registry import DATASETS
from detector.config.schema import require
from detector.data.account import OF_LEFT_OUT_IMAGES, TWIN, Account, Kind, LeftOut
from detector.data.annotations import Rows, pack
from detector.data.handling import Handling, HandlingOptions
from detector.data.headers import check_images
from detector.data.images import SUFFIXES, FolderDataset, Names, missing_files, require_folder
from detector.data.readers.base import SPLITS, Split
from detector.data.readers.folders import FolderReader
from detector.errors import DataError
from detector.evaluation.canonical import read_regular

Object = tuple[str, tuple[float, float, float, float], bool]
"""Class, (xmin, ymin, xmax, ymax) as the file states them, difficult."""

NO_XML = Kind("image", "whose file of annotations is not there", "on_missing")
BAD_XML = Kind("image", "whose file of annotations cannot be read")
BAD_OBJECT = Kind("object", "whose entry cannot be read")
OTHER_CLASS = Kind("object", "of a class that is not in data.classes")
NOT_IN_LIST = Kind("image", "marked with -1 in the list: without the class it is of", None)

SEVERAL_BOXES = "boxes stand beside others in one <object>: each is an object"
NO_SUFFIX = "images have another suffix than <filename>: the only file of that stem is taken"


@dataclass
class Page:
    """What an XML file states. file_name: of the image. size: (height, width), None where the file
    has none. faults: of objects that cannot be read, with their kinds. given: boxes, or objects
    without one. several: boxes that share an object with others."""

    file_name: str
    size: tuple[int, int] | None
    objects: list[Object] = field(default_factory=list)
    faults: list[tuple[Kind, str]] = field(default_factory=list)
    given: int = 0
    several: int = 0


@DATASETS.register("voc")
class VocReader(FolderReader):
    """root: holds Annotations, JPEGImages and ImageSets/Main.

    train_split, val_split, test_split: names of lists in ImageSets/Main, without ".txt". In the
    lists of one class, images marked with -1 are left out. With val_share and without lists, all
    files in Annotations are taken. classes: their names in order; null: all that occur in train or
    val, sorted. ignore_difficult: objects marked difficult are neutral, as crowds are; otherwise
    they are objects like any other. (VOC's own score leaves them out; COCO's, which we use, knows
    only crowds.) The other keys are those of `Handling`.

    Image ids are 1, 2, ... in the order of the list, annotation ids 1, 2, ... in that of the files.
    A box covers its corner pixels, counted from 1: x1 = xmin - 1, y1 = ymin - 1, x2 = xmax,
    y2 = ymax; one with xmin >= xmax or ymin >= ymax in the file has no area. `<path>` is not read.
    """

    def __init__(
        self,
        *,
        root: str,
        train_split: str = "train",
        val_split: str = "val",
        test_split: str = "test",
        classes: tuple[str, ...] | None = None,
        ignore_difficult: bool = False,
        **handling: Unpack[HandlingOptions],
    ) -> None:
        super().__init__(Handling(**handling))
        require(
            classes is None or (len(classes) > 0 and len(set(classes)) == len(classes)),
            f"classes: {list(classes or [])} given, different names or null are needed",
        )
        self.root = Path(root).expanduser()
        self.lists = {"train": train_split, "val": val_split, "test": test_split}
        self._pages: dict[str, dict[str, Page | tuple[Kind, str]]] = {}
        self.given_classes = classes
        self.ignore_difficult = ignore_difficult

    def read_source(self, split: Split) -> FolderDataset:
        classes = self.classes
        source = str(self.source(split))
        rows, account = Rows(), Account()
        account.left_out += self.names(split)[1]
        account.given["image"] += sum(one.count for one in account.left_out)
        folder = require_folder(self.root / "JPEGImages", "data.root: JPEGImages")
        unsized = self._add_all(split, rows, account, classes, Names(folder))
        check_images(rows, folder, account, self.handling, source, unsized)
        annotations = pack(
            rows,
            source=source,
            categories=dict(enumerate(classes, 1)),
            handling=self.handling,
            account=account,
        )
        return FolderDataset(source, annotations, folder, self.handling)

    @cached_property
    def splits(self) -> tuple[Split, ...]:
        """Those that are read: where val is drawn, it has no list."""
        return ("train",) if self.handling.val_share is not None else SPLITS

    def pages(self, split: Split) -> dict[str, Page | tuple[Kind, str]]:
        """Name in the list -> what its XML file states, or why it cannot be read; read once."""
        if split in self._pages:
            return self._pages[split]
        require_folder(self.root, "data.root")
        folder = require_folder(self.root / "Annotations", "data.root: Annotations")
        names, source = self.names(split)[0], str(self.source(split))
        gone = set(missing_files(folder, [f"{name}.xml" for name in names], source))
        pages: dict[str, Page | tuple[Kind, str]] = {}
        for name in names:
            file = folder / f"{name}.xml"
            if f"{name}.xml" in gone:
                pages[name] = NO_XML, f"{source}: image {name}: there is no file {file}"
                continue
            try:
                pages[name] = read_page(file, name)
            except DataError as error:
                pages[name] = BAD_XML, str(error)
        self._pages[split] = pages
        return pages

    @cached_property
    def classes(self) -> tuple[str, ...]:
        known = self.given_classes or self.known_classes
        if known is not None:
            return known
        pages = [page for split in self.splits for page in self.pages(split).values()]
        read = [page for page in pages if isinstance(page, Page)]
        classes = tuple(sorted({name for page in read for name, _, _ in page.objects}))
        if not classes:
            faults = [page[1] for page in pages if not isinstance(page, Page)]
            why = f" ({faults[0]})" if faults else ""
            raise DataError(f"{self.root}: no objects{why}, and data.classes is null")
        return classes

    def source(self, split: Split) -> Path:
        """What states the images of a split: its list, or the folder where val is drawn."""
        file = self.root / "ImageSets" / "Main" / f"{self.lists[split]}.txt"
        if self.handling.val_share is not None and split != "test" and not file.is_file():
            return self.root / "Annotations"
        return file

    def names(self, split: Split) -> tuple[list[str], list[LeftOut]]:
        """The images of a split, and what of its list is left out."""
        source = self.source(split)
        if source.is_dir():
            return sorted(path.stem for path in source.glob("*.xml")), []
        if not source.is_file() and not source.parent.is_dir():
            raise DataError(
                f"data.{split}_split={source}: there is no such file; data.val_share=0.2 takes all "
                "files in Annotations and draws a fifth of them for val"
            )
        account = Account()
        names = read_list(source, f"data.{split}_split", account)
        known = Names(self.root / "Annotations")
        return [_bare(name, known) for name in names], account.left_out

    def _add_all(
        self, split: Split, rows: Rows, account: Account, classes: tuple[str, ...], known: Names
    ) -> list[int]:
        """Adds the images of a split and their objects; indices of images without a size."""
        unsized: list[int] = []
        annotations = self.root / "Annotations"
        for position, (name, page) in enumerate(self.pages(split).items(), 1):
            account.given["image"] += 1
            if not isinstance(page, Page):
                kind, line = page
                account.leave_out(kind, line)
                lost = objects_in(annotations / f"{name}.xml")
                if lost:
                    account.given["object"] += lost
                    account.leave_out(OF_LEFT_OUT_IMAGES, "", count=lost)
                continue
            image = page.file_name
            if (other := known.of_stem(image)) is not None:
                image = other
                account.rules[NO_SUFFIX] += 1
            if page.several:
                account.rules[SEVERAL_BOXES] += page.several
            if page.size is None:
                unsized.append(len(rows.image_ids))
            file = str(annotations / f"{name}.xml")
            account.given["object"] += page.given
            account.left_out += [LeftOut(kind, line) for kind, line in page.faults]
            self._add_objects(rows, account, file, page, classes)
            rows.image_ids.append(position)
            rows.file_names.append(image)
            rows.sizes.append(page.size or (1, 1))
            rows.files.append(file)
        return unsized

    def _add_objects(
        self, rows: Rows, account: Account, file: str, page: Page, classes: tuple[str, ...]
    ) -> None:
        seen: set[Object] = set()
        for found in page.objects:
            name, (x_min, y_min, x_max, y_max), difficult = found
            if name not in classes:
                known = ", ".join(classes)
                words = f"{file}: class {name!r} is not one of data.classes: {known}"
                account.leave_out(OTHER_CLASS, words)
                continue
            if found in seen:
                line = f"{file}: image {page.file_name}: {name} {found[1]} is stated twice"
                account.leave_out(TWIN, line)
                continue
            seen.add(found)
            # No area in the file stays none: xmin = xmax would else become one pixel.
            width = x_max - x_min + (x_max > x_min)
            height = y_max - y_min + (y_max > y_min)
            rows.owners.append(len(rows.image_ids))
            rows.xywh.append((x_min - 1, y_min - 1, width, height))
            rows.labels.append(classes.index(name) + 1)
            rows.crowd.append(difficult and self.ignore_difficult)
            rows.areas.append(width * height if width > 0 and height > 0 else 0.0)
            rows.ids.append(len(rows.ids) + 1)


def read_list(path: Path, key: str, account: Account) -> list[str]:
    """The image names of a split, the first word of each line.

    A second word is the mark of a list of one class: -1 for an image without it. Raises DataError
    for a list without names, or with repeated ones.
    """
    if not path.is_file():
        raise DataError(f"{key}={path}: there is no such file")
    try:
        lines = [
            line.strip()
            for line in read_regular(path).decode("utf-8-sig").splitlines()
            if line.strip()
        ]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8, at byte {error.start}") from None
    names: list[str] = []
    for line in lines:
        name, _, mark = line.rpartition(" ")
        if not name or mark not in ("1", "0", "-1"):
            name, mark = line, ""  # a name may hold spaces
        if mark == "-1":
            account.leave_out(NOT_IN_LIST, f"{path}: {name.strip()}")
        else:
            names.append(name.strip())
    if not names:
        raise DataError(f"{path}: no images")
    seen: set[str] = set()
    repeated = sorted({name for name in names if name in seen or seen.add(name)})
    if repeated:
        raise DataError(f"{path}: listed more than once: {', '.join(repeated)}")
    return names


def _bare(name: str, known: Names) -> str:
    """A name of a list without the suffix of an image, where its file of annotations has none."""
    path = Path(name)
    is_image = path.suffix.lower() in SUFFIXES and f"{name}.xml" not in known
    bare = str(path.with_suffix(""))
    return bare if is_image and f"{bare}.xml" in known else name


def read_page(path: Path, name: str) -> Page:
    """The content of an XML file; name: as the list has it. Raises DataError naming the file."""
    try:
        data = read_regular(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise DataError(f"{path}: declares a DOCTYPE, which is refused")
    try:
        root = ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(f"{path}: is not XML: {error}") from None
    suffix = Path(root.findtext("filename") or "").suffix
    image = name + (suffix if suffix.lower() in SUFFIXES else ".jpg")
    page = Page(image, _page_size(path, root))
    for i, node in enumerate(root.iter("object"), 1):
        boxes = node.findall("bndbox")
        page.given += max(1, len(boxes))
        page.several += len(boxes) if len(boxes) > 1 else 0
        for box in boxes or [None]:
            try:
                page.objects.append(_object(path, i, node, box))
            except DataError as error:
                page.faults.append((BAD_OBJECT, str(error)))
    return page


def objects_in(path: Path) -> int:
    """Objects in a file that is not read, as far as its text can tell."""
    try:
        return read_regular(path).count(b"<bndbox>")
    except OSError:
        return 0


def _object(path: Path, number: int, node: Any, box: Any) -> Object:
    place = f"object {number} of the file"
    name = (node.findtext("name") or "").strip()
    if not name:
        raise DataError(f"{path}: {place}: <name> is missing")
    if box is None:
        raise DataError(f"{path}: {place}: <bndbox> is missing")
    x_min, y_min, x_max, y_max = (
        _number(path, box, key, place, "bndbox/") for key in ("xmin", "ymin", "xmax", "ymax")
    )
    difficult = (node.findtext("difficult") or "0").strip()
    if difficult not in ("0", "1"):
        raise DataError(f"{path}: {place}: <difficult> is {difficult!r}, 0 or 1 is allowed")
    return name, (x_min, y_min, x_max, y_max), difficult == "1"


def _number(path: Path, node: Any, key: str, place: str, above: str = "") -> float:
    text = node.findtext(key)
    if text is None:
        raise DataError(f"{path}: {place}: <{above}{key}> is missing")
    try:
        return float(text)
    except ValueError:
        raise DataError(f"{path}: {place}: <{above}{key}> is {text[:40]!r}, not a number") from None


def _page_size(path: Path, root: Any) -> tuple[int, int] | None:
    """(height, width), or None where the file does not know it: both missing, or 0."""
    if root.tag == "annotation" and all(
        (root.findtext(f"size/{key}") or "0").strip() in ("", "0") for key in ("height", "width")
    ):
        return None
    return _size(path, root, "height"), _size(path, root, "width")


def _size(path: Path, root: Any, key: str) -> int:
    value = _number(path, root, f"size/{key}", "image")
    if not 1 <= value <= 1e6 or value != int(value):
        raise DataError(f"{path}: <size/{key}> is {value:g}, whole pixels above 0 are needed")
    return int(value)
