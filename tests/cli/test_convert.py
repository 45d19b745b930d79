"""What `detector convert` says to go on with; what it writes is tested in tests/convert."""

from __future__ import annotations

import sys

import pytest

from detector.cli.convert import call_of


@pytest.mark.parametrize(
    ("program", "said"),
    [("tools/convert.py", "python tools/train.py"), ("detector convert", "detector train")],
)
def test_the_next_command_is_called_in_the_way_that_this_one_was(
    monkeypatch: pytest.MonkeyPatch, program: str, said: str
) -> None:
    monkeypatch.setattr(sys, "argv", [program, "source=mmdet"])
    assert call_of("train") == said
