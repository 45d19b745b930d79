"""Pickles of strangers: counted before they are read, and read without calling what they name.

Nine bytes may ask for a table of two thousand million entries, and a key that is a tuple of tuples
may take for ever to hash: Python's own unpickler does as it is told.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any, BinaryIO, ClassVar

MAX_STEPS = 1_000_000
"""Of a pickle, each of which makes a value at most. A checkpoint of ResNet-101 has 60,000."""

MAX_DEPTH = 50
"""Of lists and dicts inside one another."""

STEPS = frozenset(
    """PROTO FRAME STOP NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 INT LONG LONG1 FLOAT BINFLOAT
    STRING SHORT_BINSTRING BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES
    SHORT_BINBYTES BINBYTES8 BYTEARRAY8 EMPTY_LIST EMPTY_DICT EMPTY_TUPLE LIST DICT TUPLE TUPLE1
    TUPLE2 TUPLE3 MARK APPEND APPENDS SETITEM SETITEMS PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET
    LONG_BINGET GLOBAL STACK_GLOBAL REDUCE BUILD BINPERSID""".split()  # noqa: SIM905
)
"""What a pickle of tensors, arrays and plain values is made of, protocols 0 to 5."""


class Unreadable(Exception):
    """The file is not read; the message says why."""


class Ordered(dict[Any, Any]):
    """Stands for `collections.OrderedDict`; of its attributes it keeps none."""

    def __init__(self, pairs: Any = ()) -> None:
        pairs = [(key, value) for key, value in pairs]
        _check_keys([key for key, _ in pairs])
        super().__init__(pairs)

    def __setstate__(self, state: Any) -> None:
        """torch's state dicts have one attribute, the versions of their modules."""
        if not isinstance(state, dict) or state.keys() - {"_metadata"}:
            raise Unreadable("it holds more than tensors and plain values")


UNPICKLER: Any = pickle._Unpickler  # type: ignore[attr-defined]
"""Python's own, the one written in Python: the other makes room as it is told."""


class PlainUnpickler(UNPICKLER):
    """Refuses keys other than text and numbers. A subclass says what names stand for, and of which
    classes the objects are that a pickle may set attributes of."""

    built: tuple[type, ...] = (Ordered,)
    dispatch: ClassVar[dict[int, Any]] = dict(UNPICKLER.dispatch)

    def load_build(self) -> None:
        if not isinstance(self.stack[-2], self.built):
            raise Unreadable("it holds more than tensors and plain values")
        super().load_build()

    def load_setitem(self) -> None:
        _check_keys(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self) -> None:
        _check_keys(self.stack[::2])  # what was put there since the last mark
        super().load_setitems()

    def load_dict(self) -> None:
        _check_keys(self.stack[::2])
        super().load_dict()

    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.DICT[0]] = load_dict
    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems


def _check_keys(keys: list[Any]) -> None:
    for key in keys:
        if not isinstance(key, str | int | float):
            raise Unreadable(f"it holds a key of type {type(key).__name__}, not text or a number")


def count_steps(file: BinaryIO) -> int:
    """The steps of one pickle; the file is left behind it.

    Raises Unreadable for too many, for a step that plain values do not need, and for an entry of
    the pickle's memory whose number is larger than the pickle could have reached.
    """
    number = 0
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if number >= MAX_STEPS:
                raise Unreadable(f"it holds more than {MAX_STEPS:,} values")
            if opcode.name not in STEPS:
                raise Unreadable("it holds more than tensors and plain values")
            if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > number:
                raise Unreadable("it is damaged")
    except (ValueError, UnicodeError, EOFError):
        raise Unreadable("it is damaged") from None
    return number


def load_plain(content: bytes, unpickler: type[PlainUnpickler], **options: Any) -> Any:
    """The value of a pickle. Raises Unreadable."""
    count_steps(io.BytesIO(content))
    try:
        return unpickler(io.BytesIO(content), **options).load()
    except Unreadable:
        raise
    except pickle.UnpicklingError as error:
        raise Unreadable(str(error)) from None
    except Exception:  # a damaged pickle raises of many kinds
        raise Unreadable("it is damaged") from None


def written_out(value: Any) -> int:
    """The number of values inside nested dicts and lists, one that is there twice counted twice.

    Raises Unreadable for what lies in itself or too deep.
    """
    return _written_out(value, {}, 0)


def _written_out(value: Any, known: dict[int, int], depth: int) -> int:
    if not isinstance(value, dict | list | tuple | set):
        return 1
    if depth > MAX_DEPTH:
        raise Unreadable(f"its lists and dicts lie more than {MAX_DEPTH} deep")
    if id(value) not in known:
        parts = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_written_out(part, known, depth + 1) for part in parts)
    return known[id(value)]
