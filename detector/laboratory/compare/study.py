"""What a comparison of losses is made of: arms that differ in their loss and in nothing else."""

from __future__ import annotations

import copy
import json
import platform
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import detector
from detector.config import num_processors
from detector.config.compose import to_yaml
from detector.config.schema import require
from detector.errors import ConfigError
from detector.runs.launch import Job
from detector.runs.resume import differences

Plain = dict[str, Any]
Compose = Callable[[Sequence[str]], Plain]
"""The plain config of a run with these overrides added to those of the command."""

OF_A_RUN = ("seed", "output_dir", "resume", "overwrite")
"""Keys that differ from run to run, or are the launcher's."""


@dataclass(frozen=True)
class Arm:
    """A loss that takes part. name: of its folder. words: its overrides, the loss first."""

    name: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Files:
    """Where a study keeps what."""

    folder: Path

    @property
    def study(self) -> Path:
        return self.folder / "study.json"

    @property
    def results(self) -> Path:
        return self.folder / "results.json"

    @property
    def table(self) -> Path:
        return self.folder / "results.csv"

    @property
    def report(self) -> Path:
        return self.folder / "report.md"

    @property
    def configs(self) -> Path:
        """A yaml for each arm: what its runs are started with."""
        return self.folder / "configs"

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    @property
    def search(self) -> Path:
        """The runs of the search for a learning rate."""
        return self.folder / "search"

    def run(self, arm: str, seed: int) -> Path:
        return self.runs / arm / f"seed_{seed}"


def arms_of(losses: Sequence[str]) -> list[Arm]:
    """The arms of entries such as "focal" or "focal loss.gamma=1". Raises ConfigError."""
    arms = []
    for entry in losses:
        words = shlex.split(entry)
        require(bool(words) and "=" not in words[0], f"losses: {entry!r} has to begin with a loss")
        for word in words[1:]:
            key, has_value, _ = word.partition("=")
            require(bool(has_value), f"losses: {word!r} in {entry!r} is not written KEY=VALUE")
            is_free = key not in ("experiment", "loss", "seed", "output_dir")
            require(is_free, f"losses: {key} in {entry!r} is for the whole study")
        plain = ["".join(c if c.isalnum() or c in ".+_" else "_" for c in word) for word in words]
        arms.append(Arm("-".join(plain), (f"loss={words[0]}", *words[1:])))
    names = [arm.name for arm in arms]
    for name in names:
        require(names.count(name) == 1, f"losses: {name} is given {names.count(name)} times")
    return arms


def conditions(arm: Arm, compose: Compose, base: Plain) -> Plain:
    """The config of an arm: that of `base` with another loss, and what the arm itself asks for.

    A loss may bring other parts along (yolo its box loss, yolo_v1 its matcher too). Here they are
    left out: with another box loss it could not be said which of the two made the difference.
    """
    own = {word.partition("=")[0].lstrip("+~").partition(".")[0] for word in arm.words}
    values = compose(arm.words)
    return {key: values[key] if key in own | {"loss"} else base[key] for key in base}


def with_rhythm(plain: Plain, num_steps: int, points: int) -> Plain:
    """The config with so many evaluations over the run, unless it says itself when to evaluate."""
    plain = copy.deepcopy(plain)
    if plain["evaluation"]["every"] in (None, "auto") and points > 1:
        plain["evaluation"]["every"] = max(1, -(-num_steps // points))
    return plain


def with_factor(plain: Plain, factor: float) -> Plain:
    """The config at another learning rate."""
    plain = copy.deepcopy(plain)
    plain["optim"]["lr"] *= factor
    return plain


def write_config(plain: Plain, folder: Path, name: str) -> None:
    """A yaml that `tools/train.py --config-path FOLDER --config-name NAME` takes.

    Raises ConfigError where there is one that asks for something else: its runs may be done.
    """
    path = folder / f"{name}.yaml"
    plain = {key: value for key, value in plain.items() if key not in OF_A_RUN}
    known = folder / f"{name}.json"
    if known.exists():
        changed = differences(json.loads(known.read_text()), plain)
        require(
            not changed,
            f"output_dir: {folder.parent} holds a study with another config of {name}: "
            f"{'; '.join(changed)}; another folder is needed",
        )
    folder.mkdir(parents=True, exist_ok=True)
    plain |= {"seed": 0, "output_dir": None, "resume": None, "overwrite": False}
    path.write_text(to_yaml(plain))
    known.write_text(json.dumps(plain, indent=1) + "\n")


def job(name: str, config: str, configs: Path, seed: int, *, plugins: Sequence[str] = ()) -> Job:
    """A run of a config that lies in `configs`; name: of its folder.

    plugins: those of the config, which are said again: of a file none is imported.
    """
    source = ("--config-path", str(configs.absolute()), "--config-name", config)
    said = (f"plugins=[{','.join(plugins)}]",) if plugins else ()
    return Job(name, (*source, f"seed={seed}", *said))


def surroundings() -> Plain:
    """Versions and hardware, for the record."""
    import torch  # slow to import

    from detector.runtime.precision import processor_name

    cuda = torch.cuda.is_available()
    return {
        "versions": {
            "detector": detector.__version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
        "hardware": {
            "processor": processor_name(),
            "processors": num_processors(),
            "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
            if cuda
            else [],
        },
    }


def command() -> str:
    """The words this process was started with."""
    program, *words = sys.argv
    is_script = program.endswith(".py")
    return f"{shlex.join(['python', program]) if is_script else program} {shlex.join(words)}"


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """JSON with a line for each entry of lists and dicts that are not innermost."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Plain:
    """Raises ConfigError where there is no such file."""
    if not path.is_file():
        raise ConfigError(f"folder: {path.parent} holds no study (no {path.name})")
    return json.loads(path.read_text())
