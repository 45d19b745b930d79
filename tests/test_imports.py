"""Who may import whom, read from the source: downwards only, see CONTRIBUTING.md."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

BASE = {
    "boxes", "config", "distributed", "errors", "layouts", "model_config", "registry", "schema",
    "startup", "structures", "study_config", "tool_config",
}  # fmt: skip
"""Modules below all parts; every part may use them, and they use no part."""

PARTS = {
    "box_losses", "convert", "data", "drawing", "evaluation", "losses", "matchers", "models",
    "plots",
}  # fmt: skip
"""Side by side: none imports another; they meet in the types of `structures` and `layouts`."""

ABOVE = {
    "criterion": set[str](),
    "inference": set[str](),
    "engine": {"criterion", "inference"},
    "laboratory": {"criterion", "inference", "engine"},
}
"""What stands on the parts, and what of one another it may use: the laboratory is on top."""

CONFIG_LIBRARIES = {"hydra", "omegaconf"}


def imported(tree: ast.Module) -> Iterator[str]:
    """Absolute dotted names of everything a module imports, at any depth of its code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative imports hide who is meant"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def allowed_parts(part: str) -> set[str]:
    """What a direct child of `detector` may import of the other children."""
    if part in ABOVE:
        return BASE | PARTS | ABOVE[part] | {part}
    return BASE | {part} if part in PARTS else BASE


def violations(path: str, source: str) -> list[str]:
    """The imports that a file may not have. path: relative to the repository, such as
    "detector/models/head.py".
    """
    part = Path(path).with_suffix("").parts[1]
    wrong = []
    for name in imported(ast.parse(source)):
        top, _, rest = name.partition(".")
        child = rest.partition(".")[0]
        is_part = child in BASE | PARTS | set(ABOVE)
        is_upward = top == "detector" and is_part and child not in allowed_parts(part)
        is_config = top in CONFIG_LIBRARIES and path != "detector/config.py"
        if is_upward or is_config or top == "tools":
            wrong.append(name)
    return wrong


def modules() -> list[str]:
    return sorted(str(file.relative_to(ROOT)) for file in (ROOT / "detector").rglob("*.py"))


@pytest.mark.parametrize("path", modules())
def test_a_module_imports_downwards_only(path: str) -> None:
    assert violations(path, (ROOT / path).read_text()) == []


def test_every_child_of_the_package_has_its_place() -> None:
    """A new child is stated above, or the rules would pass it over."""
    children = {Path(path).with_suffix("").parts[1] for path in modules()}
    assert children - {"__init__"} <= BASE | PARTS | set(ABOVE)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("detector/models/head.py", "from detector.losses.focal import FocalLoss"),
        ("detector/models/head.py", "import detector.losses"),
        ("detector/models/head.py", "from detector import losses"),
        ("detector/losses/focal.py", "from detector.models.head import Head"),
        ("detector/losses/focal.py", "def f():\n    from detector.matchers import base"),
        ("detector/boxes.py", "from detector.losses import base"),
        ("detector/data/loader.py", "from detector.engine import log"),
        ("detector/losses/focal.py", "from detector.criterion import Criterion"),
        ("detector/criterion/criterion.py", "from detector.engine.setup import Setup"),
        ("detector/engine/train.py", "from tools import train"),
        ("detector/engine/train.py", "from detector.laboratory import study"),
        ("detector/plots/curves.py", "from detector.laboratory import study"),
        ("detector/engine/train.py", "from omegaconf import OmegaConf"),
        ("detector/schema.py", "import hydra"),
    ],
)
def test_an_import_upwards_or_sideways_is_found(path: str, line: str) -> None:
    assert len(violations(path, line)) == 1


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("detector/engine/train.py", "from detector.losses.base import ClassLoss"),
        ("detector/losses/ssd.py", "from detector.losses.mining import hardest"),
        ("detector/models/coder.py", "from detector import boxes"),
        ("detector/engine/log.py", "from detector import __version__"),
        ("detector/laboratory/study.py", "from detector.engine.launch import Job"),
        ("detector/config.py", "from omegaconf import OmegaConf"),
    ],
)
def test_an_import_downwards_is_permitted(path: str, line: str) -> None:
    assert violations(path, line) == []


def test_the_package_has_modules_to_check() -> None:
    assert len(modules()) > 20
