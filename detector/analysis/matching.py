"""COCO's greedy matching of detections to objects, for all images and thresholds at once.

The rule is that of pycocotools' `evaluateImg`: within an image and a class, by falling score, a
detection takes the free object that it overlaps most; where there is none, an ignored one, and then
it counts neither as right nor as wrong. A crowd is ignored and never used up; overlap with it is
the share of the detection that lies in it. Of equal overlaps the later object is taken.

One thing differs: an overlap of 0 is never a match. At a threshold of 0 pycocotools' test
`iou < threshold` lets a detection take an object that it does not touch, from a worse scored one
that lies on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from detector.analysis.packing import Found, Objects, Packed, pairs_of, ranks

COCO_THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).tolist())
"""The IoUs over which COCO's AP is a mean, to the last digit."""

EVERY_AREA = (0.0, 1e10)
AREAS = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""COCO's sizes in square pixels, both ends included: 32^2 is small and medium."""


@dataclass(frozen=True)
class Pairs:
    """Detections (P,) and objects (P,) of one class that overlap, by detection; IoUs (P,) > 0."""

    found: np.ndarray
    objects: np.ndarray
    ious: np.ndarray


@dataclass(frozen=True)
class Matching:
    """What each detection was matched to at T thresholds.

    objects (T, S): the object's index or -1; ious (T, S), 0 where there is none; ignored (T, S):
    counts neither as right nor as wrong; ignored_objects (B,): need not be found.
    """

    thresholds: np.ndarray
    objects: np.ndarray
    ious: np.ndarray
    ignored: np.ndarray
    ignored_objects: np.ndarray

    @property
    def hits(self) -> np.ndarray:
        """(T, S) true positives."""
        return (self.objects >= 0) & ~self.ignored


def overlaps(found: np.ndarray, objects: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """(P,) IoU of boxes (P, 4) and (P, 4) xywh; with a crowd (P,) the share of the detection in it.

    The operations and their order are those of pycocotools, so results are equal to the last digit.
    """
    near = np.maximum(found[:, :2], objects[:, :2])
    far = np.minimum(found[:, 2:] + found[:, :2], objects[:, 2:] + objects[:, :2])
    sides = far - near
    touching = (sides > 0).all(axis=1)
    shared = np.where(touching, sides[:, 0] * sides[:, 1], 0.0)
    area = found[:, 2] * found[:, 3]
    union = np.where(crowd, area, area + objects[:, 2] * objects[:, 3] - shared)
    return np.divide(shared, union, out=np.zeros_like(shared), where=touching & (union > 0))


def overlapping(packed: Packed, *, same_class: bool = True, above: float = 0.0) -> Pairs:
    """Pairs of one image (and of one class) whose IoU is greater than `above`, at least 0."""
    found, objects = packed.found, packed.objects
    classes = packed.num_classes if same_class else 1
    kept: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for f, o in pairs_of(_keys(found, classes), _keys(objects, classes)):
        ious = overlaps(found.boxes[f], objects.boxes[o], objects.crowd[o])
        keep = ious > above
        kept.append((f[keep], o[keep], ious[keep]))
    return Pairs(*(np.concatenate(columns) for columns in zip(*kept, strict=True)))


def _keys(table: Found | Objects, classes: int) -> np.ndarray:
    return table.images * classes + (table.labels if classes > 1 else 0)


def match(
    packed: Packed,
    thresholds: Sequence[float],
    *,
    pairs: Pairs | None = None,
    area: tuple[float, float] = EVERY_AREA,
) -> Matching:
    """Matches at T IoU thresholds.

    pairs: what `overlapping(packed)` gives, where it is there already. area: objects outside the
    range are ignored, and so are detections outside it that match nothing.
    """
    found, objects = packed.found, packed.objects
    pairs = overlapping(packed) if pairs is None else pairs
    ignored_objects = objects.crowd | _outside(objects.areas, area)
    taken = _take(pairs, _rounds(packed), np.asarray(thresholds), ignored_objects, objects.crowd)
    chosen = np.append(pairs.objects, -1)[taken]
    unmatched = chosen < 0
    on_ignored = np.append(ignored_objects, False)[chosen]
    return Matching(
        thresholds=np.asarray(thresholds, dtype=np.float64),
        objects=chosen,
        ious=np.append(pairs.ious, 0.0)[taken],
        ignored=on_ignored | (unmatched & _outside(found.areas, area)),
        ignored_objects=ignored_objects,
    )


def _outside(areas: np.ndarray, area: tuple[float, float]) -> np.ndarray:
    return (areas < area[0]) | (areas > area[1])


def _rounds(packed: Packed) -> np.ndarray:
    """(S,) rank of a detection within its image and class; those of one rank never compete."""
    return ranks(_keys(packed.found, packed.num_classes))


def _take(
    pairs: Pairs,
    rounds: np.ndarray,
    thresholds: np.ndarray,
    ignored: np.ndarray,
    crowd: np.ndarray,
) -> np.ndarray:
    """(T, S) the pair that each detection takes, or -1, round by round."""
    turn = rounds[pairs.found]
    # Worst first: the pair to take is the last of a detection's that is free.
    order = np.lexsort((pairs.objects, pairs.ious, ~ignored[pairs.objects], pairs.found, turn))
    needed = np.minimum(thresholds, 1 - 1e-10)[:, None]
    used = np.zeros((len(thresholds), len(ignored)), dtype=bool)
    taken = np.full((len(thresholds), len(rounds)), -1, dtype=np.int64)
    bounds = np.searchsorted(turn[order], np.arange(turn.max(initial=-1) + 2))
    for start, end in pairwise(bounds):
        now = order[start:end]
        if not len(now):
            continue
        found, objects = pairs.found[now], pairs.objects[now]
        free = (~used[:, objects] | crowd[objects]) & (pairs.ious[now] >= needed)
        firsts = np.flatnonzero(np.diff(found, prepend=-1))
        last = np.maximum.reduceat(np.where(free, np.arange(len(now)), -1), firsts, axis=1)
        t, column = np.nonzero(last >= 0)
        place = last[t, column]
        taken[t, found[place]] = now[place]
        used[t, objects[place]] = True
    return taken


@dataclass(frozen=True)
class Outcomes:
    """The detections that count at one IoU threshold, in the order of `Found`, S of them.

    threshold: the IoU; scores (S,) in [0, 1]; labels (S,); images (S,); areas (S,) in square
    pixels; hits (S,) bool: true positive; ious (S,) with the matched object, 0 for a false
    positive; object_images and object_labels (B,) of the objects to be found, crowds left out;
    object_found (B,): the detection, as an index of these S, that found it, or -1.
    """

    threshold: float
    classes: tuple[str, ...]
    num_images: int
    scores: np.ndarray
    labels: np.ndarray
    images: np.ndarray
    areas: np.ndarray
    hits: np.ndarray
    ious: np.ndarray
    object_images: np.ndarray
    object_labels: np.ndarray
    object_found: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def count_objects(self) -> np.ndarray:
        """(K,) objects of each class to be found."""
        return np.bincount(self.object_labels, minlength=len(self.classes))

    def select(self, keep: np.ndarray) -> Outcomes:
        """Those detections for which `keep` (S,) is true; objects that they alone found are missed.

        Where what is left out scores less than what is kept, this is what matching the rest gives.
        """
        place = np.append(np.where(keep, np.cumsum(keep) - 1, -1), -1)
        columns = ("scores", "labels", "images", "areas", "hits", "ious")
        kept = {name: getattr(self, name)[keep] for name in columns}
        return replace(self, object_found=place[self.object_found], **kept)

    def on_images(self, chosen: np.ndarray) -> Outcomes:
        """Those of the images for which `chosen` (I,) is true, numbered anew."""
        place = np.cumsum(chosen) - 1
        wanted = chosen[self.object_images]
        part = self.select(chosen[self.images])
        return replace(
            part,
            num_images=int(chosen.sum()),
            images=place[part.images],
            object_images=place[self.object_images[wanted]],
            object_labels=self.object_labels[wanted],
            object_found=part.object_found[wanted],
        )


def outcomes(packed: Packed, matching: Matching, index: int = 0) -> Outcomes:
    """The detections and objects of threshold `index` without what is ignored."""
    found, objects = packed.found, packed.objects
    counted = ~matching.ignored[index]
    wanted = ~matching.ignored_objects
    hits = matching.hits[index][counted]
    finder = np.full(len(objects), -1)
    finder[matching.objects[index][counted][hits]] = np.flatnonzero(hits)
    return Outcomes(
        threshold=float(matching.thresholds[index]),
        classes=packed.classes,
        num_images=packed.num_images,
        scores=found.scores[counted],
        labels=found.labels[counted],
        images=found.images[counted],
        areas=found.areas[counted],
        hits=hits,
        ious=np.where(hits, matching.ious[index][counted], 0.0),
        object_images=objects.images[wanted],
        object_labels=objects.labels[wanted],
        object_found=finder[wanted],
    )
