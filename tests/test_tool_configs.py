"""The yaml file of each tool beside its class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import hydra
import pytest
from omegaconf import OmegaConf

from detector.config import Config
from detector.config.compose import plain_values
from detector.config.schema import build
from detector.laboratory.compare.comparison import Comparison

CONFIGS = Path(__file__).parent.parent / "configs"

ONE_OF = {"evaluate": {"checkpoint": "something"}}
"""What is given where a tool wants one thing or another, so that neither has to be given."""


@pytest.fixture(autouse=True)
def in_configs() -> Iterator[None]:
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        yield


@pytest.mark.parametrize("name", [f.stem for f in CONFIGS.glob("*.yaml") if f.stem != "train"])
def test_the_config_of_a_tool_is_that_of_its_class(name: str) -> None:
    cls = class_of(name)
    node = hydra.compose(name)
    if "train" in required(cls):  # all keys of a run, and its own beside them or below its name
        own = set(node[name]) if name in node else set(node) - keys_of_run()
        assert own | {"train"} == {field.name for field in fields(cls)}
        assert set(node) - {name} - own == keys_of_run() - own
        return
    assert set(node) == {field.name for field in fields(cls)}
    for key in OmegaConf.missing_keys(node):
        OmegaConf.update(node, key, something(cls, key))
    one = ONE_OF.get(name, {})
    values = plain_values(node) | one
    defaults = cls(**one, **{key: values[key] for key in required(cls)})
    parts = {key for key, value in values.items() if isinstance(value, dict)}
    given = build(cls, values)
    for key in values.keys() - parts - required(cls):
        assert getattr(given, key) == getattr(defaults, key), key


def class_of(command: str) -> type:
    """The options of a command, which lie in its module, or in that of what it asks for."""
    wanted = f"{command.title().replace('_', '')}Config"
    modules = {
        "benchmark": "benchmarking.options",
        "benchmark_page": "benchmarking.options",
        "latency": "benchmarking.options",
        "calibration_study": "calibration_study",
    }
    if command == "compare":
        return Comparison
    return getattr(import_module(modules.get(command, f"detector.cli.{command}")), wanted)


def something(cls: type, key: str) -> Any:
    """A text, or a list of one, that the field may hold."""
    hint = get_type_hints(cls)[key]
    if get_origin(hint) is tuple:
        return ["something"]
    allowed = get_args(hint)
    return "something" if not allowed or str in allowed else allowed[0]


def keys_of_run() -> set[str]:
    return {field.name for field in fields(Config)}


def required(cls: type) -> set[str]:
    """Fields without a default."""
    return {name for name, p in signature(cls).parameters.items() if p.default is p.empty}
