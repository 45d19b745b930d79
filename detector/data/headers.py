"""What the files of images say of themselves, before anything is trained on them.

The header of every image of a split is read, in several threads, and compared with what the
annotations say: a file that is missing, empty, turned by EXIF, of 16 bits or of another size is
found before the first step, and not in the third hour.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import astuple, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from detector.data.account import OF_LEFT_OUT_IMAGES, Account, Kind
from detector.data.annotations import Annotations, Rows
from detector.data.handling import Handling
from detector.data.images import (
    DEPTH_WAY,
    EXIF_WAY,
    WIDE_MODES,
    FolderDataset,
    missing_files,
    opened,
    orientation,
    refuse_size,
    turned_in_words,
    wide_in_words,
)
from detector.data.readers.base import Dataset
from detector.errors import DataError

MISSING = Kind("image", "whose file is not there", "on_missing")
DAMAGED = Kind("image", "whose file cannot be decoded", "on_corrupt")
TOO_LARGE = Kind("image", "with more pixels than data.max_megapixels allows")
TURNED = Kind("image", "that EXIF turns", way=EXIF_WAY)
WIDE = Kind("image", "with pixels of more than 8 bits", way=DEPTH_WAY)
OTHER_SIZE = Kind("image", "of another size than annotated")

NO_SIZE = "images have no size: taken from the header of the file"
"""The rule by which a size that the annotations lack is found."""

MANY = 1000
"""Files from which on a bar is shown, and what was found is kept for the next start."""

THREADS = 8
"""That wait for a disk or decode; Pillow lets go of Python's lock for both."""


@dataclass(frozen=True)
class Header:
    """height, width: in pixels, as stored. turn: 1 to 8, EXIF's orientation. mode: Pillow's name of
    the kind of pixels. fault: why the file cannot be read, or nothing."""

    height: int = 0
    width: int = 0
    turn: int = 1
    mode: str = ""
    fault: str = ""

    def size(self, handling: Handling) -> tuple[int, int]:
        """(height, width) of the image as it will be read."""
        is_turned = self.turn >= 5 and handling.exif == "upright"
        return (self.width, self.height) if is_turned else (self.height, self.width)


def read_header(path: Path, *, decode: bool = False) -> Header:
    """The header of a file; one that cannot be read is told by its `fault`.

    decode: the pixels too, which alone shows that a file is whole.
    """
    try:
        with opened(path, float("inf")) as image:
            found = Header(image.height, image.width, orientation(image), image.mode)
            if decode:
                image.load()
            return found
    except DataError as error:
        return Header(fault=str(error))


def read_headers(folder: Path, names: Sequence[str]) -> list[Header]:
    """The headers of files in a folder, in order."""
    return _remembered(folder, names, read_header)


def check_images(
    rows: Rows,
    folder: Path,
    account: Account,
    handling: Handling,
    source: str,
    missing_sizes: Sequence[int] = (),
) -> None:
    """Compares what is annotated with the files; what does not fit becomes `unusable`.

    missing_sizes: indices of images of which the annotations state no size; theirs become those of
    the files. source: as messages name the annotations. Raises DataError for a name that leads out.
    """
    indices = [i for i in range(len(rows.file_names)) if i not in rows.unusable]
    gone = set(missing_files(folder, [rows.file_names[i] for i in indices], source))
    present = [i for i in indices if rows.file_names[i] not in gone]
    headers = read_headers(folder, [rows.file_names[i] for i in present])
    by_index = dict(zip(present, headers, strict=True))
    unsized = set(missing_sizes)
    for i in indices:
        name = rows.file_names[i]
        who = f"{rows.files[i] if rows.files else source}: image {name} (id {rows.image_ids[i]})"
        if i not in by_index:
            account.leave_out(MISSING, f"{who}: there is no such file in {folder}")
            rows.unusable.add(i)
            continue
        header = by_index[i]
        if i in unsized and not header.fault:
            rows.sizes[i] = header.size(handling)
        found = _fault(header, rows.sizes[i], folder / name, handling)
        if found is not None:
            account.leave_out(found[0], f"{who}: {found[1]}")
            rows.unusable.add(i)
    number = len([i for i in indices if i in unsized and i in by_index])
    if number:
        account.rules[NO_SIZE] += number


def _fault(
    header: Header, annotated: tuple[int, int], path: Path, handling: Handling
) -> tuple[Kind, str] | None:
    """What is wrong with an image, if anything."""
    if header.fault:
        return DAMAGED, header.fault
    try:
        limit = handling.max_megapixels
        refuse_size("", header.height, header.width, limit, "data.max_megapixels")
    except DataError as error:
        return TOO_LARGE, str(error).removeprefix(": ")
    if header.turn != 1 and handling.exif == "error":
        shown = replace(handling, exif="upright")
        words = turned_in_words(header.turn)
        if header.turn >= 5 and header.height != header.width:
            fits = {header.size(handling): "stored", header.size(shown): "shown"}.get(annotated)
            words += f"; the size in the annotations is that of the image as {fits}" if fits else ""
        return TURNED, words
    if header.mode in WIDE_MODES and handling.depth is None:
        return WIDE, wide_in_words(header.mode)
    height, width = header.size(handling)
    if (height, width) != annotated:
        words = f"has {width} x {height} pixels (width x height)"
        words += f", but is annotated as {annotated[1]} x {annotated[0]}"
        if header.turn >= 5 and (width, height) == annotated:
            other = "upright" if handling.exif == "stored" else "stored"
            words += f", which data.exif={other} makes of it"
        return OTHER_SIZE, words
    return None


def without_damaged(dataset: Dataset) -> Dataset:
    """The data set without the images whose files do not decode, as `data.on_corrupt` asks.

    Decodes every image once, in several threads. Raises DataError naming those that do not decode,
    unless they may be left out. A set whose images are no files comes back as it is.
    """
    if not isinstance(dataset, FolderDataset):
        return dataset
    annotations, handling = dataset.annotations, dataset.handling
    names = [annotations.file_name(i) for i in range(len(annotations))]

    headers = _remembered(dataset.folder, names, partial(read_header, decode=True), "decoded")
    damaged = [i for i, header in enumerate(headers) if header.fault]
    if not damaged:
        return dataset
    kept = np.setdiff1d(np.arange(len(names)), damaged)
    account = annotations.account
    for i in damaged:
        line = f"{dataset.name}: image {names[i]} (id {annotations.image_ids[i]})"
        account.leave_out(DAMAGED, f"{line}: {headers[i].fault}")
    rest = annotations.select(kept)
    lost = len(annotations.labels) - len(rest.labels)
    if lost:
        account.leave_out(OF_LEFT_OUT_IMAGES, "", count=lost)
    account.require_usable(dataset.name, handling, {}, counts(rest))
    if not len(rest):
        raise DataError(f"{dataset.name}: no image can be decoded; {headers[damaged[0]].fault}")
    return FolderDataset(dataset.name, rest, dataset.folder, handling)


def counts(annotations: Annotations) -> Counter[int]:
    """Objects by category id."""
    ids = np.asarray(annotations.category_ids)[annotations.labels]
    return Counter(ids.tolist())


def _remembered(
    folder: Path, names: Sequence[str], read: Callable[[Path], Header], what: str = "headers"
) -> list[Header]:
    """What `read` says of each file, some of it from an earlier start.

    A file is known by its size and the time of its last change. Only what took long is kept.
    """
    known, cache = _known(folder, what) if len(names) > MANY else ({}, None)
    stamps = {name: _stamp(folder / name) for name in names} if cache else {}
    new = [name for name in names if name not in known or known[name][0] != stamps.get(name)]
    paths = [folder / name for name in new]
    verb = "decoding" if what == "decoded" else "headers"
    with ThreadPoolExecutor(min(THREADS, max(1, len(new)))) as pool:
        found = list(
            tqdm(
                pool.map(read, paths, chunksize=16),
                total=len(new),
                desc=f"{verb} of {folder.name}",
                unit="image",
                file=sys.stderr,
                leave=False,
                # A bar where somebody looks, and where it would take long enough to wonder.
                disable=None if len(new) > MANY else True,
            )
        )
    fresh = dict(zip(new, found, strict=True))
    if cache and len(new) > MANY:
        rows = {name: (stamps[name], astuple(header)) for name, header in fresh.items()}
        with suppress(OSError):
            cache.parent.mkdir(parents=True, exist_ok=True)
            unfinished = cache.with_suffix(f".{os.getpid()}.tmp")
            unfinished.write_text(json.dumps({**known, **rows}))
            os.replace(unfinished, cache)
    return [fresh[n] if n in fresh else Header(*known[n][1]) for n in names]


def _known(folder: Path, what: str) -> tuple[dict[str, tuple[list[int], list]], Path | None]:
    """What an earlier start has found in a folder, and where it is kept."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    name = hashlib.sha256(os.path.realpath(folder).encode()).hexdigest()[:24]
    cache = Path(home, "dense-detector", f"{what}-{name}.json")
    try:
        known = json.loads(cache.read_bytes())
        return {n: ([int(v) for v in s], [*h]) for n, (s, h) in known.items()}, cache
    except (OSError, ValueError, TypeError, AttributeError):
        return {}, cache


def _stamp(path: Path) -> list[int]:
    try:
        stat = path.stat()
    except OSError:
        return [0, 0]
    return [stat.st_size, stat.st_mtime_ns]
