"""Image files: which may be opened, and their pixels.

A data set is somebody else's: a name in it may not lead out of the folder of its images, and a
small file may not fill the memory.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detector.data.annotations import Annotations
from detector.data.readers.base import Dataset
from detector.errors import DataError
from detector.schema import require

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")
"""What is decoded. Pillow knows dozens more, some of them old code that nobody feeds by intent."""

MAX_MEGAPIXELS = 178.0
"""Where Pillow's own guard ends: above, it refuses whatever it is asked."""

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
    """(height, width, 3) RGB pixels of a file; grey and palettes are converted.

    A rotation in EXIF is not applied: annotations of COCO and VOC are of the pixels as stored. A
    file of another size than annotated, which a rotated one would have, is refused; so is one of 16
    bits a channel or of floating-point numbers, whose range is not known.
    Raises DataError naming the file.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > max_megapixels * 1e6:
                raise DataError(
                    f"{path}: {image.width} x {image.height} pixels, "
                    f"data.max_megapixels={max_megapixels:g} are allowed"
                )
            if (image.width, image.height) != (width, height):
                raise DataError(
                    f"{path}: {image.width} x {image.height} pixels (width x height), "
                    f"but annotated as {width} x {height}"
                )
            if image.mode in WIDE_MODES:
                raise DataError(
                    f"{path}: has pixels of more than 8 bits (mode {image.mode}); convert it to 8"
                )
            return np.array(image.convert("RGB"))
    except (DataError, MemoryError):
        raise
    # Pillow's decoders raise many kinds for damaged files (OSError, SyntaxError, ValueError, ...).
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: cannot be read as an image: {reason}") from None


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
