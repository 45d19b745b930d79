"""docs/parity.md names tests that are there and the options that the presets have."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest

from detector.convert.sources import SourceName
from tests.commands import ROOT
from tests.convert.foreign import preset

PAGE = (ROOT / "docs" / "parity.md").read_text(encoding="utf-8")
SOURCES = get_args(SourceName)


def rows(first: str) -> list[list[str]]:
    """Cells of the rows of the table whose head begins with that cell."""
    (table,) = re.findall(rf"^\| *{first} *\|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.M)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_every_test_it_names_is_there() -> None:
    code = "".join(p.read_text(encoding="utf-8") for p in Path(__file__).parent.glob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", PAGE)
    assert len(named) > 12
    assert [name for name in named if f"def {name}(" not in code] == []


def test_every_source_has_its_published_ap() -> None:
    assert {row[0].strip("`") for row in rows("source")} == set(SOURCES)


@pytest.mark.parametrize("source", SOURCES)
def test_the_options_are_those_of_the_presets(source: str) -> None:
    column = SOURCES.index(source) + 2
    plain, full = preset(source), preset("full")
    for row in rows(""):
        for values, stated in ((full, row[1]), (plain, row[column])):
            found: Any = values
            for key in row[0].strip("`").split("."):
                found = found[key]
            assert stated in (str(found), str(found).lower()), row[0]


@pytest.mark.parametrize("source", SOURCES)
def test_no_difference_of_a_preset_is_left_out(source: str) -> None:
    plain, full = preset(source)["model"], preset("full")["model"]
    named = {row[0].strip("`") for row in rows("")}
    differs = {
        f"model.{part}.{key}"
        for part, options in plain.items()
        for key, value in options.items()
        if value != full[part][key]
    }
    # What does not reach 0.05 is cut by all five alike, see the presets.
    assert differs - named <= {"model.postprocess.score_threshold"}
