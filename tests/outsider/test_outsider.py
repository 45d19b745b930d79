"""The harness itself: its rows, its draws, its verdicts, and one random fault of each place."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import ROOT
from tests.guarantees.page import PAGE, figures, table_of
from tests.outsider import grammar, random_faults
from tests.outsider.__main__ import ROWS
from tests.outsider.grammar import DAMAGES, PLACES, Fault
from tests.outsider.listed import LISTED
from tests.outsider.random_faults import TRAIN, Outcome, Server, judge, listing

KEYS = {name: ["seed"] for name in ("train", "evaluate", "predict", "check_data")}


def test_the_page_has_every_row_and_no_other() -> None:
    assert list(figures(table_of(PAGE.read_text(), "tests.outsider"))) == list(ROWS)


def test_all_forty_two_are_there() -> None:
    """29 is that of another program."""
    numbers = {int(name[1:3]) for name in ROWS if re.match(r"f\d\d_", name)}
    assert numbers == set(range(1, 43))


@pytest.mark.parametrize("test", sorted({t for _, tests in LISTED.values() for t in tests}))
def test_every_test_that_a_row_runs_is_there(test: str) -> None:
    file, *names = test.split("::")
    source = (ROOT / "tests" / file).read_text()
    for name in names:
        assert re.search(rf"(def|class) {name}\b", source)


def test_a_fault_follows_from_its_seed_and_number_alone() -> None:
    faults = [grammar.draw(3, n, KEYS, TRAIN) for n in range(50)]
    assert [grammar.draw(3, n, KEYS, TRAIN) for n in reversed(range(50))] == faults[::-1]
    assert [grammar.draw(4, n, KEYS, TRAIN) for n in range(50)] != faults


@pytest.mark.parametrize("kind", DAMAGES)
def test_every_kind_of_damage_leaves_something_else(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    path.write_text('{"a": 1, "b": [2, 3]}')
    before = listing(tmp_path)
    draws = random.Random(1)
    DAMAGES[kind](path, draws)
    assert listing(tmp_path) != before


NOTHING = Fault("gone", "run/log.jsonl", "before", "table", ("folder=.",), is_damage=True)

VERDICTS = {
    "traceback": Outcome(1, 1.0, "", "Traceback (most recent call last):"),
    "exit 1": Outcome(1, 1.0, "", "error: a"),
    "no word": Outcome(2, 1.0, "", ""),
}


@pytest.mark.parametrize("wrong", VERDICTS)
def test_what_must_not_be_is_noted(tmp_path: Path, wrong: str) -> None:
    outcome = VERDICTS[wrong]
    judge(tmp_path, NOTHING, outcome, listing(tmp_path), -1)
    assert wrong in outcome.wrong


def test_what_is_gone_or_another_is_noted(tmp_path: Path) -> None:
    for name in ("neighbour/precious.txt", "run/notes.txt", "run/log.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("a")
    before, outcome = listing(tmp_path), Outcome(0, 1.0, "", "")
    judge(tmp_path, NOTHING, outcome, before, -1)
    assert outcome.wrong == []
    (tmp_path / "neighbour/precious.txt").write_text("b")
    (tmp_path / "run/notes.txt").unlink()
    judge(tmp_path, NOTHING, outcome, before, 2)  # two steps had been saved
    assert outcome.wrong == ["outside: neighbour/precious.txt", "notes of the user", "lost a save"]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    folder = tmp_path_factory.mktemp("faults") / "template"
    folder.mkdir()
    with random_faults.served() as server:
        random_faults.template(server, folder)
        yield server, folder


def first_of(place: str) -> int:
    """The number of the first fault of a place, with seed 1."""
    for number in range(1000):
        draws = random.Random(f"1/{number}")
        weights = [weight for _, weight in PLACES.values()]
        if draws.choices(list(PLACES), weights=weights)[0] == place:
            return number
    raise AssertionError(place)


@pytest.mark.parametrize("place", PLACES)
def test_a_random_fault_of_each_place_is_answered(
    original: tuple[Server, Path], tmp_path: Path, place: str
) -> None:
    server, folder = original
    keys = random_faults.keys_of_commands()
    fault = grammar.draw(1, first_of(place), keys, TRAIN)
    outcome = random_faults.tried(server, folder, tmp_path / "case", fault)
    assert outcome.wrong == [], f"{fault}: exit {outcome.code}: {outcome.err}"
