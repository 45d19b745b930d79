"""Who may import whom, read from the source: downwards only, see CONTRIBUTING.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

FLOORS = (
    ("errors", "structures", "boxes"),
    ("layouts", "runtime", "evaluation", "drawing"),
    ("analysis",),
    ("config",),
    ("data", "models", "losses", "box_losses", "matchers", "optim", "plots", "runs"),
    ("criterion", "inference", "convert"),
    ("training",),
    ("laboratory",),
    ("cli",),
)
"""The rooms of the package, from below. A room imports rooms of lower floors only: those that stand
side by side do not know one another."""

EXEMPT = {
    "detector.data.annotations": "everybody",
    "detector.models": "plots",
    "detector.data": "runtime",
}
"""What may be imported upwards or sideways, and by whom: annotations by everybody, since they are
what a data set is; models by plots, which draw what a box loss does to boxes; data by `runtime`,
where memory is judged by the batches of a loader."""

CONFIG_LIBRARIES = {"hydra", "omegaconf"}
MOST_OF_A_ROOM = 0.18
"""Share of the package's lines."""


def level(room: str) -> int:
    """The floor of a room, counted from below."""
    return next(i for i, rooms in enumerate(FLOORS) if room in rooms)


BY_NAME = {"detector.config.registry"}
"""Modules whose texts name others by design: the table of folders whose files register parts. A
config names a part, and the table is what turns the name into an import."""


def names_in(tree: ast.Module, known: set[str]) -> Iterator[str]:
    """Dotted names of all that a module imports, at any depth of its code, also where a text is the
    name of a module: what is imported by name is imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative imports hide who is meant"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in known:
            yield node.value


def modules() -> dict[str, Path]:
    """The modules of the package by name; the package itself has the lazy table of its face."""
    files = sorted((ROOT / "detector").rglob("*.py"))
    dotted = {".".join(f.relative_to(ROOT).with_suffix("").parts): f for f in files}
    return {n.removesuffix(".__init__"): f for n, f in dotted.items() if n != "detector.__init__"}


MODULES = modules()


def room_of(name: str) -> str:
    """ "detector.models.head" -> "models"."""
    return name.split(".")[1] if "." in name else ""


def violations(module: str, source: str) -> list[str]:
    """The imports that a module may not have."""
    wrong = []
    own = room_of(module)
    texts = set() if module in BY_NAME else set(MODULES) - {module}
    for name in names_in(ast.parse(source), texts):
        top, room = name.partition(".")[0], room_of(name)
        is_room = top == "detector" and any(room in rooms for rooms in FLOORS)
        if is_room and room != own and not may_import(own, name, room):
            wrong.append(name)
        is_config = top in CONFIG_LIBRARIES and own not in ("cli",)
        if (is_config and module != "detector.config.compose") or top == "tools":
            wrong.append(name)
    return wrong


def may_import(own: str, name: str, room: str) -> bool:
    """Whether a room may import a module of another room."""
    if level(room) < level(own):
        return True
    for exempt, who in EXEMPT.items():
        if (name == exempt or name.startswith(f"{exempt}.")) and (
            who == "everybody" or own in who.split()
        ):
            return True
    return False


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_downwards_only(module: str) -> None:
    assert violations(module, MODULES[module].read_text()) == []


def test_every_room_has_its_floor() -> None:
    """A new room is stated above, or the rules would pass it over."""
    rooms = {room_of(name) for name in MODULES}
    assert rooms == {room for rooms in FLOORS for room in rooms}


def imports_of(module: str) -> set[str]:
    """The modules of the package that a module imports, under TYPE_CHECKING as well."""
    found = set()
    for name in names_in(ast.parse(MODULES[module].read_text()), set()):
        while name and name not in MODULES:
            name = name.rpartition(".")[0]
        if name and name != module:
            found.add(name)
    return found


def test_no_module_imports_itself_around_a_corner() -> None:
    graph = {module: imports_of(module) for module in MODULES}
    state: dict[str, int] = {}

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert state.get(module) != 1, " -> ".join((*path, module))
        if module not in state:
            state[module] = 1
            for other in sorted(graph[module]):
                visit(other, (*path, module))
            state[module] = 2

    for module in graph:
        visit(module, ())


def test_no_room_holds_most_of_the_house() -> None:
    lines: dict[str, int] = {}
    for module, file in MODULES.items():
        room = room_of(module)
        lines[room] = lines.get(room, 0) + len(file.read_text().splitlines())
    largest = max(lines, key=lines.__getitem__)
    assert lines[largest] <= MOST_OF_A_ROOM * sum(lines.values()), (largest, lines)


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("detector.models.head", "from detector.losses.focal import FocalLoss"),
        ("detector.models.head", "import detector.losses"),
        ("detector.models.head", "from detector import losses"),
        ("detector.losses.focal", "from detector.models.head import Head"),
        ("detector.losses.focal", "def f():\n    from detector.matchers import base"),
        ("detector.losses.focal", "from detector.criterion import Criterion"),
        ("detector.boxes", "from detector.losses import base"),
        ("detector.data.loader", "from detector.training import log"),
        ("detector.criterion.criterion", "from detector.training.setup import Setup"),
        ("detector.training.train", "from tools import train"),
        ("detector.training.train", "from detector.laboratory.compare import study"),
        ("detector.plots.losses.curves", "from detector.laboratory.compare import study"),
        ("detector.runs.launch", "import_module('detector.training.run')"),
        ("detector.training.train", "from omegaconf import OmegaConf"),
        ("detector.config.schema", "import hydra"),
    ],
)
def test_an_import_upwards_or_sideways_is_found(module: str, line: str) -> None:
    assert len(violations(module, line)) == 1


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("detector.training.train", "from detector.losses.base import ClassLoss"),
        ("detector.losses.ssd", "from detector.losses.mining import hardest"),
        ("detector.models.coder", "from detector import boxes"),
        ("detector.training.log", "from detector import __version__"),
        ("detector.laboratory.compare.study", "from detector.runs.launch import Job"),
        ("detector.criterion.weighting", "from detector.data.annotations import Annotations"),
        ("detector.config.compose", "from omegaconf import OmegaConf"),
    ],
)
def test_an_import_downwards_is_permitted(module: str, line: str) -> None:
    assert violations(module, line) == []


def test_the_package_has_modules_to_check() -> None:
    assert len(MODULES) > 100
    assert not [name for name in MODULES if re.search(r"\.(utils|misc)$", name)]
