"""Trains many times, and prints one table. See --help."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import DictConfig

from detector.cli import hydra_app
from detector.cli.options import PROGRAM, checked
from detector.config.ranges import AtLeast, require_ranges
from detector.config.schema import require


@dataclass(frozen=True)
class LaunchConfig:
    """One call of `tools/launch.py`. See `configs/launch.yaml` for what each key means."""

    runs: tuple[str, ...]
    folder: str
    parallel: Annotated[int, AtLeast(1)] = 1
    processes: Annotated[int, AtLeast(1)] = 1
    max_restarts: Annotated[int, AtLeast(0)] = 0
    executor: Literal["processes", "slurm", "local"] = "processes"
    slurm: Any = None

    def __post_init__(self) -> None:
        require(len(self.runs) > 0, "runs: none given, at least 1 is needed")
        require_ranges(self)


def run(node: DictConfig) -> None:
    """Starts what is not finished; the exit code says whether all is done."""
    from detector.runs import launch, slurm

    options = checked(LaunchConfig, node)
    jobs = launch.jobs_of(options.runs)
    machine = launch.Machine(
        PROGRAM,
        parallel=options.parallel,
        processes=options.processes,
        max_restarts=options.max_restarts,
        gpus=launch.visible_gpus() if options.executor == "processes" else (),
    )
    folder = Path(options.folder).absolute()
    if options.executor == "processes":
        results = launch.launch(jobs, folder, machine)
    else:
        parameters = dict(options.slurm or {})
        cluster = options.executor
        results = slurm.launch(jobs, folder, machine, cluster=cluster, parameters=parameters)
    print(launch.table(results))
    sys.exit(launch.exit_code(results))


def main() -> None:
    hydra_app.main("launch", run)
