"""What is predicted on: files, folders, patterns, lists of them and the frames of videos."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.config.schema import require
from detector.data.handling import AS_STORED, Decoding
from detector.data.images import FORMATS, MAX_NAMED, SUFFIXES, list_images
from detector.errors import ConfigError, DataError
from detector.inference.preprocess import decode

VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")
"""What the names of videos end in; OpenCV decodes them."""

LISTS = (".txt",)
"""What the name of a file ends in that holds a path a line."""

Sources = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


@dataclass(frozen=True)
class Item:
    """One image to come. name: of what is written of it, relative and its own. path: of its file.
    read: its (H, W, 3) RGB pixels, given the megapixels that are allowed and how files become
    pixels; raises DataError."""

    name: str
    path: Path
    read: Callable[[float, Decoding], NDArray[np.uint8]]


def find(sources: Sources, output: Path) -> list[Item]:
    """The images of files, folders, patterns such as "photos/*.jpg", lists and videos.

    Those below the output are no source. Names are relative to the folder that all share. Raises
    ConfigError for what is none of these, DataError for what holds no image.
    """
    given = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
    require(len(given) > 0, "source: none given, a file, folder or pattern is needed")
    paths = [path for one in given for path in _paths(str(one))]
    paths = list(dict.fromkeys(paths))
    root = common_folder(given, paths)
    drawn = output.resolve()
    if root.resolve() in drawn.parents:  # what an earlier call has drawn
        paths = [path for path in paths if not path.resolve().is_relative_to(drawn)]
    if not paths:
        shown = ", ".join(map(str, given))
        raise DataError(f"source={shown}: holds no images ({', '.join((*SUFFIXES, *VIDEOS))})")
    return [item for path in paths for item in _items(path, os.path.relpath(path, root))]


def common_folder(given: Sequence[Any], paths: Sequence[Path]) -> Path:
    """The folder that names are relative to: the one that was given, else what all share."""
    if len(given) == 1 and (Path(given[0]).is_dir() or not paths):
        return Path(given[0])
    return Path(os.path.commonpath([path.absolute().parent for path in paths]))


def _paths(source: str) -> list[Path]:
    """The files that one source means, in the order of their names or as a list has them."""
    path = Path(source)
    if path.is_file():
        return _listed(path) if path.suffix.lower() in LISTS else [path]
    if path.is_dir():
        videos = [file for file in path.rglob("*") if is_video(file)]
        return sorted([*(path / name for name in list_images(path)), *videos])
    if "://" in source:
        raise ConfigError(f"source: {source} is an address; nothing is fetched, give a file of it")
    if glob.has_magic(source):
        found = sorted(Path(name) for name in glob.glob(source, recursive=True))
        found = [file for file in found if file.suffix.lower() in SUFFIXES or is_video(file)]
        if not found:
            raise DataError(f"source={source}: no image or video has such a name")
        return found
    raise ConfigError(
        f"source: {source} is not a file or a folder; a pattern such as 'photos/*.jpg', a list "
        "[a.jpg,b.jpg] and a .txt with a path a line are allowed too"
    )


def _listed(path: Path) -> list[Path]:
    """The files of a list, relative to its own folder. Raises DataError naming the missing ones."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"source={path}: is not text with a path a line") from None
    files = [path.parent / line.strip() for line in lines if line.strip()]
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        more = f" and {len(missing) - MAX_NAMED} more" if len(missing) > MAX_NAMED else ""
        raise DataError(f"source={path}: not there: {', '.join(missing[:MAX_NAMED])}{more}")
    return files


def is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEOS and not path.name.startswith(".")


def _items(path: Path, name: str) -> Iterator[Item]:
    """One image, or each frame of a video."""
    if not is_video(path):
        yield Item(name, path, lambda most, how: read_image(path, most, how))
        return
    frames = Frames(path)
    for i in range(len(frames)):
        yield Item(f"{name}/{i + 1:06d}.jpg", path, lambda *_, i=i: frames.read(i))


def read_image(path: Path, max_megapixels: float, how: Decoding = AS_STORED) -> NDArray[np.uint8]:
    """The pixels of a file. Raises DataError, which says what is read where it is another kind."""
    try:
        return decode(path, max_megapixels=max_megapixels, how=how)
    except DataError as error:
        if path.suffix.lower() in SUFFIXES:
            raise
        raise DataError(f"{error}; {', '.join(FORMATS)} and videos are read") from None


class Frames:
    """The frames of a video, to be read one after another. Raises DataError for none."""

    def __init__(self, path: Path) -> None:
        import cv2  # takes a tenth of a second, which most calls can save

        self._path = path
        self._video = cv2.VideoCapture(str(path))
        self._count = int(self._video.get(cv2.CAP_PROP_FRAME_COUNT))
        self._next = 0
        if not self._video.isOpened() or self._count < 1:
            raise DataError(f"source={path}: cannot be read as a video")

    def __len__(self) -> int:
        """As the file states it; the last ones of a damaged file may not be there."""
        return self._count

    def read(self, index: int) -> NDArray[np.uint8]:
        """(H, W, 3) RGB of a frame; those before it are passed over. Raises DataError."""
        found, frame = False, None
        while self._next <= index:
            found, frame = self._video.read()
            self._next += 1
        if not found or frame is None:
            raise DataError(f"{self._path}: frame {index + 1} of {self._count} cannot be read")
        return np.ascontiguousarray(frame[..., ::-1], dtype=np.uint8)
