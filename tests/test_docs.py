"""The documents: every part that is shipped has its section, every number is computed, no link is
dead."""

from __future__ import annotations

import doctest
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from detector.config.registry import LOSSES, REGISTRIES
from detector.config.schema import Plug
from tests.commands import ROOT
from tests.data.files import write_image
from tests.shipped import SHIPPED
from tests.training.tiny import go, tiny

DOCS = ROOT / "docs"
LOSSES_PAGE = (DOCS / "losses.md").read_text(encoding="utf-8")
GROUPS = {"Class losses": "loss", "Box losses": "box_loss", "Matchers": "matcher"}
"""Headings of the page, and the kinds of parts that have a section below them."""

PARTS = [(group, name) for group, kind in GROUPS.items() for name in SHIPPED[kind]]
PAGES = ["losses.md", "why-focal.md"]
"""With numbers that their code makes."""

DOCUMENTS = sorted(str(p.relative_to(ROOT)) for p in [*DOCS.glob("*.md"), *ROOT.glob("*.md")])
MOST_BYTES = 60_000


def sections(group: str) -> dict[str, str]:
    """Text by name of the sections below a heading of the page."""
    (body,) = re.findall(rf"^## {group}\n(.*?)(?=^## |\Z)", LOSSES_PAGE, re.S | re.M)
    parts = re.split(r"^### `(\w+)`\n", body, flags=re.M)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def table(text: str, *head: str) -> list[list[str]]:
    """Cells of the rows of a Markdown table with these columns; nothing without such a table."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    if list(head) not in rows:
        return []
    return [row for row in rows[rows.index(list(head)) + 2 :] if len(row) == len(head)]


def test_the_list_of_what_is_shipped_has_lost_nothing() -> None:
    """A name that is dropped from it would take its duties along, unseen by every test below."""
    counts = {kind: len(names) for kind, names in SHIPPED.items()}
    assert counts == {
        "loss": 22,
        "box_loss": 10,
        "matcher": 6,
        "backbone": 12,
        "neck": 3,
        "data": 6,
    }
    for kind, names in SHIPPED.items():
        assert list(names) == sorted(set(names)), kind
        for name in names:
            assert (ROOT / "configs" / kind / f"{name}.yaml").is_file(), f"{kind}={name}"
    for kind in GROUPS.values():
        assert set(SHIPPED[kind]) <= set(REGISTRIES[kind].names)


@pytest.mark.parametrize("group", GROUPS)
def test_every_shipped_part_has_a_section_and_no_other_has(group: str) -> None:
    assert tuple(sections(group)) == SHIPPED[GROUPS[group]]


@pytest.mark.parametrize(("group", "name"), PARTS)
def test_a_section_states_every_option_and_its_default(group: str, name: str) -> None:
    stated = {
        key.strip("`"): yaml.safe_load(default.strip("`"))
        for key, default, _ in table(sections(group)[name], "option", "default", "meaning")
    }
    parameters = inspect.signature(REGISTRIES[GROUPS[group]].get(name)).parameters.values()
    expected = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    # A fraction such as 1/9 is written with four digits.
    assert stated == {
        key: pytest.approx(value, rel=1e-3) if isinstance(value, float) else value
        for key, value in expected.items()
    }
    assert bool(expected) or "no options" in sections(group)[name].lower()


@pytest.mark.parametrize("name", SHIPPED["loss"])
def test_a_class_loss_has_formula_plot_use_and_faults(name: str) -> None:
    text = " ".join(sections("Class losses")[name].split())
    for part in (
        f"](plots/{name}.svg)",
        "```math",
        "**Take it**",
        "goes wrong:**",
        "**Reported:**",
    ):
        assert part in text, part


@pytest.mark.parametrize("name", SHIPPED["loss"])
def test_the_table_says_what_the_class_says(name: str) -> None:
    rows = table(LOSSES_PAGE, "loss", "layout", "divided by", "separable", "link inverse")
    by_name = {row[0]: row[1:] for row in rows}
    cls = LOSSES.get(name)
    scores = torch.tensor([0.5], dtype=torch.float64)
    known = [LOSSES.build(Plug(name, {}), k).link_inverse(scores) is not None for k in (1, 3)]
    link = {(True, True): "yes", (True, False): "one class", (False, False): "no"}[*known]
    assert by_name[f"[`{name}`](#{name})"] == [
        cls.layout_class.__name__,
        cls.normalizer,
        "yes" if cls.separable else "no",
        link,
    ]
    assert len(rows) == len(SHIPPED["loss"])


@pytest.mark.parametrize("page", DOCUMENTS)
def test_a_page_links_to_what_is_there(page: str) -> None:
    own = ROOT / page
    for target in re.findall(r"\]\(([^)]+)\)", own.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        if path.startswith("https:"):
            continue
        file = own.parent / path if path else own
        assert file.exists(), f"{page}: {target}"
        if anchor:
            assert anchor in anchors(file), f"{page}: {target}"


def anchors(file: Path) -> set[str]:
    """What GitHub calls the headings of a page; the second of a name ends in -1."""
    seen: dict[str, int] = {}
    found = set()
    for heading in re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.M):
        name = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.add(f"{name}-{seen[name]}" if name in seen else name)
        seen[name] = seen.get(name, 0) + 1
    return found


def test_plots_are_small_and_each_is_shown() -> None:
    pages = "".join((DOCS / page).read_text(encoding="utf-8") for page in PAGES)
    for file in (DOCS / "plots").iterdir():
        assert file.stat().st_size < MOST_BYTES, file
        assert f"](plots/{file.name})" in pages, file


@pytest.mark.parametrize("page", PAGES)
def test_the_numbers_of_a_page_are_those_of_its_code(page: str) -> None:
    result = doctest.testfile(str(DOCS / page), module_relative=False)
    assert result.failed == 0
    assert page == "losses.md" or result.attempted > 15


@pytest.mark.parametrize("page", DOCUMENTS)
def test_commands_name_what_is_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for tool in re.findall(r"((?:tools|scripts)/\w+\.(?:py|sh))", text):
        assert (ROOT / tool).is_file(), f"{page}: {tool}"
    for experiment in re.findall(r"experiment=([\w/]+)", text):
        assert (ROOT / f"configs/experiment/{experiment}.yaml").is_file(), f"{page}: {experiment}"


def python_of(section: str) -> list[str]:
    """The Python of a section of the README, piece by piece."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (body,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", text, re.S | re.M)
    return re.findall(r"^```python\n(.*?)^```", body, re.S | re.M)


@pytest.fixture
def as_a_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with the run and the image that the README speaks of, and no trace afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(LOSSES, "_classes", {**LOSSES._classes})
    go(tiny(tmp_path / "runs" / "mine"))
    write_image(tmp_path / "image.jpg", 64, 64)


def test_the_python_of_the_readme_runs(as_a_reader: None) -> None:
    pieces = python_of("From Python")
    assert len(pieces) == 3
    known: dict[str, Any] = {}
    for piece in pieces:
        exec(piece, known)
    assert Path("drawn.png").is_file()
    assert known["run"].metrics["AP"] == known["again"].metrics["AP"]
    assert known["logits"].grad.abs().sum() > 0
