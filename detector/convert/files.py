"""Reads the files of others without running code in them."""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from detector.errors import ConfigError
from detector.runtime import archive
from detector.runtime.pickles import Ordered, PlainUnpickler, Unreadable, load_plain

STATE_KEYS = ("state_dict", "model")
"""Under which of them a state dict lies in a file that holds more."""

DTYPES = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"}
"""Numbers. An array of objects would be made of whatever the file says."""


def read_state(path: Path) -> dict[str, Tensor]:
    """Names and tensors of a file: pickled arrays (.pkl, detectron2), else a file of torch's.

    Raises ConfigError for a file that cannot be read, or that holds anything else.
    """
    if not path.is_file():
        raise ConfigError(f"weights: {path} is not a file")
    content = read_pickle(path) if path.suffix == ".pkl" else read_torch(path)
    for key in STATE_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise ConfigError(f"weights: {path} holds no state dict (names and tensors)")
    tensors = {str(name): _tensor(path, str(name), value) for name, value in content.items()}
    arrays = {id(value): value.num_bytes for value in content.values() if isinstance(value, Array)}
    if sum(arrays.values()) > path.stat().st_size:
        raise ConfigError(f"weights: {path}: its arrays claim to be larger than the file")
    return tensors


def _tensor(path: Path, name: str, value: Any) -> Tensor:
    if isinstance(value, Array):
        return value.tensor
    if isinstance(value, Tensor):
        return value
    raise ConfigError(f"weights: {path}: {name} is no tensor but a {type(value).__name__}")


def read_torch(path: Path) -> Any:
    """What `torch.save` was given. Raises ConfigError."""
    try:
        with open(path, "rb") as file:
            return archive.read(file, legacy=True)
    except OSError as error:
        raise ConfigError(f"weights: {path} cannot be read: {error.strerror or error}") from None
    except Unreadable as error:
        hint = (
            "; where you trust it, save its state dict alone" if "holds more" in str(error) else ""
        )
        raise ConfigError(f"weights: {path} cannot be read: {error}{hint}") from None


def read_pickle(path: Path) -> Any:
    """Plain values and `Array`s of a pickle. Raises ConfigError for one that holds more."""
    try:
        content = path.read_bytes()
        return load_plain(content, ArrayUnpickler, encoding="latin1")
    except OSError as error:
        raise ConfigError(f"weights: {path} cannot be read: {error.strerror or error}") from None
    except Unreadable as error:
        raise ConfigError(f"weights: {path} cannot be read: {error}") from None


class ArrayUnpickler(PlainUnpickler):
    """Knows numbers, text, lists, dicts and numpy's arrays of numbers.

    Arrays are put together here: what a pickle names is never looked up, so nothing of it is
    called, numpy's own code included.
    """

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        # numpy 2 has moved its `core`; files of either have to be read.
        module = module_name.replace("numpy._core", "numpy.core")
        found = ALLOWED.get((module, global_name))
        if found is None:
            raise pickle.UnpicklingError(
                f"it holds {module_name}.{global_name}, only arrays of numbers are read"
            )
        return found


class DType:
    """Stands for `numpy.dtype`: the kind and size of numbers, then the order of their bytes."""

    def __init__(self, code: str, *_: Any) -> None:
        if code not in DTYPES:
            raise pickle.UnpicklingError(f"it holds an array of type {code!r}, not of numbers")
        self.dtype: np.dtype[Any] = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1] if state[1] in ("<", ">") else "="
        self.dtype = self.dtype.newbyteorder(order)


class Array:
    """Stands for `numpy.ndarray`. Its numbers are copied when they are asked for, not before: a
    pickle can name the same bytes many times."""

    data: bytes | str = b""
    dtype = np.dtype("f4")
    shape: tuple[int, ...] = (0,)
    order: Literal["C", "F"] = "C"

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_fortran, data = state
        self.fill(data, dtype, shape, "F" if is_fortran else "C")

    def fill(self, data: bytes | str, dtype: DType, shape: tuple[int, ...], order: str) -> None:
        """Raises Unreadable where the data are not those of the shape."""
        self.data, self.dtype, self.shape = data, dtype.dtype, tuple(map(int, shape))
        self.order = "F" if order == "F" else "C"
        if min(self.shape, default=0) < 0 or len(data) != self.num_bytes:
            raise Unreadable("it is damaged")

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @cached_property
    def tensor(self) -> Tensor:
        """The numbers in the machine's order of bytes."""
        data = self.data.encode("latin1") if isinstance(self.data, str) else self.data
        values = np.frombuffer(data, self.dtype).reshape(self.shape, order=self.order)
        return torch.from_numpy(np.array(values, self.dtype.newbyteorder("="), order="C"))


def from_buffer(data: bytes, dtype: DType, shape: tuple[int, ...], order: str) -> Array:
    """An array as pickles of protocol 5 hold it."""
    array = Array()
    array.fill(data, dtype, shape, order)
    return array


def encode(text: str, encoding: str) -> str:
    """Bytes as pickles of protocol 2 hold them, left as text: `Array` knows what it stands for."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(
            f"it holds text in {encoding}, only arrays of numbers are read"
        )
    return text


def no_bytes() -> bytes:
    """Those of an array without numbers, which protocol 2 holds as a call of `bytes`."""
    return b""


ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): Array,
    ("numpy.core.numeric", "_frombuffer"): from_buffer,
    ("numpy", "ndarray"): Array,
    ("numpy", "dtype"): DType,
    ("_codecs", "encode"): encode,
    ("__builtin__", "bytes"): no_bytes,
    ("collections", "OrderedDict"): Ordered,
}
"""What a pickle may name, and what it gets."""

ArrayUnpickler.built = (Array, DType, Ordered)
