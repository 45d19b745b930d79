"""Image files: which may be opened, and their pixels.

A data set is somebody else's: a name in it may not lead out of the folder of its images, and a
small file may not fill the memory.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detector.config.schema import require
from detector.data.annotations import Annotations
from detector.data.readers.base import Dataset
from detector.errors import DataError

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")
"""What is decoded. Pillow knows dozens more, some of them old code that nobody feeds by intent."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
"""What the names of image files end in, small letters or large."""

MAX_MEGAPIXELS = 178.0
"""Where Pillow's own guard ends: above, it refuses whatever it is asked."""

ORIENTATION = 0x0112
"""EXIF's tag of how an image is to be turned; 1 is upright."""

WIDE_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
"""Pillow's names of pixels with more than 8 bits; turned into RGB, all above 255 would be white."""

MAX_NAMED = 10
"""Missing files that one message names."""


class FolderDataset(Dataset):
    """Images that lie under a folder. max_megapixels: what an image may have at most."""

    def __init__(
        self, name: str, annotations: Annotations, folder: Path, max_megapixels: float
    ) -> None:
        super().__init__(name, annotations)
        self.folder, self.max_megapixels = folder, max_megapixels

    def image(self, index: int) -> NDArray[np.uint8]:
        path = self.folder / self.annotations.file_name(index)
        height, width = self.annotations.sizes[index].tolist()
        return read_image(path, height, width, self.max_megapixels)


def read_image(path: Path, height: int, width: int, max_megapixels: float) -> NDArray[np.uint8]:
    """`read_pixels` of a file that is annotated as (height, width).

    A file of another size, which one that was turned upright would have, is refused.
    Raises DataError naming the file.
    """
    return read_pixels(path, max_megapixels, annotated=(height, width))


def read_pixels(
    path: Path,
    max_megapixels: float,
    *,
    annotated: tuple[int, int] | None = None,
    key: str = "data.max_megapixels",
) -> NDArray[np.uint8]:
    """(H, W, 3) RGB pixels of a file; grey and palettes are converted, transparency is dropped.

    A rotation in EXIF is not applied: annotations of COCO and VOC are of the pixels as stored. A
    file of 16 bits a channel or of floating-point numbers is refused, since their range is not
    known; so is one of another size than `annotated` as (height, width). key: what sets the limit.
    Raises DataError naming the file.
    """
    with _opened(path) as image:
        return pixels_of(image, str(path), max_megapixels, annotated=annotated, key=key)


def pixels_of(
    image: Image.Image,
    name: str,
    max_megapixels: float,
    *,
    annotated: tuple[int, int] | None = None,
    key: str = "data.max_megapixels",
) -> NDArray[np.uint8]:
    """What `read_pixels` gives for a file, for an image that Pillow has opened already.

    name: how messages call it. Raises DataError.
    """
    with _readable(name):
        if image.width * image.height > max_megapixels * 1e6:
            raise DataError(
                f"{name}: {image.width} x {image.height} pixels, "
                f"{key}={max_megapixels:g} are allowed"
            )
        if annotated is not None and (image.height, image.width) != annotated:
            raise DataError(
                f"{name}: {image.width} x {image.height} pixels (width x height), "
                f"but annotated as {annotated[1]} x {annotated[0]}"
            )
        if image.mode in WIDE_MODES:
            raise DataError(
                f"{name}: has pixels of more than 8 bits (mode {image.mode}); convert it to 8"
            )
        return np.array(image.convert("RGB"))


def read_size(path: Path) -> tuple[int, int]:
    """(height, width) from the header of a file whose annotations are relative to its size.

    A rotation in EXIF is refused: whether such annotations are of the image as stored or as shown
    cannot be seen from them. Raises DataError naming the file.
    """
    with _opened(path) as image:
        exif = Image.Exif()
        # Not `getexif`, which would decode a whole PNG in search of it. TIFF is turned by Pillow.
        exif.load(image.info.get("exif", b""))
        orientation = exif.get(ORIENTATION, 1)
        if image.format != "TIFF" and orientation in range(2, 9):
            raise DataError(
                f"{path}: is rotated by EXIF (orientation {orientation}), so that its labels may "
                "be of the image as stored or as shown; store it upright"
            )
        return image.height, image.width


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The image of a file, its pixels not yet decoded. Raises DataError naming the file."""
    with _readable(str(path)), Image.open(path, formats=FORMATS) as image:
        yield image


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Raises DataError with the name of an image for whatever Pillow finds wrong with it."""
    try:
        yield
    except (DataError, MemoryError):
        raise
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


def require_megapixels(value: float) -> None:
    """Raises ConfigError for a limit that cannot hold."""
    require(
        0 < value <= MAX_MEGAPIXELS,
        f"max_megapixels: {value} given, above 0 and at most {MAX_MEGAPIXELS:g} is allowed",
    )


def require_folder(path: Path, key: str) -> Path:
    """The folder. Raises DataError naming the config's key, such as "data.root"."""
    if not path.is_dir():
        raise DataError(f"{key}={path}: there is no such folder")
    return path


def require_files(folder: Path, names: Iterable[str], source: str) -> None:
    """Raises DataError unless every name is an existing file that lies in the folder.

    Names may hold subfolders; links are followed before it is decided where a file lies. source:
    the file that states the names. Each folder is listed once: asking for each of 100,000 files
    would take minutes on a network drive.
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
        lines = [f"{source}: file name {name!r} leads out of {folder}" for name in outside]
        raise DataError("\n".join(lines))
    missing = [name for parent, bases in parents.items() for name in _missing(root, parent, bases)]
    if missing:
        more = f" and {len(missing) - MAX_NAMED} more" if len(missing) > MAX_NAMED else ""
        some = ", ".join(sorted(missing)[:MAX_NAMED])
        raise DataError(f"{source}: {len(missing)} files are not in {folder}: {some}{more}")


def same_name(folder: Path, name: str) -> str:
    """The name of the file that a name means: itself, or its only twin in another form of Unicode.

    Names are compared as text alone; none of them is opened.
    """
    parent, base = os.path.split(name)
    if base.isascii() or _refuse(name):
        return name
    present = _names_by_form(folder / parent)
    twins = present.get(unicodedata.normalize("NFC", base), [])
    return os.path.join(parent, twins[0]) if base not in twins and len(twins) == 1 else name


@lru_cache(maxsize=64)
def _names_by_form(folder: Path) -> dict[str, list[str]]:
    """The entries of a folder by their composed form."""
    found: dict[str, list[str]] = {}
    for name in _listing(folder):
        found.setdefault(unicodedata.normalize("NFC", name), []).append(name)
    return found


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
