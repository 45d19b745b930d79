"""The range of each option, for `--help`: read where it is stated, without importing torch.

A loss states its options in its constructor, and importing a loss takes torch, which takes seconds.
So the files of parts are read as text; the dataclasses of a run and of a command are light.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
import importlib.util
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from detector.config import Config
from detector.config.ranges import Above, AtLeast, Between, Range, split
from detector.config.registry import REGISTRIES

WORDS = {word.__name__: word for word in (AtLeast, Above, Between)}


def ranges(command: str, values: Mapping[str, Any]) -> dict[str, Range]:
    """By key, of what a command takes. values: of the composed config, which say what is chosen."""
    parts = {
        f"{kind}.{option}": limit
        for kind in REGISTRIES
        for option, limit in of_part(kind, str(values.get(f"{kind}.name"))).items()
    }
    return {**of_run(), **parts, **of_command(command)}


@functools.cache
def of_run() -> Mapping[str, Range]:
    """By key, of what a run has beside its parts."""
    return dict(_of_dataclass(Config))


@functools.cache
def of_command(command: str) -> Mapping[str, Range]:
    """By key, of a command's own options."""
    if importlib.util.find_spec(f"detector.cli.{command}") is None:
        return {}
    module = importlib.import_module(f"detector.cli.{command}")
    name = "".join(word.capitalize() for word in command.split("_")) + "Config"
    return dict(_of_dataclass(getattr(module, name))) if hasattr(module, name) else {}


def _of_dataclass(cls: type, path: str = "") -> Iterator[tuple[str, Range]]:
    hints = typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        inner, limit = split(hints[field.name])
        if limit is not None:
            yield f"{path}{field.name}", limit
        elif dataclasses.is_dataclass(inner) and inner is not Config:
            yield from _of_dataclass(typing.cast(type, inner), f"{path}{field.name}.")


@functools.cache
def of_part(kind: str, name: str) -> Mapping[str, Range]:
    """By option, of a registered part; nothing of a part that a plugin registers."""
    for tree in _trees(kind):
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and _is_named(node, name):
                return dict(_of_class(node))
    return {}


@functools.cache
def _trees(kind: str) -> tuple[ast.Module, ...]:
    """The files of a kind of parts."""
    home = Path(__file__).parents[1].joinpath(*REGISTRIES[kind].module.split(".")[1:])
    files = sorted(home.glob("*.py")) if home.is_dir() else [home.with_suffix(".py")]
    return tuple(ast.parse(file.read_text(encoding="utf-8")) for file in files)


def _is_named(node: ast.ClassDef, name: str) -> bool:
    calls = [own for own in node.decorator_list if isinstance(own, ast.Call) and own.args]
    names = [own.args[0] for own in calls if ast.unparse(own.func).endswith(".register")]
    return any(isinstance(own, ast.Constant) and own.value == name for own in names)


def _of_class(node: ast.ClassDef) -> Iterator[tuple[str, Range]]:
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and method.name == "__init__":
            for argument in method.args.kwonlyargs:
                for call in ast.walk(argument.annotation or ast.Constant(None)):
                    if isinstance(call, ast.Call) and ast.unparse(call.func) in WORDS:
                        yield argument.arg, _range(call)


def _range(call: ast.Call) -> Range:
    """What `AtLeast(0)` says, as text of a file."""
    options = {own.arg: ast.literal_eval(own.value) for own in call.keywords if own.arg}
    return WORDS[ast.unparse(call.func)](*map(ast.literal_eval, call.args), **options)
