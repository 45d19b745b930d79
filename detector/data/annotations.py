"""The objects of a data set, packed into arrays.

Loader processes share arrays of a few buffers without copying; a list of dictionaries is copied
page by page in every process, because reading it changes its reference counts.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from detector.data.account import BEYOND_LIMIT, OF_LEFT_OUT_IMAGES, Account, Kind
from detector.data.handling import Handling
from detector.data.suspicious import alike, areas_disagree, as_corners, as_shares
from detector.errors import DataError

MIN_INSIDE = 0.25
"""Share of a box that has to lie in its image; one with less of it is invalid, not clipped."""

MAX_COORDINATE = 1e9
"""Pixels beyond which a number counts as not finite; no image is that large."""


@dataclass(frozen=True)
class Annotations:
    """I images with B objects of K classes; the objects of an image are neighbours.

    image_ids: (I,) int64. file_names: (I,) UTF-8 bytes. sizes: (I, 2) int32, height and width.
    starts: (I + 1,) int64; image i has the objects starts[i] to starts[i + 1].
    xywh: (B, 4) float64 left, top, width, height in pixels, as the file states them.
    labels: (B,) int64 in [0, K). crowd: (B,) bool. areas: (B,) float64 in square pixels.
    ids: (B,) int64, as in the file: they may repeat.
    classes: K names. category_ids: K ids of the file; sorted, so class k has the k-th smallest.
    account: what the reader was given, and what became of the rest.
    """

    image_ids: NDArray[np.int64]
    file_names: NDArray[np.bytes_]
    sizes: NDArray[np.int32]
    starts: NDArray[np.int64]
    xywh: NDArray[np.float64]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float64]
    ids: NDArray[np.int64]
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    account: Account = field(default_factory=Account)

    def __len__(self) -> int:
        return len(self.image_ids)

    def file_name(self, index: int) -> str:
        """The file of an image, relative to the folder of its split."""
        return self.file_names[index].decode()

    def objects(self, index: int) -> slice:
        """Where the objects of an image stand in the arrays over B."""
        return slice(int(self.starts[index]), int(self.starts[index + 1]))

    def boxes(self, index: int) -> NDArray[np.float32]:
        """(M, 4) xyxy boxes of an image in pixels of its file, not clipped."""
        return xyxy(self.xywh[self.objects(index)]).astype(np.float32)

    def select(self, indices: Iterable[int]) -> Annotations:
        """The annotations of some images only, in the given order."""
        images = np.asarray(list(indices), dtype=np.int64)
        counts = np.diff(self.starts)[images]
        every = np.arange(len(self.labels))
        objects = np.concatenate([every[:0], *(every[self.objects(i)] for i in images)])
        per_image = {name: getattr(self, name)[images] for name in PER_IMAGE}
        per_object = {name: getattr(self, name)[objects] for name in PER_OBJECT}
        return replace(self, starts=_starts(counts), **per_image, **per_object)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 in hex over images, objects and classes; equal for equal content only."""
        digest = hashlib.sha256()
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, np.ndarray):
                digest.update(f"{item.name} {value.dtype.str} {value.shape}".encode())
                digest.update(np.ascontiguousarray(value).tobytes())
        digest.update(repr((self.classes, self.category_ids)).encode())
        return digest.hexdigest()

    @property
    def dropped(self) -> tuple[str, ...]:
        """A line for each fault that was left out, naming file, image and object."""
        return tuple(one.line for one in self.account.faults())

    def summary(self) -> list[str]:
        """Lines for the log: counts, boxes that will be clipped, and what the account says."""
        empty = int((np.diff(self.starts) == 0).sum())
        lines = [
            f"{len(self)} images, {len(self.labels)} objects of {len(self.classes)} classes, "
            f"{int(self.crowd.sum())} of them crowds; {empty} images without objects (kept)"
        ]
        owners = np.repeat(np.arange(len(self)), np.diff(self.starts))
        outside = int((inside(self.xywh, self.sizes[owners]) < 1).sum())
        if outside:
            lines.append(f"{outside} boxes leave their image and are clipped")
        return [*lines, *self.account.lines()]


PER_IMAGE = ("image_ids", "file_names", "sizes")
PER_OBJECT = ("xywh", "labels", "crowd", "areas", "ids")


@dataclass
class Rows:
    """What a reader collects; `pack` checks it and makes `Annotations` of it.

    Images and objects in any order; `owners` holds the index of each object's image, `labels` its
    category id, `files` the file that states the objects of an image, if it is not the source.
    unusable: indices of images that are left out; why, the account says.
    """

    image_ids: list[int] = field(default_factory=list)
    file_names: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    xywh: list[tuple[float, float, float, float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)
    areas: list[float] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    unusable: set[int] = field(default_factory=set)

    def limit(self, most: int | None, account: Account) -> None:
        """Leaves out all images but the first by id."""
        by_id = sorted(range(len(self.image_ids)), key=self.image_ids.__getitem__)
        beyond = [] if most is None else by_id[most:]
        if beyond:
            self.unusable.update(beyond)
            account.leave_out(BEYOND_LIMIT, "", count=len(beyond))


INVALID_BOX = {
    "is not finite": Kind("object", "whose box is not finite"),
    "has no area": Kind("object", "whose box has no area"),
    f"lies less than {MIN_INSIDE:.0%} inside its image": Kind(
        "object", f"whose box lies less than {MIN_INSIDE:.0%} inside its image"
    ),
    "has an `area` that is negative or not finite": Kind(
        "object", "whose `area` is negative or not finite"
    ),
}
"""What can be wrong with a box -> how the account calls it."""


def pack(
    rows: Rows,
    *,
    source: str,
    categories: dict[int, str],
    handling: Handling | None = None,
    account: Account | None = None,
) -> Annotations:
    """`Annotations` with the images sorted by id and the categories by theirs.

    categories: id -> name. source: the file that messages name. account: of what was met so far,
    completed here; None: all that was met is in the rows. Raises DataError where there is no image,
    and for what `handling` does not let go: with counts, and examples of every kind.
    """
    handling = handling or Handling()
    if account is None:
        account = Account()
        account.given.update(image=len(rows.image_ids), object=len(rows.owners))
    if not rows.image_ids and not account.left_out:
        raise DataError(f"{source}: no images")
    for name in categories.values():
        if not name.isascii() and any("\ud800" <= letter <= "\udfff" for letter in name):
            raise DataError(f"{source}: class name {name!r} is not valid text")
    image_ids = np.array(rows.image_ids, np.int64)
    by_id = np.argsort(image_ids, kind="stable")
    owners = np.argsort(by_id)[np.array(rows.owners, np.int64)]
    sizes = np.array(rows.sizes, np.int32).reshape(-1, 2)[by_id]
    names = [rows.file_names[i] for i in by_id]
    files = [rows.files[i] for i in by_id] if rows.files else [source] * len(names)
    objects = np.argsort(owners, kind="stable")
    owners = owners[objects]
    xywh = np.array(rows.xywh, np.float64).reshape(-1, 4)[objects]
    areas = np.array(rows.areas, np.float64)[objects]
    ids = np.array(rows.ids, np.int64)[objects]
    of_file = np.array(rows.labels, np.int64)[objects]

    # An image that is not used takes its objects along: they are counted, and not checked.
    is_used = np.ones(len(names), bool)
    is_used[np.argsort(by_id)[sorted(rows.unusable)]] = False
    keep = is_used[owners]
    if not keep.all():
        account.leave_out(OF_LEFT_OUT_IMAGES, "", count=int((~keep).sum()))
    checked = np.flatnonzero(keep)
    reasons = invalid(xywh[checked], areas[checked], sizes[owners[checked]])
    for i, reason in sorted(reasons.items()):
        b = checked[i]
        account.leave_out(
            INVALID_BOX[reason],
            f"{files[owners[b]]}: image {names[owners[b]]} (id {image_ids[by_id[owners[b]]]}), "
            f"annotation {ids[b]}: box {xywh[b].tolist()} (x, y, w, h) {reason}",
            label=int(of_file[b]),
        )
    keep[checked[list(reasons)]] = False
    account.warnings += _warnings(
        xywh[checked], areas[checked], sizes[owners[checked]], keep[checked]
    )
    account.warnings += alike(tuple(categories.values()))
    kept = Counter(of_file[keep].tolist())
    account.require_usable(source, handling, categories, kept)
    if not is_used.any():
        raise DataError(f"{source}: no images are left; {'; '.join(account.lines())}")

    category_ids = sorted(categories)
    class_of = {category: k for k, category in enumerate(category_ids)}
    every = Annotations(
        image_ids=image_ids[by_id],
        file_names=np.array([name.encode() for name in names]),
        sizes=sizes,
        starts=_starts(np.bincount(owners[keep], minlength=len(names))),
        xywh=xywh[keep],
        labels=np.array([class_of[c] for c in of_file[keep].tolist()], np.int64),
        crowd=np.array(rows.crowd, bool)[objects][keep],
        areas=areas[keep],
        ids=ids[keep],
        classes=tuple(categories[c] for c in category_ids),
        category_ids=tuple(category_ids),
        account=account,
    )
    return every if is_used.all() else every.select(np.flatnonzero(is_used))


def _warnings(
    xywh: NDArray[np.float64],
    areas: NDArray[np.float64],
    sizes: NDArray[np.int32],
    is_valid: NDArray[np.bool_],
) -> list[str]:
    """What is suspicious about all boxes of a split together."""
    found = (
        as_corners(xywh, sizes, areas),
        as_shares(xywh),
        areas_disagree(xywh[is_valid], areas[is_valid]),
    )
    return [warning for warning in found if warning is not None][:1]


def invalid(
    xywh: NDArray[np.float64], areas: NDArray[np.float64], sizes: NDArray[np.int32]
) -> dict[int, str]:
    """What is wrong with which object: index into B -> words, a key of `INVALID_BOX`.

    xywh (B, 4); areas (B,); sizes (B, 2), height and width of each object's image.
    """
    finite = np.all(np.abs(xywh) < MAX_COORDINATE, axis=1)
    reasons = {int(b): "is not finite" for b in np.flatnonzero(~finite)}
    # In float32, as training sees them: a width of 1e-9 px at x = 500 is none.
    corners = xyxy(np.where(finite[:, None], xywh, 0)).astype(np.float32)
    empty = finite & np.any(corners[:, 2:] <= corners[:, :2], axis=1)
    reasons |= {int(b): "has no area" for b in np.flatnonzero(empty)}
    rest = finite & ~empty
    share = np.ones(len(xywh))
    share[rest] = inside(xywh[rest], sizes[rest])
    words = f"lies less than {MIN_INSIDE:.0%} inside its image"
    reasons |= {int(b): words for b in np.flatnonzero(share < MIN_INSIDE)}
    wrong_area = ~np.isfinite(areas) | (areas < 0)
    words = "has an `area` that is negative or not finite"
    return {int(b): words for b in np.flatnonzero(wrong_area)} | reasons


def xyxy(xywh: NDArray[np.float64]) -> NDArray[np.float64]:
    """(B, 4) corners of (B, 4) boxes given by corner and sides."""
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1)


def inside(xywh: NDArray[np.float64], sizes: NDArray[np.int32]) -> NDArray[np.float64]:
    """(B,) share of each box that lies in its image; sizes (B, 2), height and width."""
    corners = xyxy(xywh)
    limits = np.concatenate([sizes[:, ::-1], sizes[:, ::-1]], 1)
    cut = np.clip(corners, 0, limits)
    # Corners by corners, not by the stated sides: a box that is not cut gives exactly 1.
    return np.prod((cut[:, 2:] - cut[:, :2]) / (corners[:, 2:] - corners[:, :2]), axis=1)


def _starts(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
