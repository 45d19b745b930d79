"""JSON that a run has written is read again: what is damaged is one line that names the file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from detector.errors import ConfigError
from detector.runs.side_files import NUMBER, read_record, read_records

KINDS = {"step": int, "AP": NUMBER | None}


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"[]", b"{", b"\xff\x00", b"[" * 100_000, b"9" * 5000, b'{"step": "1"}',
     b'{"step": 1, "AP": "x"}'],
)  # fmt: skip
def test_what_is_damaged_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    for read in (read_record, read_records):
        with pytest.raises(ConfigError, match=r"a\.json(, line 1)?: is (damaged|empty)"):
            read(path, KINDS)


def test_what_is_no_file_is_named_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("fifo", "loop", "missing", "."):
        with pytest.raises(ConfigError, match=r"is not a file|cannot be read"):
            read_record(tmp_path / name, KINDS)


def test_a_whole_one_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"step": 1, "AP": null}\n\n{"step": 2, "AP": 0.5, "more": []}\n')
    first, second = read_records(path, KINDS)
    assert (first["AP"], second) == (None, {"step": 2, "AP": 0.5, "more": []})
    path.write_text('{"step": 1, "AP": 1}')
    assert read_record(path, KINDS) == {"step": 1, "AP": 1}
