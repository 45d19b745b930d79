"""What each key of a command means: read from the comments of the yaml files, which say it once."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detector.cli import allowed, typed
from detector.cli.yaml_files import CONFIGS
from detector.config.ranges import Range
from detector.config.registry import REGISTRIES
from detector.errors import ConfigError

COLUMNS = 100
INDENT = 36
"""Where the meaning of a key begins."""

LINE = re.compile(
    r"^(?P<space> *)(?P<item>- )?(?P<key>[\w/ ]+):(?P<value>[^#]*?)(?:\s+# ?(?P<note>.*))?$"
)
NOTE = re.compile(r"^\s*# ?(?P<note>.*)$")


@dataclass
class Entry:
    """key: with dots, as it is typed below its group; value: as the file has it; note: what it
    means; is_group: an entry of the defaults list, where the value is what is chosen."""

    key: str
    value: str
    note: str
    is_group: bool = False


@dataclass
class Page:
    """A yaml file: what its head says of it, and its keys in their order. is_global: they are whole
    keys, not those below the file's group."""

    head: str
    entries: list[Entry]
    is_global: bool = False


def read(path: Path) -> Page:
    """The page of a file."""
    return parse(path.read_text())


def parse(text: str) -> Page:
    """The page of a text. A comment on a line of its own goes on with the one before."""
    page = Page("", [], is_global="@package _global_" in text)
    parents: list[tuple[int, str]] = []
    for line in text.splitlines():
        if found := LINE.match(line):
            space, key = len(found["space"]), found["key"].removeprefix("override /")
            parents = [(at, name) for at, name in parents if at < space]
            names = [name for _, name in parents]
            is_group = bool(found["item"]) and names == ["defaults"]
            if not found["item"]:
                parents.append((space, key))
            elif not is_group:
                continue
            path = key if is_group else ".".join([*names, key])
            if path != "defaults":
                value, note = found["value"].strip(), found["note"] or ""
                page.entries.append(Entry(path, value, note, is_group))
        elif found := NOTE.match(line):
            if page.entries:
                entry = page.entries[-1]
                entry.note = f"{entry.note} {found['note']}".strip()
            elif not parents and not found["note"].startswith("@package"):
                page.head = f"{page.head} {found['note']}".strip()
    return page


def options(group: str) -> dict[str, Page]:
    """The files of a group by name."""
    return {file.stem: read(file) for file in sorted((CONFIGS / group).glob("*.yaml"))}


def groups() -> list[str]:
    return sorted(folder.name for folder in CONFIGS.iterdir() if folder.is_dir())


def own_groups(command: str) -> list[Entry]:
    """The groups that a command composes, those of a training where it takes one."""
    page = read(CONFIGS / f"{command}.yaml")
    found = [entry for entry in page.entries if entry.is_group]
    return found or (own_groups("train") if is_on_train(command) else [])


def is_on_train(command: str) -> bool:
    """Whether a command has the keys of a training beside its own."""
    return command != "train" and typed.takes_a_run(command)


def usage(command: str, values: Mapping[str, Any], choices: Mapping[str, str]) -> str:
    """What `COMMAND --help` prints: the keys that it takes, its own first.

    values: every key of the composed config with its value. choices: what is chosen of each group.
    """
    page = read(CONFIGS / f"{command}.yaml")
    own = [entry for entry in page.entries if not entry.is_group]
    limits = allowed.ranges(command, values)
    parts = [f"{command} [KEY=VALUE ...]", *textwrap.wrap(page.head, COLUMNS), ""]
    parts += rows(own, values, limits)
    if is_on_train(command):
        known = {entry.key for entry in own}
        train = [e for e in read(CONFIGS / "train.yaml").entries if not e.is_group]
        parts += ["", "Keys of a training:", ""]
        parts += rows([entry for entry in train if entry.key not in known], values, limits)
    for entry in own_groups(command):
        parts += ["", *_group(entry, choices.get(entry.key), values, limits)]
    more = "detector help KEY says what one key means, --cfg job prints the whole config"
    return "\n".join([*parts, "", more])


def _group(
    entry: Entry, chosen: str | None, values: Mapping[str, Any], limits: Mapping[str, Range]
) -> Iterator[str]:
    """A group: what it is, what may be chosen, and the keys of what is."""
    files = options(entry.key)
    note = f": {entry.note}" if entry.note else ""
    yield from textwrap.wrap(f"{entry.key}={chosen or 'null'}{note}", COLUMNS)
    yield from textwrap.wrap(f"  allowed: {', '.join(files)}", COLUMNS, subsequent_indent="  ")
    own = [key for key in values if key.startswith(f"{entry.key}.")]
    notes = meanings(entry.key, chosen)
    wanted = [Entry(key, "", notes.get(key, "")) for key in own if key != f"{entry.key}.name"]
    yield from rows(wanted, values, limits)


def meanings(group: str, chosen: str | None) -> dict[str, str]:
    """Keys of a group with what they mean: as the chosen file says it, else as another does."""
    files = options(group)
    order = [*(page for name, page in files.items() if name != chosen)]
    order += [files[chosen]] if chosen in files else []
    found: dict[str, str] = {}
    for page in order:
        for entry in page.entries:
            key = entry.key if page.is_global else f"{group}.{entry.key}"
            if entry.note:
                found[key] = entry.note
    return found


def rows(
    entries: Iterable[Entry], values: Mapping[str, Any], limits: Mapping[str, Range]
) -> Iterator[str]:
    """A line for each key that holds a value, and as many more as its meaning takes."""
    for entry in entries:
        value = _shown(values.get(entry.key, entry.value))
        if value is None:
            continue
        left = f"  {entry.key}={value}"
        note = with_range(entry.note, limits.get(entry.key))
        lines = textwrap.wrap(note, COLUMNS - INDENT) or [""]
        if len(left) >= INDENT:
            yield left
        else:
            yield f"{left:<{INDENT}}{lines.pop(0)}".rstrip()
        yield from (f"{'':<{INDENT}}{line}" for line in lines if line)


def with_range(note: str, limit: Range | None) -> str:
    """What a key means, with what its value may be where the words do not say it."""
    return note if limit is None or str(limit) in note else f"{note} ({limit})".strip()


def _shown(value: Any) -> str | None:
    """A value as it is typed; None for what holds keys of its own."""
    if isinstance(value, dict):
        return None
    if isinstance(value, list):
        return f"[{','.join(str(_shown(entry)) for entry in value)}]"
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


def about(key: str) -> str:
    """What `detector help KEY` prints: of a key, of a group, or of all keys with that last part.

    Raises ConfigError, naming the nearest, for what is none of them.
    """
    if key in groups():
        lines = [f"{key}: a group; one of these is chosen by name"]
        for name, page in options(key).items():
            lines += [f"{key}={name}", *_wrapped(page.head or "no comment")]
        return "\n".join(lines)
    found = list(said_of(key))
    if not found:
        known = dict.fromkeys(entry for entry, _, _, _ in everything())
        hint = typed.hint(key, known)
        raise ConfigError(f"{key}: no key of any command{hint}; COMMAND --help lists them")
    return "\n".join(found)


def said_of(key: str) -> Iterator[str]:
    """Lines on a key, which may stand in several files and mean another thing in each."""
    exact = [row for row in everything() if row[0] == key]
    chosen = exact or [row for row in everything() if row[0].rpartition(".")[2] == key]
    said: dict[tuple[str, str], list[str]] = {}
    for name, where, value, note in chosen:
        said.setdefault((f"{name}={value}", note), []).append(where)
    for (left, note), places in said.items():
        yield left
        yield from _wrapped(note or "no comment")
        yield from _wrapped(f"in {', '.join(places)}")


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, COLUMNS, initial_indent="    ", subsequent_indent="    ")


def everything() -> Iterator[tuple[str, str, str, str]]:
    """(key, where, value, note) of every key of every command and of every part."""
    for file in sorted(CONFIGS.glob("*.yaml")):
        limits = {**allowed.of_command(file.stem)}
        if file.stem == "train":
            limits |= allowed.of_run()
        for entry in read(file).entries:
            if not entry.is_group:
                note = with_range(entry.note, limits.get(entry.key))
                yield entry.key, f"detector {file.stem}", entry.value, note
    for group in groups():
        if group == "experiment":  # a preset of keys that are explained elsewhere
            continue
        for name, page in options(group).items():
            limits = ranges_of_file(group, page)
            for entry in page.entries:
                key = entry.key if page.is_global else f"{group}.{entry.key}"
                if not entry.is_group and key not in (group, f"{group}.name"):
                    yield (
                        key,
                        f"{group}={name}",
                        entry.value,
                        with_range(entry.note, limits.get(key)),
                    )


def ranges_of_file(group: str, page: Page) -> Mapping[str, Range]:
    """By key, of the part that a file of a group chooses."""
    if group not in REGISTRIES:
        return allowed.of_run()
    names = [entry.value for entry in page.entries if entry.key in ("name", f"{group}.name")]
    own = allowed.of_part(group, names[0]) if names else {}
    return {f"{group}.{key}": limit for key, limit in own.items()}
