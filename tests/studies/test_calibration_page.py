"""docs/calibration.md: its numbers are those of the files they come from, its commands work."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from calibration_page import BEGIN, END, block

from detector.inference.calibrated import link_of
from detector.losses.focal import FocalLoss
from tests.commands import ELSEWHERE, ROOT, TOOLS, Command

PAGE = (ROOT / "docs" / "calibration.md").read_text(encoding="utf-8")
STUDIES = ROOT / "docs" / "studies"

COMMANDS = [
    shlex.split(line.partition("  #")[0].replace("\\\n", " "))[1:]
    for text in re.findall(r"^```\n(.*?)^```", PAGE, re.S | re.M)
    for line in text.replace("\\\n", " ").splitlines()
    if line.startswith("python ")
]


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) > 8


@pytest.mark.parametrize("argv", COMMANDS, ids=" ".join)
def test_a_command_names_a_tool_that_is_there_and_keys_that_it_has(
    command: Command, argv: list[str]
) -> None:
    tool = Path(argv[0]).stem
    assert tool in {*TOOLS, *ELSEWHERE}
    assert (ROOT / argv[0]).is_file()
    seen = []
    outcome = command(tool, *argv[1:], run=seen.append)
    assert (outcome.code, outcome.err) == (0, "")
    assert len(seen) == 1


def test_the_scores_that_focal_loss_gives_are_those_of_its_closed_form() -> None:
    link = link_of(FocalLoss(1))
    assert link is not None
    for said, posterior in ((0.40, 0.5), (0.60, 0.9), (0.11, 0.01)):
        assert f"{said:.2f}" in PAGE
        # The score is rounded to two digits: the posterior lies between those of its neighbours.
        low, high = link(np.array([said - 0.005, said + 0.005]))
        assert low <= posterior <= high


def test_the_tables_of_the_generated_data_are_those_of_the_file() -> None:
    found = json.loads((STUDIES / "link_inverse_generated.json").read_text())
    errors = found["anchors"]["errors"]
    for words, kind, places in (("raw, all", "all", 5), ("raw above 0.05", "above", 4)):
        pairs = sum(found["anchors"]["bins"][f"raw, {kind}"]["counts"])
        cells = [f"| {words} | {pairs:,} "]
        for name in ("raw", "link_inverse"):
            row = errors[f"{name}, {kind}"]
            value, low, high = (f"{row[key]:.{places}f}" for key in ("value", "low", "high"))
            cells.append(f"| {value} ({low} .. {high}) ")
        assert "".join(cells) + "|" in PAGE
        removed = 1 - errors[f"link_inverse, {kind}"]["value"] / errors[f"raw, {kind}"]["value"]
        assert f"{removed:.0%}".replace("%", " %") in PAGE
    for method, row in found["methods"].items():
        wanted = [row["all"]["D-ECE"], row["shown"]["D-ECE"], row["shown"]["LaECE_0"]]
        cells = [f"{m['value']:.4f} ({m['low']:.4f} .. {m['high']:.4f})" for m in wanted]
        assert f"| {method} | {' | '.join(cells)} |" in PAGE


def test_the_tables_of_the_study_are_those_of_its_file() -> None:
    found = json.loads((STUDIES / "calibration_bccd.json").read_text())
    own = PAGE.split(BEGIN)[1].split(END)[0]
    assert own.strip() == block(found).strip()
