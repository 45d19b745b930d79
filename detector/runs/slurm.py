"""Many runs as jobs of a cluster, through submitit (the extra `slurm`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detector.errors import ConfigError
from detector.runs.launch import (
    Job,
    Machine,
    Result,
    require_different_names,
    result_before,
    result_of,
    start,
)


@dataclass
class Task:
    """What a job of the cluster does: one run. Submitit keeps it, and calls it there."""

    job: Job
    folder: Path
    machine: Machine

    def __call__(self) -> int:
        """The exit code of the run."""
        return start(self.job, self.folder, self.machine, slot=0).wait()

    def checkpoint(self, *args: Any, **kwargs: Any) -> Any:
        """Called before the time is up: the same again, which goes on with what was saved."""
        import submitit  # type: ignore[import-not-found]

        return submitit.helpers.DelayedSubmission(self)


def launch(
    jobs: Sequence[Job],
    folder: Path,
    machine: Machine,
    *,
    cluster: str,
    parameters: Mapping[str, Any],
    say: Callable[[str], None] = print,
) -> list[Result]:
    """As `launch.launch`; `parallel` jobs of the cluster at a time.

    cluster: "slurm", or "local" for processes of this machine that submitit watches. parameters: of
    submitit's `update_parameters`, such as timeout_min. Raises ConfigError without submitit, or for
    a parameter that it does not know.
    """
    try:
        import submitit  # type: ignore[import-not-found]
    except ImportError:
        raise ConfigError("executor: submitit is needed: pip install submitit") from None
    require_different_names(jobs)
    before = {job.name: result_before(job, folder) for job in jobs}
    executor = submitit.AutoExecutor(folder=str(folder / "submitit"), cluster=cluster)
    try:
        executor.update_parameters(**parameters)
        if cluster == "slurm":
            executor.update_parameters(slurm_array_parallelism=machine.parallel)
    except (TypeError, ValueError, NameError) as error:
        raise ConfigError(f"slurm: {error}") from None
    left = [job for job in jobs if before[job.name] is None]
    size = len(left) if cluster == "slurm" else machine.parallel
    results: dict[str, Result] = {name: r for name, r in before.items() if r is not None}
    for first in range(0, len(left), max(1, size)):
        group = left[first : first + size]
        with executor.batch():
            sent = [executor.submit(Task(job, folder, machine)) for job in group]
        for job, handle in zip(group, sent, strict=True):
            results[job.name] = _wait(job, folder, handle)
            say(f"{job.name}: {results[job.name].state}")
    return [results[job.name] for job in jobs]


def _wait(job: Job, folder: Path, handle: Any) -> Result:
    """What became of a job of the cluster, which may have died without a word."""
    handle.wait()
    error = handle.exception()
    if error is None:
        return result_of(job, folder, handle.result())
    lines = str(error).strip().splitlines()
    return Result(job.name, folder / job.name, "failed", 1, lines[-1] if lines else repr(error))
