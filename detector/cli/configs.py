"""The yaml files that commands compose: `detector configs list`, `show NAME`, `copy FOLDER`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from detector.cli.hydra_app import CONFIGS, answered
from detector.errors import ConfigError, did_you_mean

USAGE = """detector configs list              groups, and what can be chosen of each
detector configs show GROUP/NAME   a file, such as loss/focal or train
detector configs copy FOLDER       a copy of all of them, to edit; --config-path FOLDER takes them

One file of your own is enough: FOLDER/experiment/mine.yaml is found by
detector train --config-dir FOLDER experiment=mine"""


def main() -> None:
    """Does what the words of the command ask for; exits with 2 where that cannot be."""
    answered(lambda: run(sys.argv[1:]), "configs")


def run(words: list[str]) -> None:
    """Raises ConfigError for words that are not understood."""
    match words:
        case [] | ["--help"] | ["-h"]:
            print(USAGE)
        case ["list"]:
            print(listing())
        case ["show", name]:
            print(find(name).read_text(), end="")
        case ["copy", folder]:
            copy(Path(folder))
        case _:
            raise ConfigError(f"{' '.join(words)}: list, show GROUP/NAME or copy FOLDER is allowed")


def names() -> list[str]:
    """ "train", "loss/focal", ...: every file without its suffix."""
    return sorted(str(p.relative_to(CONFIGS).with_suffix("")) for p in CONFIGS.rglob("*.yaml"))


def listing() -> str:
    """A line for each group, then one for the commands."""
    groups: dict[str, list[str]] = {}
    for name in names():
        group, _, option = name.rpartition("/")
        groups.setdefault(group, []).append(option)
    commands = groups.pop("")
    lines = [f"{group}: {', '.join(options)}" for group, options in groups.items()]
    return "\n".join([*lines, f"commands: {', '.join(commands)}"])


def find(name: str) -> Path:
    """The file of a name. Raises ConfigError, naming the nearest, where there is none."""
    known = names()
    if name.removesuffix(".yaml") not in known:
        hint = did_you_mean(name, known)
        raise ConfigError(f"{name}: no such config{hint}; detector configs list names them")
    return CONFIGS / f"{name.removesuffix('.yaml')}.yaml"


def copy(folder: Path) -> None:
    """Copies all files. Raises ConfigError where something is there already."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder}: is not a new or empty folder")
    try:
        shutil.copytree(CONFIGS, folder, dirs_exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written ({error.strerror or error})") from None
    print(f"written: {folder}; detector train --config-path {folder} takes them")
