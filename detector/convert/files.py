"""Reads the files of others without running code in them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detector.errors import ConfigError

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
    return {str(name): _tensor(path, str(name), value) for name, value in content.items()}


def _tensor(path: Path, name: str, value: Any) -> Tensor:
    if isinstance(value, Array):
        return torch.from_numpy(value.values)
    if isinstance(value, Tensor):
        return value
    raise ConfigError(f"weights: {path}: {name} is no tensor but a {type(value).__name__}")


def read_torch(path: Path) -> Any:
    """What `torch.save` was given. Raises ConfigError."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ConfigError(f"weights: {path} cannot be read: {error.strerror or error}") from None
    except Exception:  # of many kinds, whose words advise to switch `weights_only` off
        raise ConfigError(
            f"weights: {path} cannot be read: it is damaged, or holds more than tensors and plain "
            "values; where you trust it, save its state dict alone"
        ) from None


def read_pickle(path: Path) -> Any:
    """Plain values and `Array`s of a pickle. Raises ConfigError for one that holds more."""
    try:
        with open(path, "rb") as file:
            return ArrayUnpickler(file, encoding="latin1").load()
    except OSError as error:
        raise ConfigError(f"weights: {path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # a damaged pickle raises of many kinds
        reason = str(error) if isinstance(error, pickle.UnpicklingError) else "it is damaged"
        raise ConfigError(f"weights: {path} cannot be read: {reason}") from None


class ArrayUnpickler(pickle.Unpickler):
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
    """Stands for `numpy.ndarray`."""

    values: NDArray[Any]

    def __init__(self, *_: Any) -> None:
        self.values = np.zeros(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_fortran, data = state
        content = data.encode("latin1") if isinstance(data, str) else data
        self.values = make_array(content, dtype, shape, "F" if is_fortran else "C")


def make_array(data: bytes, dtype: DType, shape: tuple[int, ...], order: str) -> NDArray[Any]:
    """A copy of the numbers in the machine's order of bytes."""
    flat = np.frombuffer(data, dtype.dtype)
    values = flat.reshape(shape, order="F" if order == "F" else "C")
    return np.array(values, dtype.dtype.newbyteorder("="), order="C")


def from_buffer(data: bytes, dtype: DType, shape: tuple[int, ...], order: str) -> Array:
    """An array as pickles of protocol 5 hold it."""
    array = Array()
    array.values = make_array(data, dtype, shape, order)
    return array


def encode(text: str, encoding: str) -> bytes:
    """Bytes as pickles of protocol 2 hold them."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(
            f"it holds text in {encoding}, only arrays of numbers are read"
        )
    return text.encode("latin1")


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
    ("collections", "OrderedDict"): dict,
}
"""What a pickle may name, and what it gets."""
