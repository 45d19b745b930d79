"""A learning rate for each loss, since a rate that suits the default favours it.

Each arm gets the same number of runs. They train on a part of the train split and are scored on the
rest of it, so that the val split chooses nothing.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from pathlib import Path

from detector.config import from_plain
from detector.config.registry import DATASETS
from detector.errors import ConfigError, Preempted
from detector.laboratory.compare import study
from detector.laboratory.compare.comparison import Comparison
from detector.laboratory.compare.progress import Progress
from detector.laboratory.compare.study import Files, Plain
from detector.runs import launch
from detector.runs.launch import Machine
from detector.runs.run_folder import RunFolder
from detector.runs.side_files import NUMBER, read_record
from detector.runtime.signals import StopRequest
from detector.training.setup import count_steps

SHARE = 0.2
"""Of the train images that are held out; our choice."""


@dataclass(frozen=True)
class Chosen:
    """factors: on the learning rate, by arm. record: what was tried; None without a search."""

    factors: dict[str, float]
    record: Plain | None = field(default=None)


def learning_rates(
    configs: dict[str, Plain],
    config: Comparison,
    files: Files,
    machine: Machine,
    stop: StopRequest,
) -> Chosen:
    """The factor of each arm: 1 without a search. Raises Preempted where a signal ended it."""
    if not config.lr_search:
        return Chosen(dict.fromkeys(configs, 1.0))
    jobs, steps = [], 0
    for name, plain in configs.items():
        held_out = on_held_out(plain)
        checked = from_plain(held_out)
        steps = count_steps(checked, len(DATASETS.build(checked.data).read("train")))
        for factor in config.lr_search:
            key = f"{name}-lr_{factor:g}"
            configs_folder = files.search / "configs"
            study.write_config(study.with_factor(held_out, factor), configs_folder, key)
            run, plugins = f"{name}/lr_{factor:g}", checked.plugins
            jobs.append(study.job(run, key, configs_folder, 0, plugins=plugins))
    progress = Progress(jobs, files.search, steps)
    results = launch.launch(jobs, files.search, machine, progress.say, progress.look, stop)
    progress.close()
    if stop.requested or any(result.exit_code == 75 for result in results):
        raise Preempted(f"stopped by a signal; the same command goes on with {files.folder}")
    found = {
        name: {f"{f:g}": _ap(files.search / name / f"lr_{f:g}") for f in config.lr_search}
        for name in configs
    }
    factors = {name: best(table) for name, table in found.items()}
    record = {"held_out_of_train": SHARE, "seed": 0, "AP": found, "factors": factors}
    return Chosen(factors, record)


def on_held_out(plain: Plain) -> Plain:
    """The config on a part of its train split, scored at the end on the rest of it."""
    plain = copy.deepcopy(plain)
    plain["data"] = {"name": "held_out", "of": plain["data"], "share": SHARE}
    plain["evaluation"] |= {"every": None, "analysis": False}
    if "probe" in plain:
        plain["probe"]["enabled"] = False
    return plain


def best(found: dict[str, float | None]) -> float:
    """The factor of the highest AP, of equal ones that nearest to 1. Raises ConfigError.

    found: AP by factor, None where the run failed.
    """
    known = {float(factor): ap for factor, ap in found.items() if ap is not None}
    if not known:
        raise ConfigError(f"lr_search: no run ended, with none of the factors {list(found)}")
    return max(known, key=lambda factor: (known[factor], -abs(math.log(factor))))


def _ap(folder: Path) -> float | None:
    run = RunFolder(folder)
    if run.read_status()["state"] != "done":
        return None
    return read_record(run.metrics, {"AP": NUMBER | None})["AP"] or 0.0
