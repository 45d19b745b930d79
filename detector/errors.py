"""Errors a user can mend. Each prints as one line and decides the exit code of a tool."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence

INTERRUPTED = 130
"""Exit code after Ctrl-C where there was nothing to save: what shells say of SIGINT."""

MAX_QUOTED = 300
"""Letters of somebody else's message that one of ours quotes."""


class UserError(Exception):
    """Something the user can mend; the message is the whole story, so no traceback is shown."""

    exit_code = 2


class ConfigError(UserError):
    """A wrong command or config: unknown name or key, wrong type or value."""

    exit_code = 2


class DataError(UserError):
    """Invalid data; names file, image id and annotation id. May hold several lines.

    details: a line for every single fault, where the message gives counts and examples.
    """

    exit_code = 3

    def __init__(self, message: str, *, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.details = tuple(details)


class LoaderError(UserError):
    """A process that loads images died or hangs; names images."""

    exit_code = 2


class LostProcess(UserError):
    """A process of the run does not answer, or is gone; names rank, step and operation."""

    exit_code = 2


class DivergedError(UserError):
    """Training was stopped: loss or gradient were not finite several times in a row."""

    exit_code = 4


class OutOfMemory(UserError):
    """A batch does not fit into memory; names the key to lower."""

    exit_code = 2


class StorageError(UserError):
    """Nothing could be saved: the disk is full, or cannot be written."""

    exit_code = 2


class Preempted(UserError):
    """Asked to stop by a signal; everything was saved."""

    exit_code = 75


NEAR = 0.65
"""Share of letters that two names have in common from which one is taken for a slip of the other:
a letter too many or too few, or two in the wrong order, in a name of three. `lr` and `loader`, or
`roboflow` and `yolo`, have half of them."""


def did_you_mean(name: str, allowed: Iterable[str], of: Mapping[str, str] | None = None) -> str:
    """A clause such as " (did you mean 'gamma'?)", or nothing where no name is near.

    Names whose numbers differ in more than a digit, resnet152 and resnet101, are not slips of each
    other. of: what to call the allowed ones.
    """
    numbers = re.findall(r"\d+", name)
    bare = re.sub(r"\d+", "", name)
    others = [x for x in allowed if not numbers or x == bare or _is_slip(numbers, x)]
    near = difflib.get_close_matches(name, others, n=1, cutoff=NEAR)
    return f" (did you mean {(of or {}).get(near[0], near[0])!r}?)" if near else ""


def _is_slip(numbers: list[str], other: str) -> bool:
    """Whether the numbers in another name are these but for a digit."""
    theirs = re.findall(r"\d+", other)
    if [len(n) for n in numbers] != [len(n) for n in theirs]:
        return False
    return sum(a != b for a, b in zip("".join(numbers), "".join(theirs), strict=True)) <= 1
