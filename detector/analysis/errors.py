"""What goes wrong and what it costs, in the manner of TIDE.

Bolya et al. 2020, "TIDE: A General Toolbox for Identifying Object Detection Errors", arXiv
2008.08115. Every false positive is of one kind; objects that neither a detection nor an error of
place or class reaches are missed. The cost of a kind is how much AP at IoU 0.5 rises when an oracle
mends that kind alone. Where several kinds fit, they are tried in TIDE's order: localisation, class,
duplicate, background, both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from detector.analysis import curves
from detector.analysis.curves import mean
from detector.analysis.matching import Matching, overlaps
from detector.analysis.packing import Packed, pairs_of

FOREGROUND = 0.5
"""IoU from which a box is on its object; TIDE's t_f."""

BACKGROUND = 0.1
"""IoU up to which a box is on nothing; TIDE's t_b."""

KINDS = ("localisation", "classification", "duplicate", "background", "both")
RIGHT, IGNORED = -1, -2


@dataclass(frozen=True)
class Nearest:
    """The object, no crowd, that each detection overlaps most: index or -1, and IoU, all (S,).

    same: of its class; other: of another class; used: of its class and matched at FOREGROUND.
    """

    same: np.ndarray
    same_iou: np.ndarray
    other: np.ndarray
    other_iou: np.ndarray
    used_iou: np.ndarray


@dataclass(frozen=True)
class Errors:
    """kinds (S,): index into `KINDS`, RIGHT or IGNORED; objects (S,): the object a localisation or
    classification error was meant for, or -1; missed (B,) bool: found by nothing, and the target
    of none of these two.
    """

    kinds: np.ndarray
    objects: np.ndarray
    missed: np.ndarray


def nearest(packed: Packed, matching: Matching) -> Nearest:
    """Of every detection. matching: its first threshold is FOREGROUND."""
    found, objects = packed.found, packed.objects
    used = np.zeros(len(objects), dtype=bool)
    taken = matching.objects[0]
    used[taken[taken >= 0]] = True
    best = {name: np.full(len(found), -1) for name in ("same", "other", "used")}
    ious = {name: np.zeros(len(found)) for name in best}
    for f, o in pairs_of(found.images, objects.images):
        # Only those that count: the errors of a detection are about objects that can be found.
        single = ~objects.crowd[o]
        f, o = f[single], o[single]
        values = overlaps(found.boxes[f], objects.boxes[o], objects.crowd[o])
        same = found.labels[f] == objects.labels[o]
        for name, chosen in (("same", same), ("other", ~same), ("used", same & used[o])):
            _keep_best(best[name], ious[name], f[chosen], o[chosen], values[chosen])
    return Nearest(best["same"], ious["same"], best["other"], ious["other"], ious["used"])


def _keep_best(
    best: np.ndarray, ious: np.ndarray, found: np.ndarray, objects: np.ndarray, values: np.ndarray
) -> None:
    """Writes the greatest of the values (P,) of each detection, by detection, and its object."""
    order = np.lexsort((values, found))
    last = order[np.flatnonzero(np.diff(found[order], append=-1))]
    last = last[values[last] > 0]
    best[found[last]], ious[found[last]] = objects[last], values[last]


def classify(packed: Packed, matching: Matching) -> Errors:
    """The kind of every detection and the missed objects. matching: as for `nearest`."""
    near = nearest(packed, matching)
    wrong = ~matching.hits[0] & ~matching.ignored[0]
    rules = [
        (near.same_iou >= BACKGROUND) & (near.same_iou <= FOREGROUND),
        near.other_iou >= FOREGROUND,
        near.used_iou >= FOREGROUND,
        np.maximum(near.same_iou, near.other_iou) <= BACKGROUND,
    ]
    kinds = np.select(rules, range(len(rules)), default=KINDS.index("both"))
    kinds = np.where(wrong, kinds, np.where(matching.ignored[0], IGNORED, RIGHT))
    objects = np.select([kinds == 0, kinds == 1], [near.same, near.other], default=-1)
    found = np.zeros(len(packed.objects) + 1, dtype=bool)
    found[matching.objects[0]] = True
    covered = found.copy()
    covered[objects] = True
    return Errors(kinds, objects, ~covered[:-1] & ~matching.ignored_objects)


@dataclass(frozen=True)
class _State:
    """What AP is computed from: detections (S,) and objects to be found (K,)."""

    labels: np.ndarray
    keep: np.ndarray
    hits: np.ndarray
    num_objects: np.ndarray


def costs(packed: Packed, matching: Matching, errors: Errors) -> dict[str, dict[str, Any]]:
    """{kind: {"count", "delta_ap50"}} and the special ones "false positives" (all of them gone)
    and "false negatives" (nothing left to find); delta None where there is no object at all.
    """
    fixes = _fixes(packed, matching, errors)
    before = _ap(packed, matching, _start(packed, matching))
    counts = {name: int((errors.kinds == i).sum()) for i, name in enumerate(KINDS)}
    counts["missed"] = int(errors.missed.sum())
    counts["false positives"] = int((errors.kinds >= 0).sum())
    wanted = int((~matching.ignored_objects).sum())
    counts["false negatives"] = wanted - int(matching.hits[0].sum())
    table = {}
    for name, count in counts.items():
        after = _ap(packed, matching, fixes[name]())
        delta = None if before is None or after is None else after - before
        table[name] = {"count": count, "delta_ap50": delta}
    return table


def _fixes(packed: Packed, matching: Matching, errors: Errors) -> dict[str, Callable[[], _State]]:
    """What the oracle of each kind makes of detections and objects."""

    def without(kind: int) -> Callable[[], _State]:
        return lambda: _dropping(packed, matching, errors.kinds == kind)

    fixes = {name: without(i) for i, name in enumerate(KINDS)}
    fixes["localisation"] = lambda: _mended(packed, matching, errors, 0)
    fixes["classification"] = lambda: _mended(packed, matching, errors, 1)
    fixes["missed"] = lambda: _fewer_objects(packed, matching, errors.missed)
    fixes["false positives"] = lambda: _dropping(packed, matching, errors.kinds >= 0)
    fixes["false negatives"] = lambda: _fewer_objects(packed, matching, _not_found(matching))
    return fixes


def _start(packed: Packed, matching: Matching) -> _State:
    num_objects = curves.count_objects(packed, matching.ignored_objects)
    everything = np.ones(len(packed.found), dtype=bool)
    return _State(packed.found.labels, everything, matching.hits[0], num_objects)


def _dropping(packed: Packed, matching: Matching, gone: np.ndarray) -> _State:
    start = _start(packed, matching)
    return _State(start.labels, ~gone, start.hits, start.num_objects)


def _mended(packed: Packed, matching: Matching, errors: Errors, kind: int) -> _State:
    """The best scored error of the kind on each object not found becomes right, others go."""
    start = _start(packed, matching)
    mine = np.flatnonzero(errors.kinds == kind)
    order = mine[np.argsort(-packed.found.scores[mine], kind="stable")]
    targets = errors.objects[order]
    unfound = _not_found(matching)
    # Of the errors on one object, by falling score, the first.
    first = np.zeros(len(order), dtype=bool)
    first[np.unique(targets, return_index=True)[1]] = True
    chosen = order[first & unfound[targets]]
    labels, keep, hits = (
        start.labels.copy(),
        np.ones(len(start.keep), dtype=bool),
        start.hits.copy(),
    )
    keep[mine] = False
    keep[chosen], hits[chosen] = True, True
    labels[chosen] = packed.objects.labels[errors.objects[chosen]]
    return _State(labels, keep, hits, start.num_objects)


def _not_found(matching: Matching) -> np.ndarray:
    """(B,) objects to be found that no detection was matched to."""
    found = np.zeros(len(matching.ignored_objects) + 1, dtype=bool)
    found[matching.objects[0]] = True
    return ~found[:-1] & ~matching.ignored_objects


def _fewer_objects(packed: Packed, matching: Matching, gone: np.ndarray) -> _State:
    start = _start(packed, matching)
    fewer = np.bincount(packed.objects.labels[gone], minlength=packed.num_classes)
    return _State(start.labels, start.keep, start.hits, start.num_objects - fewer)


def _ap(packed: Packed, matching: Matching, state: _State) -> float | None:
    """AP50 of the classes that had objects before anything was mended.

    A class that has none left is perfect where nothing wrong is left in it either, otherwise 0: if
    it left the mean, mending could lower AP.
    """
    keep, ignored = state.keep, matching.ignored[:1]
    labels, hits = state.labels[keep], state.hits[None, keep]
    scores = packed.found.scores[keep]
    ap = curves.draw(labels, scores, hits, ignored[:, keep], state.num_objects).ap()
    wrong = ~state.hits & ~ignored[0] & keep
    is_wrong = np.bincount(state.labels[wrong], minlength=packed.num_classes) > 0
    ap = np.where(state.num_objects > 0, ap, np.where(is_wrong, 0.0, 1.0))
    return mean(ap[_start(packed, matching).num_objects > 0])
