"""Files of others are read without running anything in them."""

from __future__ import annotations

import collections
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detector.convert.files import read_state
from detector.errors import ConfigError
from tests.commands import Command

ARRAYS: dict[str, Any] = {
    "weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "fortran": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    "big_endian": np.array([1.5, -2.0, 1e9], dtype=">f4"),
    "half": np.array([0.1, 65504], dtype=np.float16),
    "double": np.array([np.pi, 1e-300]),
    "counter": np.array(7, dtype=np.int64),
    "bytes": np.arange(256, dtype=np.uint8),
    "is_on": np.array([True, False]),
    "strided": np.arange(20, dtype=np.float32)[::3],
    "empty": np.zeros((0, 4), np.float32),
}


def pickled(path: Path, content: Any, protocol: int = 2) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_arrays_are_read_to_the_bit(tmp_path: Path, protocol: int) -> None:
    """As detectron2 writes its files: names and arrays below `model`, and who made them."""
    content = {"model": ARRAYS, "__author__": "Detectron2 Model Zoo", "matching_heuristics": True}
    found = read_state(pickled(tmp_path / "model.pkl", content, protocol))
    assert list(found) == list(ARRAYS)
    for name, value in ARRAYS.items():
        assert found[name].shape == value.shape
        assert np.array_equal(found[name].numpy(), value), name
        assert found[name].numpy().dtype == value.dtype.newbyteorder("=")


def test_names_without_a_dict_around_them_are_read_too(tmp_path: Path) -> None:
    ordered = collections.OrderedDict(weight=ARRAYS["weight"])
    assert list(read_state(pickled(tmp_path / "m.pkl", ordered))) == ["weight"]


class Calls:
    """Pickles as the call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def object_array(marker: Path) -> Any:
    """numpy would build the objects of an array, and call what they say."""
    return np.array([Calls(os.system, f"touch {marker}")], dtype=object)


MALICIOUS = {
    "os.system": lambda marker: Calls(os.system, f"touch {marker}"),
    "eval": lambda marker: Calls(eval, f"open({str(marker)!r}, 'w')"),
    "exec": lambda marker: Calls(exec, f"open({str(marker)!r}, 'w')"),
    "open": lambda marker: Calls(open, str(marker), "w"),
    "numpy.save": lambda marker: Calls(np.save, str(marker), np.zeros(1)),
    "bytearray": lambda marker: Calls(bytearray, 1 << 10),
    "getattr": lambda marker: Calls(getattr, "text", "upper"),
    "objects": object_array,
}


@pytest.mark.parametrize("kind", MALICIOUS)
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_with_code_is_refused_and_the_code_not_run(
    tmp_path: Path, kind: str, protocol: int
) -> None:
    marker = tmp_path / "was_here"
    content = {"model": {"weight": ARRAYS["weight"], "bias": MALICIOUS[kind](marker)}}
    path = pickled(tmp_path / "model.pkl", content, protocol)
    with pytest.raises(ConfigError, match=r"only arrays of numbers are read|not of numbers"):
        read_state(path)
    assert not list(tmp_path.glob("was_here*"))


def test_the_code_of_these_pickles_does_run_where_nothing_restricts_it(tmp_path: Path) -> None:
    """Without this the test above would pass on pickles that do nothing."""
    for kind in ("os.system", "eval", "exec", "open", "numpy.save", "objects"):
        marker = tmp_path / f"{kind}_was_here"
        pickle.loads(pickle.dumps(MALICIOUS[kind](marker)))
        assert list(tmp_path.glob(f"{kind}_was_here*")), kind


def test_code_in_a_file_of_torch_is_refused_and_not_run(tmp_path: Path) -> None:
    marker, path = tmp_path / "was_here", tmp_path / "model.pth"
    torch.save({"weight": torch.zeros(2), "bias": Calls(os.system, f"touch {marker}")}, path)
    with pytest.raises(ConfigError, match="holds more than tensors and plain values"):
        read_state(path)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["model.pkl", "model.pth"])
def test_a_damaged_file_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("pkl"):
        pickled(path, {"model": ARRAYS})
    else:
        torch.save({"weight": torch.zeros(1000)}, path)
    whole = path.read_bytes()
    for length in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ConfigError, match=rf"^weights: {path} cannot be read: "):
            read_state(path)


@pytest.mark.parametrize("content", [{}, [1, 2], "text", {"weight": "text"}, {"model": {"a": 1}}])
def test_what_is_no_state_dict_is_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(ConfigError, match=r"holds no state dict|is no tensor but a"):
        read_state(pickled(tmp_path / "model.pkl", content))
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(ConfigError, match=r"holds no state dict|is no tensor but a"):
        read_state(tmp_path / "model.pth")


def test_the_tool_says_so_in_one_line(tmp_path: Path, command: Command) -> None:
    marker = tmp_path / "was_here"
    pickled(tmp_path / "evil.pkl", {"model": {"w": MALICIOUS["os.system"](marker)}})
    done = command("convert", "source=detectron2", "weights=evil.pkl", "output=ours.pt")
    name = Calls(os.system).call[0].__module__  # posix, or nt on Windows
    wanted = f"weights: evil.pkl cannot be read: it holds {name}.system, only arrays of numbers"
    assert done.code == 2
    assert done.message == f"{wanted} are read"
    assert not marker.exists()
    assert not (tmp_path / "ours.pt").exists()
