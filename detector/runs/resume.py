"""What a run goes on from, and whether it may."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import detector
from detector.config import Config
from detector.config.defaults import filled
from detector.errors import ConfigError
from detector.runs import entries, own_files, status
from detector.runs.checkpoint import FORMAT_VERSION, Damaged, load
from detector.runs.run_folder import CHECKPOINTS, RunFolder, default_path, learned
from detector.runtime.distributed import World

MAY_DIFFER = ("steps", "epochs", "patience", "optim.lr", "schedule.", "clip", "ema.decay")
"""Keys, or beginnings of keys, that a run may go on with others of where its checkpoint is named:
it trains longer or slower from there. All others make the saved weights something else.
"""


@dataclass(frozen=True)
class Opened:
    """folder: of the run. source: the checkpoint to go on from, if any. notes: what to tell."""

    folder: RunFolder
    source: Path | None = None
    notes: tuple[str, ...] = ()


def open_folder(
    config: Config, plain: dict[str, Any], world: World
) -> tuple[Opened, dict[str, Any] | None]:
    """The run's folder, and the content of the checkpoint to go on from, if any.

    The main process decides. `resume=auto` takes the newest checkpoint that is not damaged, and
    sets a damaged last.pt aside; one that is whole and not for this version is left where it is,
    and the run does not begin. Raises ConfigError where the folder holds a run that is not gone
    on with, unless `overwrite=true` is given, where another process is at work in it, where it
    cannot be written, where no checkpoint of it can be read, or where the checkpoint was made with
    another config; names the keys that differ.
    """
    opened = world.from_main(lambda: _open(config, plain))
    return opened, None if opened.source is None else load(opened.source)


def _open(config: Config, plain: dict[str, Any]) -> Opened:
    folder = folder_of(config, plain)
    folder.require_writable()
    # A run of an older version holds no lock, nor does any where there are none; see lock.py.
    if status.is_busy(folder.status):
        pid = folder.read_status()["process"]["pid"]
        raise ConfigError(f"output_dir: {folder.path} is in use by process {pid} of this machine")
    if folder.holds_a_run():
        _require_ours(folder)
    own_files.remove(folder.last.parent, own_files.UNFINISHED)  # of a save that was killed
    notes: list[str] = []
    if config.resume == "auto":
        source, content = _newest(folder, notes)
    elif config.resume is None:
        source, content = None, None
    else:
        source = Path(config.resume)
        content = load(source)
    if source is not None and content is not None:
        is_named = config.resume != "auto"
        notes += _compare(content, plain, str(source), is_named=is_named)
        notes.insert(0, f"goes on from {source}, step {content['step']}")
        if content["step"] == config.steps:
            notes.append(
                f"it is at its last step: it is scored again; resume={source} output_dir=NEW "
                "steps=MORE trains on"
            )
    goes_on = config.resume == "auto" or (source is not None and folder.owns(source))
    if folder.holds_a_run() and not goes_on:
        notes += _replaced(folder, config)
    return Opened(folder, source, tuple(notes))


def _require_ours(folder: RunFolder) -> None:
    """Raises ConfigError where a file of the name of a run's is no run's."""
    if not own_files.is_of_a_run(folder):
        file = folder.config if folder.config.exists() else folder.last
        raise ConfigError(
            f"output_dir: {folder.path} holds {file.relative_to(folder.path)}, but nothing that "
            "tells a run of this project; another folder is needed"
        )


def _replaced(folder: RunFolder, config: Config) -> list[str]:
    """What to tell once the files of the run in a folder are removed, as `overwrite=true` asks."""
    if not config.overwrite:
        raise ConfigError(
            f"output_dir: {folder.path} already holds a run; resume=auto goes on with it, "
            "overwrite=true replaces it, output_dir=NEW makes another"
        )
    left = own_files.clear(folder)
    return [own_files.in_words(left)] if left else []


def _newest(folder: RunFolder, notes: list[str]) -> tuple[Path | None, dict[str, Any] | None]:
    """The newest checkpoint that is not damaged; best.pt only where no other is."""
    found = [p for p in (folder.last, *folder.older(), folder.best) if p.exists()]
    for path in found:
        try:
            content = load(path)
        except Damaged as error:
            notes.append(f"{error}; the one before it is taken")
            continue
        if path != folder.last and folder.last.exists():
            os.replace(folder.last, folder.last.with_suffix(".damaged"))
        return path, content
    if found:
        raise ConfigError(
            f"resume: {folder.path} has no checkpoint that can be read ({notes[0]}); "
            "overwrite=true begins anew"
        )
    return None, None


def folder_of(config: Config, plain: dict[str, Any]) -> RunFolder:
    """As given, else the run folder in which the resumed checkpoint lies, else the default."""
    if config.output_dir is not None:
        return RunFolder(Path(config.output_dir))
    if config.resume not in (None, "auto"):
        parent = Path(config.resume).absolute().parent
        if parent.name == CHECKPOINTS:
            return RunFolder(parent.parent)
    return RunFolder(default_path(config, plain))


def differences(saved: dict[str, Any], given: dict[str, Any]) -> list[str]:
    """'key: saved -> given' for each key that changes what is learned.

    A key that did not exist when a checkpoint was written has its default, which is what the code
    did then.
    """
    old, new = (_flat(learned(filled(plain))) for plain in (saved, given))
    return [
        f"{key}: {old.get(key)!r} -> {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


def _compare(
    checkpoint: dict[str, Any], plain: dict[str, Any], path: str, *, is_named: bool
) -> list[str]:
    """What differs and may. Raises ConfigError for what may not. is_named: by `resume=PATH`."""
    if checkpoint["format_version"] != FORMAT_VERSION:
        raise ConfigError(
            f"resume: {path} has format {checkpoint['format_version']}, to go on "
            f"{FORMAT_VERSION} is needed; weights={path} starts from its weights"
        )
    entries.require(checkpoint, ("config", "step"), f"resume: {path}")
    saved = checkpoint["config"]
    given = dict(plain)
    if given.get("prior") == "from_data":
        given["prior"] = saved.get("prior")  # the number that was found when the run began
    changed = differences(saved, given)
    refused = [line for line in changed if not (is_named and line.startswith(MAY_DIFFER))]
    if refused:
        message = f"resume: {path} was made with another config: {'; '.join(refused)}"
        if all(line.startswith(MAY_DIFFER) for line in refused):
            keys = " ".join(_as_typed(line) for line in refused)
            message += f"; resume={path} output_dir=NEW {keys} goes on from it so"
        raise ConfigError(message)
    notes = [f"another config from here on: {'; '.join(changed)}"] if changed else []
    return notes + other_versions(checkpoint)


def _as_typed(difference: str) -> str:
    """ "steps: 8 -> 20" -> "steps=20": the key as a command has it."""
    key, _, values = difference.partition(": ")
    value = values.rpartition(" -> ")[2]
    return f"{key}={'null' if value == 'None' else value}"


def other_versions(checkpoint: dict[str, Any]) -> list[str]:
    """A line where a checkpoint was written by other versions: it goes on, but not to the bit."""
    now = {"detector_version": detector.__version__, "torch_version": str(torch.__version__)}
    changed = [
        f"{key.removesuffix('_version')} {checkpoint[key]} -> {value}"
        for key, value in now.items()
        if checkpoint.get(key, value) != value
    ]
    return [f"other versions from here on: {', '.join(changed)}"] if changed else []


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {path: list(value) if isinstance(value, tuple) else value}
    pairs: dict[str, Any] = {}
    for key, inner in value.items():
        pairs |= _flat(inner, f"{path}.{key}" if path else str(key))
    return pairs
