"""Files of torch and pickles that claim more than they hold are refused before room is made.

They are read by a process of its own, whose greatest memory is looked at after each.
"""

from __future__ import annotations

import io
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from detector.convert.files import read_state
from detector.runtime import archive
from detector.runtime.pickles import Unreadable, load_plain

READ = """
import resource, sys, time
from pathlib import Path
from detector.convert.files import read_state
from detector.errors import ConfigError
from detector.runs.checkpoint import load

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

begin, before = time.monotonic(), peak()
for path in sorted(Path(sys.argv[1]).iterdir()):
    for call in (load, read_state):
        try:
            call(path)
        except ConfigError as error:
            assert "\\n" not in str(error) and len(str(error)) < 1000, error
        else:
            raise AssertionError(f"{path} was read")
    assert peak() - before < 400_000, f"{path}: {peak() - before} kB"
assert time.monotonic() - begin < 100
"""

TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"


def pt(changes: Callable[[bytes], bytes], **options: Any) -> bytes:
    """A file of torch's with one tensor of 4 numbers, and what `changes` makes of its pickle."""
    buffer, out = io.BytesIO(), io.BytesIO()
    torch.save({"format_version": 1, "model": {"w": torch.arange(4.0)}}, buffer)
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(out, "w", **options) as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, changes(content) if name.endswith("data.pkl") else content)
    return out.getvalue()


def integer(value: int) -> bytes:
    """As a pickle holds it."""
    return b"\x8a\x08" + struct.pack("<q", value)


def nested(levels: int, kind: bytes) -> bytes:
    """A pickle of lists or tuples, each of which holds the one before twice."""
    steps = [b"\x80\x02" + (b"]" if kind == b"]" else b")") + b"q\x00"]
    for i in range(levels):
        once = b"h" + bytes([i])
        pair = b"](" + once * 2 + b"e" if kind == b"]" else once * 2 + b"\x86"
        steps.append(pair + b"q" + bytes([i + 1]))
    return b"".join(steps)


BOMBS: dict[str, Callable[[], bytes]] = {
    "memory of a pickle": lambda: b"\x80\x02Nr\xff\xff\xff\x7f.",
    "bytes of a pickle": lambda: b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",
    "bytearray of a pickle": lambda: b"\x80\x05\x96" + struct.pack("<Q", 2**33) + b"x.",
    "bytearray that is called": lambda: pt(
        lambda _: b"\x80\x02cbuiltins\nbytearray\n" + integer(2**33) + b"\x85R."
    ),
    "lists without end": lambda: b"\x80\x02](" + b"]" * 3_000_000 + b"e.",
    "lists without end in an archive": lambda: pt(
        lambda _: b"\x80\x02](" + b"}" * 3_000_000 + b"e."
    ),
    "lists that double": lambda: pt(lambda _: nested(100, b"]") + b"."),
    "a key that doubles": lambda: b"\x80\x02}" + nested(100, b")")[2:] + b"K\x01s.",
    "a key that doubles in an archive": lambda: pt(
        lambda _: b"\x80\x02}" + nested(100, b")")[2:] + b"K\x01s."
    ),
    "a tensor larger than its record": lambda: pt(
        lambda p: p.replace(b"K\x00K\x04\x85", b"K\x00" + integer(2**33) + b"\x85")
    ),
    "a tensor that repeats a number": lambda: pt(
        lambda p: p.replace(b"K\x00K\x04\x85", b"K\x00" + integer(2**33) + b"\x85").replace(
            b"K\x01\x85", b"K\x00\x85"
        )
    ),
    "a tensor that begins behind its record": lambda: pt(
        lambda p: p.replace(b"QK\x00K\x04\x85", b"Q" + integer(2**33) + b"K\x04\x85")
    ),
    "a storage larger than its record": lambda: pt(
        lambda p: p.replace(b"K\x04tq", integer(2**31) + b"tq", 1)
    ),
    "a compressed archive": lambda: pt(
        lambda p: p[:-1] + b"X" + struct.pack("<I", 2**28) + b"x" * 2**28 + b"0.",
        compression=zipfile.ZIP_DEFLATED,
    ),
    "an old file of torch's": lambda: old(b"\x80\x02](" + b"]" * 3_000_000 + b"e."),
    "an old file with a large tensor": lambda: old(
        b"\x80\x02}X\x01\x00\x00\x00w"
        + TENSOR
        + b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
        + integer(2**33)
        + b"NtQK\x00"
        + integer(2**33)
        + b"\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtRs."
    ),
}


def old(main: bytes) -> bytes:
    """A file as torch before 1.6 wrote it, around a pickle."""
    parts = [archive.LEGACY, pickle.dumps(1001, 2), pickle.dumps({}, 2), main]
    return b"".join([*parts, pickle.dumps(["0"], 2)])


def test_what_claims_more_than_it_holds_is_refused_in_little_memory(tmp_path: Path) -> None:
    for name, make in BOMBS.items():
        for suffix in (".pkl", ".pth"):
            (tmp_path / f"{name}{suffix}").write_bytes(make())
    done = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("is_zip", [True, False])
def test_what_torch_writes_is_read(tmp_path: Path, is_zip: bool) -> None:
    """Views, parameters, every kind of number, a tensor that is there twice, modules' versions."""
    whole = torch.arange(12.0).reshape(3, 4)
    content = {
        "view": whole[:, 1],
        "turned": whole.t(),
        "again": whole,
        "empty": torch.zeros(0, 4),
        "scalar": torch.tensor(3),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "channels_last": torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last),
        **{
            str(kind): torch.ones(2, dtype=kind)
            for kind in (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool)
        },
        **torch.nn.Sequential(torch.nn.BatchNorm2d(2)).state_dict(),
    }
    path = tmp_path / "a.pth"
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    found = read_state(path)
    assert found.keys() == content.keys()
    for name, value in content.items():
        assert torch.equal(found[name], value), name
        assert found[name].stride() == value.stride(), name


def test_a_state_dict_with_its_versions_is_read(tmp_path: Path) -> None:
    state = torch.nn.Sequential(torch.nn.BatchNorm2d(2)).state_dict()
    for is_zip in (True, False):
        torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=is_zip)
        assert read_state(tmp_path / "a.pth").keys() == state.keys()


@pytest.mark.parametrize("step", [b"(ios\nsystem\n.", b"(cos\nsystem\no.", b"]2.", b"]]b."])
def test_steps_that_plain_values_do_not_need_are_refused(step: bytes) -> None:
    with pytest.raises(Unreadable):
        load_plain(b"\x80\x02" + step, archive.ClaimsUnpickler)
