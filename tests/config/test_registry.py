"""Names become classes of this package, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from detector.config import Config
from detector.config.registry import REGISTRIES, Registry
from detector.config.schema import Plug
from detector.errors import ConfigError

MODULE = """
from parts_of_a_test import REGISTRY
from detector.config.schema import require

@REGISTRY.register("{name}")
class Part:
    def __init__(self, num_classes, *, size: int = 1):
        require(size > 0, f"size: {{size}} given, above 0 is needed")
        self.num_classes, self.size = num_classes, size
"""


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """A registry of a package of two files, found by the package's name."""
    package = tmp_path / "parts_of_a_test"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from detector.config.registry import Registry\n"
        "REGISTRY = Registry('part', 'parts_of_a_test')\n"
    )
    for name in ("round", "square"):
        (package / f"{name}.py").write_text(MODULE.format(name=name))
    monkeypatch.syspath_prepend(str(tmp_path))
    import parts_of_a_test  # type: ignore[import-not-found]

    yield parts_of_a_test.REGISTRY
    import sys

    for name in [name for name in sys.modules if name.startswith("parts_of_a_test")]:
        del sys.modules[name]


def test_a_new_file_is_all_that_a_new_name_needs(registry: Registry) -> None:
    assert registry.names == ["round", "square"]


def test_context_is_passed_before_the_options(registry: Registry) -> None:
    part = registry.build(Plug("round", {"size": 4}), 3)
    assert (part.num_classes, part.size) == (3, 4)


def test_an_unknown_name_lists_all_and_the_nearest(registry: Registry) -> None:
    with pytest.raises(ConfigError) as error:
        registry.get("sqare")
    assert str(error.value) == (
        "part=sqare: unknown (did you mean 'square'?); allowed: round, square"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": 2}, "part.sizes: unknown key (did you mean 'size'?); allowed: size"),
        ({"size": "big"}, "part.size: 'big' is not an integer"),
        ({"size": 0}, "part.size: 0 given, above 0 is needed"),
        ({"num_classes": 2}, "part.num_classes: unknown key; allowed: size"),
    ],
)
def test_a_wrong_option_is_named_with_its_group(
    registry: Registry, options: dict, message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        registry.build(Plug("round", options), 3)
    assert str(error.value) == message


@pytest.mark.parametrize("name", ["os.system", "parts_of_a_test.round.Part", "round.Part", ""])
def test_a_path_is_no_name(registry: Registry, name: str) -> None:
    with pytest.raises(ConfigError, match="unknown"):
        registry.build(Plug(name, {}), 3)


def test_a_name_is_taken_once(registry: Registry) -> None:
    assert registry.names
    with pytest.raises(ValueError, match="'round' is taken"):
        registry.register("round")(type("Other", (), {}))


def test_every_part_of_the_config_has_a_registry() -> None:
    plugs = [name for name, kind in Config.__annotations__.items() if kind.endswith("Plug")]
    assert list(REGISTRIES) == plugs


@pytest.mark.parametrize("kind", REGISTRIES)
def test_every_registry_knows_at_least_one_name(kind: str) -> None:
    assert REGISTRIES[kind].names
