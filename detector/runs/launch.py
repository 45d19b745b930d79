"""Many runs from a list: each a process of its own, so that none can stop the others."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import detector
from detector.config import num_processors
from detector.errors import ConfigError
from detector.runs.run_folder import RunFolder
from detector.runs.table import read_run, table_of_runs
from detector.runtime.signals import StopRequest

ROOT = Path(detector.__file__).resolve().parents[1]
"""What holds the package: a checkout, or the site-packages of an installation."""

OUTPUT, OVERRIDES = "output.txt", "overrides.json"
"""Files of a run folder: what the run printed, and what it was started with."""

POLL = 0.1
"""Seconds between two looks at the runs."""


@dataclass(frozen=True)
class Job:
    """A run to be: the name of its folder, and its overrides, such as `loss=ssd`."""

    name: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """What became of a job. state: as in status.json; "none" where it never got so far.

    is_skipped: it was finished before. exit_code: as of `tools/train.py`, also under torchrun.
    message: why it is not done, in one line.
    """

    name: str
    folder: Path
    state: str
    exit_code: int
    message: str = ""
    is_skipped: bool = False

    @property
    def is_done(self) -> bool:
        return self.state == "done" and self.exit_code == 0


@dataclass(frozen=True)
class Machine:
    """How runs are started.

    program: what Python is called with before the overrides: a script that trains, or "-m", a
    module and its words. parallel: at a time. processes: of each, under torchrun where there are
    several. max_restarts: of torchrun. gpus: numbers of those that may be used; each run gets its
    own.
    """

    program: Sequence[str]
    parallel: int = 1
    processes: int = 1
    max_restarts: int = 0
    gpus: tuple[str, ...] = ()

    def command(self, job: Job, folder: Path) -> list[str]:
        """The words of one run."""
        overrides = [*job.overrides, f"output_dir={folder / job.name}", "resume=auto"]
        if self.processes == 1:
            return [sys.executable, *self.program, *overrides]
        torchrun = ["-m", "torch.distributed.run", "--standalone"]
        torchrun += ["--nproc-per-node", str(self.processes)]
        torchrun += ["--max-restarts", str(self.max_restarts)]
        return [sys.executable, *torchrun, *self.program, *overrides]

    def environment(self, slot: int) -> dict[str, str]:
        """Variables of the run in a slot, 0 to `parallel`: its GPUs, its share of processors."""
        # Nothing of the working folder is imported for its name; plugins look there last.
        variables = {**os.environ, "PYTHONSAFEPATH": "1"}
        if (ROOT / "pyproject.toml").is_file():
            # The runs use this checkout, whatever is installed. An installation is found as it is:
            # on this path its packages would stand before the modules of Python itself.
            paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
            variables["PYTHONPATH"] = os.pathsep.join(paths)
        # As in scripts/launch.sh, which says why.
        variables["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
        if self.gpus:
            first = slot * self.processes
            mine = [self.gpus[(first + i) % len(self.gpus)] for i in range(self.processes)]
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(dict.fromkeys(mine))
        if self.parallel * self.processes > 1:
            share = max(1, num_processors() // (self.parallel * self.processes))
            variables.setdefault("OMP_NUM_THREADS", str(share))
        return variables


@dataclass
class Running:
    """A process at work on a job."""

    job: Job
    process: subprocess.Popen[bytes]
    slot: int


def jobs_of(runs: Sequence[str]) -> list[Job]:
    """Jobs of overrides written as on a command line, named by them. Raises ConfigError."""
    jobs = [Job(_name(run), tuple(shlex.split(run))) for run in runs]
    require_different_names(jobs)
    return jobs


def _name(run: str) -> str:
    """ "loss=ssd seed=0" -> "loss_ssd-seed_0"; letters that no folder should have become `_`."""
    words = shlex.split(run) or ["default"]
    plain = ["".join(c if c.isalnum() or c in ".+" else "_" for c in word) for word in words]
    return "-".join(word.strip("_.") for word in plain)


def require_different_names(jobs: Sequence[Job]) -> None:
    """Raises ConfigError where two jobs would write into one folder."""
    names = [job.name for job in jobs]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"runs: {names.count(name)} of them are called {name!r}")


def visible_gpus() -> tuple[str, ...]:
    """Numbers of the GPUs that this process may use."""
    import torch  # slow to import, and the rest of this file does without

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return tuple(number for number in given.split(",") if number)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return tuple(map(str, range(count)))


def launch(
    jobs: Sequence[Job],
    folder: Path,
    machine: Machine,
    say: Callable[[str], None] = print,
    look: Callable[[], None] = lambda: None,
    stop: StopRequest | None = None,
) -> list[Result]:
    """Runs all jobs, and what became of each, in their order.

    Finished folders are skipped, unfinished ones gone on with; a job that fails stops no other. On
    SIGTERM or SIGUSR1 the runs are told to save, and no further one is begun. say: told of each
    start and end. look: called several times a second while runs go on. stop: says afterwards
    whether there was such a signal: a run that is told in its last step ends as any other.
    """
    require_different_names(jobs)
    stop, is_told = stop or StopRequest(), False
    results: dict[str, Result] = {}
    waiting, running = list(jobs), list[Running]()
    while waiting or running:
        while waiting and len(running) < machine.parallel and not stop.requested:
            job = waiting.pop(0)
            early = result_before(job, folder)
            if early is not None:
                results[job.name] = early
                say(f"{job.name}: {early.message}")
                continue
            slot = min(set(range(machine.parallel)) - {r.slot for r in running})
            running.append(Running(job, start(job, folder, machine, slot), slot))
            say(f"{job.name}: started, see {folder / job.name / OUTPUT}")
        if stop.requested and not is_told:
            is_told = True
            waiting.clear()
            for each in running:
                each.process.send_signal(signal.SIGTERM)
        for each in [r for r in running if r.process.poll() is not None]:
            running.remove(each)
            result = result_of(each.job, folder, each.process.returncode)
            results[each.job.name] = result
            say(f"{each.job.name}: {result.state}{_because(result)}")
        look()
        time.sleep(POLL if running else 0)
    none = "not started"
    return [results.get(j.name, Result(j.name, folder / j.name, "none", 75, none)) for j in jobs]


def start(job: Job, folder: Path, machine: Machine, slot: int) -> subprocess.Popen[bytes]:
    """Begins a run; what it prints is added to a file of its folder."""
    path = folder / job.name
    path.mkdir(parents=True, exist_ok=True)
    (path / OVERRIDES).write_text(json.dumps(job.overrides))
    with open(path / OUTPUT, "ab") as output:
        return subprocess.Popen(
            machine.command(job, folder),
            env=machine.environment(slot),
            stdout=output,
            stderr=subprocess.STDOUT,
            # Ctrl-C is for this process, which tells the runs: to save.
            start_new_session=True,
        )


def result_before(job: Job, folder: Path) -> Result | None:
    """The result of a job that needs no start: it is done, or its folder is of another job."""
    path = folder / job.name
    noted = path / OVERRIDES
    if noted.is_file() and (known := json.loads(noted.read_text())) != list(job.overrides):
        message = f"{path} holds a run with other overrides: {' '.join(known)}"
        return Result(job.name, path, "failed", 2, message)
    if RunFolder(path).read_status()["state"] == "done":
        return Result(job.name, path, "done", 0, "finished before", is_skipped=True)
    return None


def result_of(job: Job, folder: Path, returncode: int) -> Result:
    """What a run says of itself: torchrun returns 1 for whatever its processes returned."""
    path = folder / job.name
    status = RunFolder(path).read_status()
    if status["state"] == "done":
        return Result(job.name, path, "done", 0)
    if status["state"] == "none" or "exit_code" not in status:
        state = "failed" if status["state"] == "none" else status["state"]
        return Result(job.name, path, state, returncode or 1, _last_line(path / OUTPUT))
    return Result(job.name, path, status["state"], status["exit_code"], status.get("message", ""))


def _last_line(path: Path) -> str:
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it printed nothing"


def _because(result: Result) -> str:
    return f": {result.message}" if result.message else ""


def table(results: Sequence[Result]) -> str:
    """The finished runs as a Markdown table; below it a line for each of the others."""
    rows = [read_run(result.folder) for result in results if result.is_done]
    lines = [table_of_runs(rows)] if rows else []
    left = [result for result in results if not result.is_done]
    lines += [f"{r.name}: {r.state}, exit code {r.exit_code}{_because(r)}" for r in left]
    lines.append(f"{len(rows)} of {len(results)} runs are done")
    return "\n".join(lines)


def exit_code(results: Sequence[Result]) -> int:
    """0 where all are done, 75 where the rest can be gone on with, else the first failure's."""
    codes = [result.exit_code for result in results if not result.is_done]
    failures = [code for code in codes if code != 75]
    return failures[0] if failures else (75 if codes else 0)
