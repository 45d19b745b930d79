"""Runs `tools/train.py` many times, and prints one table. See --help."""

from __future__ import annotations

import sys
from pathlib import Path

from cli import main
from omegaconf import DictConfig


def launch(node: DictConfig) -> None:
    """Starts what is not finished; the exit code says whether all is done."""
    from detector import schema
    from detector.config import plain_values
    from detector.engine import launch, slurm
    from detector.tool_config import LaunchConfig

    config = schema.build(LaunchConfig, plain_values(node))
    jobs = launch.jobs_of(config.runs)
    machine = launch.Machine(
        parallel=config.parallel,
        processes=config.processes,
        max_restarts=config.max_restarts,
        gpus=launch.visible_gpus() if config.executor == "processes" else (),
    )
    folder = Path(config.folder).absolute()
    if config.executor == "processes":
        results = launch.launch(jobs, folder, machine)
    else:
        parameters = dict(config.slurm or {})
        results = slurm.launch(
            jobs, folder, machine, cluster=config.executor, parameters=parameters
        )
    print(launch.table(results))
    sys.exit(launch.exit_code(results))


if __name__ == "__main__":
    main("launch", launch)
