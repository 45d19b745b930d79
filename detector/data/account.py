"""What a reader was given, and what became of it: used, neutral, or left out and why.

Every object, image and file that a reader meets is counted in `given`; what is not used is in
`left_out`, so that given = used + left out holds for each unit, and nothing is lost in silence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from detector.data.handling import Handling, Policy
from detector.errors import DataError

Unit = Literal["file", "image", "object"]
UNITS: tuple[Unit, ...] = ("file", "image", "object")

MAX_NAMED = 10
"""Examples of one kind that a message gives."""


@dataclass(frozen=True)
class Kind:
    """One way in which something is not used.

    words: what is wrong, after "1 image: ". policy: the key that says whether it stops; None: a
    rule leaves it out always, which is told and is no error. way: another way on than that key.
    """

    unit: Unit
    words: str
    policy: Policy | None = "on_invalid"
    way: str = ""


@dataclass(frozen=True)
class LeftOut:
    """line: the file, the place, and what is wrong with it. count: units that the line speaks of.
    label: the class of an object, by number, where it is known."""

    kind: Kind
    line: str
    count: int = 1
    label: int | None = None


OF_LEFT_OUT_IMAGES = Kind("object", "of images that are left out", None)
TWIN = Kind("object", "stated twice", None)
BEYOND_LIMIT = Kind("image", "beyond data.limit_train or data.limit_val", None)


@dataclass
class Account:
    """given: units met, as the source states them. notes: how the source was found. rules: what was
    read that is written in another form, by rule, with counts. warnings: what is suspicious and
    stops nothing."""

    given: Counter[Unit] = field(default_factory=Counter)
    left_out: list[LeftOut] = field(default_factory=list)
    rules: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def leave_out(self, kind: Kind, line: str, *, count: int = 1, label: int | None = None) -> None:
        self.left_out.append(LeftOut(kind, line, count, label))

    def number_left_out(self, unit: Unit) -> int:
        return sum(one.count for one in self.left_out if one.kind.unit == unit)

    def faults(self) -> list[LeftOut]:
        """What is left out because it makes no sense."""
        return [one for one in self.left_out if one.kind.policy is not None]

    def lines(self) -> list[str]:
        """For the log: what was read in another form, what is left out by kind, what to look at."""
        read = [f"{count} {rule}" for rule, count in self.rules.items()]
        gone = [
            f"left out: {in_words(kind, sum(one.count for one in some))}{examples(some)}"
            for kind, some in by_kind(self.left_out)
        ]
        return [*self.notes, *read, *gone, *(f"WARNING: {words}" for words in self.warnings)]

    def to_dict(self) -> dict[str, Any]:
        """Everything, for a file of the run."""
        return {
            "given": dict(self.given),
            "left_out": [
                {
                    "unit": kind.unit,
                    "why": kind.words,
                    "count": sum(one.count for one in some),
                    "which": [one.line for one in some],
                }
                for kind, some in by_kind(self.left_out)
            ],
            "notes": list(self.notes),
            "read_in_another_form": dict(self.rules),
            "warnings": list(self.warnings),
        }

    def require_usable(
        self, source: str, handling: Handling, classes: Mapping[int, str], kept: Counter[int]
    ) -> None:
        """Raises DataError where something stops, or more is left out than may be.

        source: of the split, as messages name it. classes: number -> name. kept: objects that are
        used, by class number. The error's `details` name every single one.
        """
        faults = self.faults()
        details = [one.line for one in faults]
        stopping = [one for one in faults if not handling.drops(one.kind.policy or "on_invalid")]
        if stopping:
            raise DataError(self.in_full(source, stopping, with_ways=True), details=details)
        for unit in UNITS:
            some = [one for one in faults if one.kind.unit == unit]
            number, most = sum(one.count for one in some), handling.most(self.given[unit])
            if number > most:
                raise DataError(
                    f"{self.in_full(source, some)}\n{source}: {plural(number, unit)} of "
                    f"{self.given[unit]} would be left out, {most} may be; data.max_dropped="
                    f"{share_above(number, self.given[unit])} allows it",
                    details=details,
                )
        if handling.max_dropped is None:
            lost = {one.label for one in faults if one.label is not None and not kept[one.label]}
            for label in sorted(lost):
                some = [one for one in faults if one.label == label]
                raise DataError(
                    f"{self.in_full(source, some)}\n{source}: all objects of class "
                    f"{classes[label]!r} would be left out; data.max_dropped=1 allows it",
                    details=details,
                )

    def in_full(self, source: str, some: list[LeftOut], *, with_ways: bool = False) -> str:
        """What cannot be used: its only line, or counts by kind with examples of each.

        with_ways: says what lets one go on.
        """
        way = f"; {ways((o.kind for o in some), is_one=len(some) == 1)}" if with_ways else ""
        if len(some) == 1:
            return "\n".join([f"{some[0].line}{way}", *self.warnings])
        counts = Counter(dict.fromkeys(UNITS, 0))
        for one in some:
            counts[one.kind.unit] += one.count
        parts = [f"{plural(n, u)} of {self.given[u]}" for u, n in counts.items() if n]
        lines = [f"{source}: {' and '.join(parts)} cannot be used{way}"]
        for kind, members in by_kind(some):
            lines.append(in_words(kind, sum(one.count for one in members)))
            lines += [f"  {one.line}" for one in members[:MAX_NAMED]]
            if len(members) > MAX_NAMED:
                lines.append(f"  and {len(members) - MAX_NAMED} more")
        return "\n".join([*lines, *self.warnings])


def by_kind(some: Iterable[LeftOut]) -> list[tuple[Kind, list[LeftOut]]]:
    """Kinds in the order in which they were met, each with its members."""
    groups: dict[Kind, list[LeftOut]] = {}
    for one in some:
        groups.setdefault(one.kind, []).append(one)
    return list(groups.items())


def in_words(kind: Kind, count: int) -> str:
    return f"{plural(count, kind.unit)}: {kind.words}"


def examples(some: list[LeftOut]) -> str:
    """The first few, on one line."""
    shown = [one.line for one in some[:2] if one.line]
    more = f"; and {len(some) - 2} more" if len(some) > 2 else ""
    return f" ({'; '.join(shown)}{more})" if shown else ""


def ways(kinds: Iterable[Kind], *, is_one: bool) -> str:
    """What lets one go on, each way once."""
    found = dict.fromkeys(kinds)
    words = [kind.way for kind in found if kind.way]
    which = "it" if is_one else "them"
    words += [f"data.{kind.policy}=drop leaves {which} out" for kind in found if kind.policy]
    return ", or ".join(dict.fromkeys(words))


def plural(count: int, unit: Unit) -> str:
    return f"{count} {unit}{'' if count == 1 else 's'}"


def share_above(count: int, given: int) -> str:
    """The least share of four digits that lets so many be left out."""
    share = count / max(given, 1)
    rounded = float(f"{share:.3g}")
    return f"{min(1.0, rounded if int(rounded * given) >= count else rounded * 1.01):.4g}"
