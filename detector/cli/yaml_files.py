"""The yaml files that Hydra reads, looked at before it composes them: a config is data.

What is refused here would otherwise act while Hydra composes, before there is a config to check: a
search path that imports a package, a resolver that reads the environment, aliases that multiply.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.core_plugins import file_config_source
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult
from omegaconf import OmegaConf

import detector
from detector.config.schema import refuse_resolvers
from detector.errors import ConfigError

PACKAGE = Path(detector.__file__).parent
CONFIGS = next(f for f in (PACKAGE / "configs", PACKAGE.parent / "configs") if f.is_dir())
"""The yaml files: a wheel holds them inside the package, a checkout beside it."""

MAX_BYTES = 2**18
"""Of a yaml file; also of its text once every alias is written out. Those of a run have 3,000."""

MAX_VALUES = 20_000
"""Keys and values of a file once every alias is written out."""

MAX_DEPTH = 50
"""Of lists and keys inside one another; the deepest of this project's files has 5."""

OF_HYDRA = re.compile(r"(^|[\s/@:.])hydra($|[/@:.])")
"""A group or package of Hydra's, as a defaults list writes it."""


class FileConfigSource(file_config_source.FileConfigSource):
    """Hydra's reader of files, which also looks at every file that is not this project's own.

    It bears the name of the class it replaces: Hydra's registry refuses any other.
    """

    def load_config(self, config_path: str) -> ConfigResult:
        """What the file holds. Raises ConfigError where it is too large or more than data."""
        path = Path(self.path, self._normalize_file_name(config_path))
        if not path.is_file() or path.resolve().is_relative_to(CONFIGS.resolve()):
            return super().load_config(config_path)
        try:
            check_size(path)
            result = super().load_config(config_path)
        except (OSError, ValueError, yaml.YAMLError) as error:  # the second: of numbers, of UTF-8
            raise ConfigError(f"{path}: cannot be read: {fault(error)}") from None
        check_data(path, result)
        return result


def install() -> None:
    """From now on Hydra reads files with the reader above."""
    Plugins.instance()  # registers Hydra's own, which would come later otherwise
    SourcesRegistry.instance().types["file"] = FileConfigSource


def check_size(path: Path) -> None:
    """Raises ConfigError for a file that is large, deep, or large once aliases are written out."""
    with open(path, "rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path}: a config of more than {MAX_BYTES:,} bytes is refused")
    num_values, num_letters = written_out(path, content.decode())
    if num_values > MAX_VALUES or num_letters > MAX_BYTES:
        raise ConfigError(
            f"{path}: with its aliases written out it holds {num_values:,} values of "
            f"{num_letters:,} letters; at most {MAX_VALUES:,} of {MAX_BYTES:,} are allowed"
        )


def written_out(path: Path, text: str) -> tuple[int, int]:
    """The number of keys and values, and of their letters, once every alias is written out.

    Nothing is built: a nest of aliases is counted by adding up what its parts came to. Raises
    ConfigError for too many brackets, and for an alias of what it lies in.
    """
    totals: dict[str, tuple[int, int]] = {}
    stack: list[tuple[str | None, list[int]]] = [(None, [0, 0])]
    for event in yaml.parse(text, yaml.SafeLoader):
        anchor = getattr(event, "anchor", None)
        if isinstance(event, yaml.AliasEvent):
            if any(anchor == name for name, _ in stack):
                raise ConfigError(f"{path}: *{anchor} stands inside of &{anchor}")
            found = totals.get(str(anchor), (0, 0))
        elif isinstance(event, yaml.ScalarEvent):
            found = (1, len(event.value))
            totals[str(anchor)] = found
        elif isinstance(event, yaml.CollectionStartEvent):
            stack.append((anchor, [1, 0]))
            if len(stack) > MAX_DEPTH:
                raise ConfigError(f"{path}: keys or lists lie more than {MAX_DEPTH} deep")
            continue
        elif isinstance(event, yaml.CollectionEndEvent):
            name, total = stack.pop()
            found = (total[0], total[1])
            totals[str(name)] = found
        else:
            continue
        stack[-1][1][0] += found[0]
        stack[-1][1][1] += found[1]
    return stack[0][1][0], stack[0][1][1]


def fault(error: Exception) -> str:
    """What is wrong with a yaml file, in a few words, and the line where it is."""
    if isinstance(error, yaml.MarkedYAMLError):
        where = error.problem_mark or error.context_mark
        line = f"line {where.line + 1}: " if where is not None else ""
        return f"{line}{error.problem or error.context}"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return " ".join(str(error).split())


def check_data(path: Path, result: ConfigResult) -> None:
    """Raises ConfigError where a file speaks to Hydra itself, or asks it to look something up."""
    content: Any = OmegaConf.to_container(result.config, resolve=False)
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: holds no keys and values")
    package = result.header.get("package") or ""
    said = [*content, package, *default_entries(content.get("defaults"))]
    if any(OF_HYDRA.search(str(word)) for word in said):
        raise ConfigError(f"{path}: hydra: is refused, a config cannot set how Hydra works")
    try:
        refuse_resolvers(content)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def default_entries(entries: Any) -> Iterator[str]:
    """The words of a defaults list."""
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict):
            for key, value in entry.items():
                yield f"{key}: {value}"
                yield from value if isinstance(value, list) else [value]
        else:
            yield str(entry)
