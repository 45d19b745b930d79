"""Options stay in the range that stands beside their type, whoever gives them."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import Annotated

import pytest

from detector.cli import allowed
from detector.config.ranges import (
    Above,
    AtLeast,
    Between,
    Range,
    checked,
    require_in_range,
    require_ranges,
    stated_by,
)
from detector.config.registry import REGISTRIES
from detector.config.schema import Plug, options_of
from detector.errors import ConfigError

OPEN = Between(0, 1, is_above=True, is_below=True)


@pytest.mark.parametrize(
    ("limit", "inside", "outside", "words"),
    [
        (AtLeast(0), (0, 0.5, math.inf), (-1, -1e-9, math.nan), "at least 0"),
        (Above(0), (1e-9, 3), (0, -0.0, -1), "above 0"),
        (Between(0, 1), (0, 1), (-0.1, 1.1, math.nan), "0 to 1"),
        (Between(0, 1, is_below=True), (0, 0.99), (1, 2), "0 to below 1"),
        (Between(0, 1, is_above=True), (0.1, 1), (0, 1.5), "above 0 and at most 1"),
        (OPEN, (0.5,), (0, 1), "above 0 and below 1"),
    ],
)
def test_a_range_holds_what_it_says(
    limit: Range, inside: tuple[float, ...], outside: tuple[float, ...], words: str
) -> None:
    assert str(limit) == words
    assert all(map(limit.holds, inside))
    assert not any(map(limit.holds, outside))
    assert limit.holds(inside)  # each of several
    assert not limit.holds((*inside, outside[0]))
    assert limit.holds(None)
    assert limit.holds("auto")


def test_what_is_outside_is_said_with_what_is_allowed() -> None:
    for annotation, message in (
        (Annotated[float, AtLeast(0)], "x: -1 given, at least 0 is needed"),
        (Annotated[float | None, AtLeast(0)], "x: -1 given, at least 0 or null is needed"),
        (Annotated[float, OPEN], "x: -1 given, above 0 and below 1 is allowed"),
    ):
        with pytest.raises(ConfigError) as caught:
            require_in_range(annotation, -1, "x")
        assert str(caught.value) == message


def test_a_dataclass_and_a_constructor_are_looked_at() -> None:
    @dataclass(frozen=True)
    class Node:
        size: Annotated[int, AtLeast(1)] = 1

        def __post_init__(self) -> None:
            require_ranges(self)

    @checked
    def part(num: int, *, gamma: Annotated[float, Above(0)] = 2.0) -> float:
        return num * gamma

    with pytest.raises(ConfigError, match="size: 0 given, at least 1 is needed"):
        Node(0)
    with pytest.raises(ConfigError, match="gamma: 0 given, above 0 is needed"):
        part(3, gamma=0)
    assert part(3, gamma=0.5) == 1.5
    assert [*inspect.signature(part).parameters] == ["num", "gamma"]


def test_what_help_reads_as_text_is_what_the_parts_state() -> None:
    """Of every part that has no constructor of another: `--help` does not import it."""
    seen = 0
    for kind, registry in REGISTRIES.items():
        for name in registry.names:
            cls = registry.get(name)
            stated = {
                key: next(note for note in annotation.__metadata__ if isinstance(note, Range))
                for key, annotation in stated_by(cls.__init__).items()
                if key in options_of(cls)
            }
            if "__init__" in vars(cls):
                assert allowed.of_part(kind, name) == stated, f"{kind}={name}"
                seen += len(stated)
    assert seen > 0


def test_a_part_is_checked_from_python_as_from_a_config() -> None:
    box_losses = REGISTRIES["box_loss"]
    with pytest.raises(ConfigError, match=r"^box_loss.constant: 0.0 given, above 0 is needed$"):
        box_losses.build(Plug("nwd", {"constant": 0}))
    with pytest.raises(ConfigError, match=r"^constant: 0 given, above 0 is needed$"):
        box_losses.get("nwd")(constant=0)


def test_ranges_of_a_run_and_of_a_command_are_found_without_torch() -> None:
    assert allowed.of_run()["model.coder.bins"] == AtLeast(2)
    assert allowed.of_command("calibrate")["draws"] == AtLeast(0)
    assert allowed.of_command("no_such_command") == {}
