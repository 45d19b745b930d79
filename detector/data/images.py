"""Image files: which may be opened, and their pixels.

A data set is somebody else's: a name in it may not lead out of the folder of its images, and a
small file may not fill the memory.
"""

from __future__ import annotations

import math
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from detector.data.annotations import Annotations
from detector.data.handling import AS_STORED, Decoding, Handling
from detector.data.inside import open_inside
from detector.data.readers.base import Dataset
from detector.errors import DataError

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "AVIF", "GIF")
"""What is decoded. Pillow knows dozens more, some of them old code that nobody feeds by intent."""

SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".bmp", ".dib", ".webp"),
    *(".tif", ".tiff", ".avif", ".gif"),
)
"""What the names of image files end in, small letters or large."""

UNREAD_SUFFIXES = (
    *(".heic", ".heif", ".hif", ".jp2", ".j2k", ".jxl", ".dcm", ".nii", ".npy", ".exr", ".hdr"),
    *(".ppm", ".pgm", ".pnm", ".tga", ".ico", ".psd", ".svg", ".dng", ".cr2", ".nef", ".arw"),
    *(".raw", ".mp4", ".avi", ".mov", ".mkv"),
)
"""What the names of files end in that hold images, or films, which are not read."""

PILLOW_LIMIT = 178.0
"""Megapixels where Pillow's own guard ends: above, it refuses whatever it is asked."""

GUARD = Lock()
"""Pillow's guard is a number of the whole process: one thread at a time may open without it."""

ORIENTATION = 0x0112
"""EXIF's tag of how an image is to be turned; 1 is upright."""

WIDE_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
"""Pillow's names of pixels with more than 8 bits; turned into RGB, all above 255 would be white."""

MAX_NAMED = 10
"""Missing files that one message names."""


class FolderDataset(Dataset):
    """Images that lie under a folder. handling: how they are read."""

    def __init__(
        self, name: str, annotations: Annotations, folder: Path, handling: Handling
    ) -> None:
        super().__init__(name, annotations)
        self.folder, self._handling = folder, handling

    @property
    def handling(self) -> Handling:
        return self._handling

    def image(self, index: int) -> NDArray[np.uint8]:
        height, width = self.annotations.sizes[index].tolist()
        return read_inside(
            self.folder,
            self.annotations.file_name(index),
            self.handling.max_megapixels,
            annotated=(height, width),
            how=self.handling.decoding,
        )

    def files(self) -> list[Path]:
        return [self.folder / self.annotations.file_name(i) for i in range(len(self))]


def read_pixels(
    path: Path,
    max_megapixels: float,
    *,
    annotated: tuple[int, int] | None = None,
    how: Decoding = AS_STORED,
    key: str = "data.max_megapixels",
) -> NDArray[np.uint8]:
    """(H, W, 3) RGB pixels of a file; grey and palettes are converted, transparency is dropped.

    how: what is done about a turn by EXIF and about more than 8 bits. A file of another size than
    `annotated` as (height, width), once it is turned, is refused. key: what sets the limit. Raises
    DataError naming the file.
    """
    with opened(path, max_megapixels) as image:
        return pixels_of(image, str(path), max_megapixels, annotated=annotated, how=how, key=key)


def read_inside(
    folder: Path,
    name: str,
    max_megapixels: float,
    *,
    annotated: tuple[int, int] | None = None,
    how: Decoding = AS_STORED,
    key: str = "data.max_megapixels",
) -> NDArray[np.uint8]:
    """`read_pixels` of a file of a folder, for names that are somebody else's.

    Raises DataError naming the file, also where the name leads out of the folder.
    """
    path, why = str(folder / name), _refuse(name)
    if why is not None:
        raise DataError(f"{folder}: file name {name!r} {why}")
    with (
        readable(path),
        open_inside(folder, name) as file,
        opened(file, max_megapixels, path) as image,
    ):
        return pixels_of(image, path, max_megapixels, annotated=annotated, how=how, key=key)


def pixels_of(
    image: Image.Image,
    name: str,
    max_megapixels: float,
    *,
    annotated: tuple[int, int] | None = None,
    how: Decoding = AS_STORED,
    key: str = "data.max_megapixels",
) -> NDArray[np.uint8]:
    """What `read_pixels` gives for a file, for an image that Pillow has opened already.

    name: how messages call it. Raises DataError.
    """
    with readable(name):
        refuse_size(name, image.height, image.width, max_megapixels, key)
        turn = orientation(image)
        if turn != 1 and how.exif == "error":
            raise DataError(f"{name}: {turned_in_words(turn)}; {EXIF_WAY}")
        if image.mode in WIDE_MODES and how.depth is None:
            raise DataError(f"{name}: {wide_in_words(image.mode)}; {DEPTH_WAY}")
        if turn != 1 and how.exif == "upright":
            image = ImageOps.exif_transpose(image)
        if annotated is not None and (image.height, image.width) != annotated:
            raise DataError(
                f"{name}: {image.width} x {image.height} pixels (width x height), "
                f"but annotated as {annotated[1]} x {annotated[0]}"
            )
        if how.depth is not None and image.mode in WIDE_MODES:
            return scaled(np.asarray(image), how.depth)
        return np.array(image.convert("RGB"))


def scaled(values: NDArray[Any], depth: tuple[float, float]) -> NDArray[np.uint8]:
    """(H, W, 3) grey of (H, W) values, the lowest of `depth` as 0 and the highest as 255.

    What is no number, as some cameras write a dead pixel, counts as the lowest.
    """
    low, high = depth
    shares = np.clip(np.nan_to_num(values.astype(np.float64), nan=low) - low, 0, high - low)
    return np.repeat(np.rint(shares * (255 / (high - low))).astype(np.uint8)[..., None], 3, axis=2)


EXIF_WAY = "data.exif=stored takes such images as they are stored, upright as they are shown"
DEPTH_WAY = (
    "data.depth=[lowest,highest] says which values become black and white, "
    "[0,65535] for the whole range of 16 bits"
)
"""What lets one go on."""


def turned_in_words(turn: int) -> str:
    return (
        f"is turned by EXIF (orientation {turn}), so that its boxes may be of the image as stored "
        "or as shown"
    )


def wide_in_words(mode: str) -> str:
    return f"has pixels of more than 8 bits (mode {mode}), whose range is not known"


def refuse_size(name: str, height: int, width: int, max_megapixels: float, key: str) -> None:
    """Raises DataError where an image has more pixels than are allowed."""
    if height * width > max_megapixels * 1e6:
        raise DataError(
            f"{name}: {width} x {height} pixels, {key}={max_megapixels:g} are allowed; "
            f"{key}={math.ceil(height * width / 1e6)} reads it"
        )


def orientation(image: Image.Image) -> int:
    """1 to 8, how EXIF says that an opened image is to be turned; 1 is upright."""
    if image.format == "TIFF":  # turned by Pillow as it is decoded
        return 1
    exif = Image.Exif()
    # Not `getexif`, which would decode a whole PNG in search of it.
    with suppress(Exception):  # a damaged tag turns nothing; viewers pass over it too
        exif.load(image.info.get("exif", b""))
    turn = exif.get(ORIENTATION, 1)
    return turn if turn in range(2, 9) else 1


@contextmanager
def opened(
    path: Path | BinaryIO, max_megapixels: float = PILLOW_LIMIT, name: str | None = None
) -> Iterator[Image.Image]:
    """The image of a file, its pixels not yet decoded. Raises DataError naming the file.

    name: of one that is open already.
    """
    with readable(name or str(path)):
        image = _open_unguarded(path) if max_megapixels > PILLOW_LIMIT else _open(path)
        with image:
            if image.format == "GIF" and getattr(image, "n_frames", 1) > 1:
                raise DataError(f"{name or path}: holds {image.n_frames} images, one is needed")  # type: ignore[attr-defined]
            yield image


def _open(path: Path | BinaryIO) -> Image.Image:
    return Image.open(path, formats=FORMATS)


def _open_unguarded(path: Path | BinaryIO) -> Image.Image:
    """As `_open`, also where Pillow would refuse for the number of pixels: that is checked here."""
    with GUARD:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return _open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Raises DataError with the name of an image for whatever Pillow finds wrong with it."""
    try:
        yield
    except (DataError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        pixels = re.search(r"\((\d+) pixels\)", str(error))
        number = f"{math.ceil(int(pixels[1]) / 1e6)}" if pixels else "N"
        raise DataError(
            f"{name}: has {number} megapixels, more than are read unless it is asked for; "
            f"max_megapixels={number} reads it"
        ) from None
    # Pillow's decoders raise many kinds for damaged files (OSError, SyntaxError, ValueError, ...).
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{name}: cannot be read as an image: {reason}") from None


def list_images(folder: Path) -> list[str]:
    """Names, relative to a folder, of the image files in it and its subfolders, sorted.

    Known by their suffix. What begins with a dot is passed over: thumbnails, and the files that
    macOS leaves beside others.
    """
    paths = (path.relative_to(folder) for path in folder.rglob("*"))
    return sorted(
        str(path)
        for path in paths
        if path.suffix.lower() in SUFFIXES and not any(part[0] == "." for part in path.parts)
    )


def require_folder(path: Path, key: str) -> Path:
    """The folder. Raises DataError naming the config's key, such as "data.root"."""
    if not path.is_dir():
        raise DataError(f"{key}={path}: there is no such folder")
    return path


def require_files(folder: Path, names: Iterable[str], source: str) -> None:
    """Raises DataError unless every name is an existing file that lies in the folder."""
    missing = missing_files(folder, names, source)
    if missing:
        more = f" and {len(missing) - MAX_NAMED} more" if len(missing) > MAX_NAMED else ""
        some = ", ".join(missing[:MAX_NAMED])
        raise DataError(f"{source}: {len(missing)} files are not in {folder}: {some}{more}")


def missing_files(folder: Path, names: Iterable[str], source: str) -> list[str]:
    """The names, sorted, of which there is no file in the folder.

    Names may hold subfolders; links are followed before it is decided where a file lies. source:
    the file that states the names. Each folder is listed once: asking for each of 100,000 files
    would take minutes on a network drive. Raises DataError for a name that leads out.
    """
    names = list(names)
    refused = [f"{source}: file name {name!r} {why}" for name in names if (why := _refuse(name))]
    if refused:
        raise DataError("\n".join(refused))
    root = Path(os.path.realpath(folder))
    parents: dict[str, set[str]] = {}
    for name in names:
        parent, base = os.path.split(name)
        parents.setdefault(parent, set()).add(base)
    outside = [name for parent, bases in parents.items() for name in _outside(root, parent, bases)]
    if outside:
        lines = [
            f"{source}: file name {name!r} leads out of {folder}; a copy inside is needed"
            for name in outside
        ]
        raise DataError("\n".join(lines))
    gone = [name for parent, bases in parents.items() for name in _missing(root, parent, bases)]
    return sorted(gone)


class Names:
    """The names of the files in a folder and its subfolders, each listed once when it is asked for.

    Names are compared as text alone; none of them is opened.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._listed: dict[str, tuple[set[str], dict[str, list[str]], dict[str, list[str]]]] = {}

    def __contains__(self, name: str) -> bool:
        parent, base = os.path.split(name)
        return _refuse(name) is None and base in self._of(parent)[0]

    def meant(self, name: str) -> str:
        """The name of the file that a name means: itself, or its only twin in another form of
        Unicode."""
        parent, base = os.path.split(name)
        if base.isascii() or _refuse(name):
            return name
        twins = self._of(parent)[1].get(unicodedata.normalize("NFC", base), [])
        return os.path.join(parent, twins[0]) if base not in twins and len(twins) == 1 else name

    def of_stem(self, name: str) -> str | None:
        """The only image whose name differs in its suffix alone, where there is no such file."""
        if _refuse(name) or name in self:
            return None
        parent, base = os.path.split(name)
        twins = self._of(parent)[2]
        stem = base if Path(base).suffix.lower() not in SUFFIXES else Path(base).stem
        found = twins.get(stem, [])
        return os.path.join(parent, found[0]) if len(found) == 1 else None

    def _of(self, parent: str) -> tuple[set[str], dict[str, list[str]], dict[str, list[str]]]:
        """The entries of a folder, by name, by composed form, and images by stem."""
        if parent not in self._listed:
            entries = _listing(self.folder / parent)
            by_form: dict[str, list[str]] = {}
            by_stem: dict[str, list[str]] = {}
            for entry in entries:
                by_form.setdefault(unicodedata.normalize("NFC", entry), []).append(entry)
                if Path(entry).suffix.lower() in SUFFIXES:
                    by_stem.setdefault(Path(entry).stem, []).append(entry)
            self._listed[parent] = (set(entries), by_form, by_stem)
        return self._listed[parent]


def may_be_opened(folder: Path, name: str) -> bool:
    """Whether a name is that of a file which lies in the folder, links followed."""
    path = folder / name
    return _refuse(name) is None and path.is_file() and _is_under(_real(folder), path)


def _real(folder: Path) -> Path:
    return Path(os.path.realpath(folder))


def _refuse(name: str) -> str | None:
    """Why no file may have this name, or None."""
    if "\0" in name or "\\" in name:
        return "holds a NUL or a backslash"
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", name):
        return "is an address, a file below the image folder is needed"
    if name.startswith("/"):
        return "is absolute, it has to be relative to the image folder"
    if os.path.basename(name) in ("", ".", ".."):
        return "names no file"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "is not valid text"
    return None


def _outside(root: Path, parent: str, bases: set[str]) -> list[str]:
    """The names in a folder that lie elsewhere than under root."""
    if not _is_under(root, root / parent):
        return sorted(os.path.join(parent, base) for base in bases)
    links = {base for base, is_link in _listing(root / parent).items() if is_link}
    hostile = [b for b in sorted(bases & links) if not _is_under(root, root / parent / b)]
    return [os.path.join(parent, base) for base in hostile]


def _missing(root: Path, parent: str, bases: set[str]) -> list[str]:
    present = _listing(root / parent)
    return [os.path.join(parent, base) for base in bases if base not in present]


def _listing(folder: Path) -> dict[str, bool]:
    """Entry -> is it a link. Empty where there is no such folder."""
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as entries:
        return {entry.name: entry.is_symlink() for entry in entries}


def _is_under(root: Path, path: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(root)
