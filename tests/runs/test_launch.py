"""Many runs: none stops the others, and what is done is not done again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from detector.errors import ConfigError
from detector.runs import launch as module
from detector.runs.launch import (
    Job,
    Machine,
    Result,
    exit_code,
    jobs_of,
    launch,
    require_different_names,
    table,
)
from detector.runs.run_folder import RunFolder
from tests.commands import ROOT, script
from tests.runtime.test_signals import handlers

__all__ = ["handlers"]  # what the process does on signals is put back

STAND_IN = """
import json, os, signal, sys, time
from pathlib import Path

overrides = dict(word.split("=", 1) for word in sys.argv[1:])
folder = Path(overrides["output_dir"])
with open(folder.parent / "calls", "a") as calls:
    calls.write(f"{folder.name} {time.time()} ")
    calls.write(os.environ.get("CUDA_VISIBLE_DEVICES", "-") + chr(10))
print("began", overrides)


def end(state, code, **facts):
    status = {"state": state, "step": 1, "exit_code": code, **facts}
    (folder / "status.json").write_text(json.dumps(status))
    sys.exit(code)


signal.signal(signal.SIGTERM, lambda *_: end("preempted", 75, message="stopped"))
time.sleep(float(overrides.get("sleep", "0")))
if overrides.get("fail") == "config":
    print("error: seed: -1 given", file=sys.stderr)
    sys.exit(2)
if overrides.get("fail") == "diverged":
    end("diverged", 4, message="not finite 5 times in a row")
if overrides.get("fail") == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
(folder / "log.jsonl").write_text(json.dumps({"step": 1, "images_per_second": 2.0}) + chr(10))
(folder / "metrics.json").write_text(json.dumps({"AP": float(overrides["ap"])}))
end("done", 0)
"""
"""What a run does as far as it matters here, without torch, so in a moment."""


@pytest.fixture
def train(tmp_path: Path) -> Path:
    path = tmp_path / "train.py"
    path.write_text(STAND_IN)
    return path


def calls(folder: Path) -> list[list[str]]:
    return [line.split() for line in (folder / "calls").read_text().splitlines()]


def quiet(text: str) -> None: ...


def test_runs_are_named_by_their_overrides() -> None:
    jobs = jobs_of(["loss=focal seed=0", "data.root='my data/x' loss.gamma=1.5"])
    assert jobs[0] == Job("loss_focal-seed_0", ("loss=focal", "seed=0"))
    assert jobs[1] == Job(
        "data.root_my_data_x-loss.gamma_1.5", ("data.root=my data/x", "loss.gamma=1.5")
    )


def test_two_runs_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="2 of them are called 'seed_0'"):
        jobs_of(["seed=0", "seed=0"])
    with pytest.raises(ConfigError, match="called 'a'"):
        require_different_names([Job("a", ()), Job("a", ("seed=1",))])


def test_a_run_that_fails_stops_no_other_and_is_named_at_the_end(
    tmp_path: Path, train: Path
) -> None:
    folder = tmp_path / "study"
    jobs = jobs_of(["ap=0.25", "fail=config", "fail=diverged", "fail=killed", "ap=0.5"])
    results = launch(jobs, folder, Machine((str(train),)), quiet)
    assert [(r.state, r.exit_code) for r in results] == [
        ("done", 0),
        ("failed", 2),
        ("diverged", 4),
        ("failed", -signal.SIGKILL),
        ("done", 0),
    ]
    assert results[1].message == "error: seed: -1 given"
    assert results[2].message == "not finite 5 times in a row"
    lines = table(results).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:4]] == ["ap_0.5", "ap_0.25"]
    assert lines[4] == "fail_config: failed, exit code 2: error: seed: -1 given"
    assert lines[-1] == "2 of 5 runs are done"
    assert exit_code(results) == 2
    assert "began" in (folder / "ap_0.5" / "output.txt").read_text()


def test_what_is_finished_is_skipped_and_what_is_not_is_gone_on_with(
    tmp_path: Path, train: Path
) -> None:
    folder = tmp_path / "study"
    jobs = jobs_of(["ap=0.25", "fail=diverged"])
    launch(jobs, folder, Machine((str(train),)), quiet)
    results = launch(jobs, folder, Machine((str(train),)), quiet)
    assert [r.is_skipped for r in results] == [True, False]
    assert [name for name, *_ in calls(folder)] == ["ap_0.25", "fail_diverged", "fail_diverged"]
    assert "resume=auto" in module.Machine((str(train),)).command(jobs[0], folder)


def test_a_folder_of_another_run_is_not_taken_for_this_one(tmp_path: Path, train: Path) -> None:
    folder = tmp_path / "study"
    launch([Job("a", ("ap=0.25",))], folder, Machine((str(train),)), quiet)
    (result,) = launch([Job("a", ("ap=0.5",))], folder, Machine((str(train),)), quiet)
    assert (result.state, result.exit_code) == ("failed", 2)
    assert result.message.endswith("holds a run with other overrides: ap=0.25")


def test_so_many_run_at_a_time_each_with_gpus_of_its_own(tmp_path: Path, train: Path) -> None:
    folder = tmp_path / "study"
    jobs = jobs_of([f"ap=0.{i} sleep=0.6" for i in range(1, 5)])
    began = time.time()
    machine = Machine((str(train),), parallel=2, gpus=("3", "5"))
    assert all(r.is_done for r in launch(jobs, folder, machine, quiet))
    # Two rounds of 0.6 s: one after another would be 2.4 s of sleep alone.
    assert 1.2 <= time.time() - began < 2.4
    gpus = [gpu for _, _, gpu in calls(folder)]
    assert sorted(gpus[:2]) == sorted(gpus[2:]) == ["3", "5"]


def test_a_signal_tells_the_runs_to_save_and_begins_no_other(tmp_path: Path, train: Path) -> None:
    folder = tmp_path / "study"
    jobs = jobs_of(["ap=0.1 sleep=60", "ap=0.2 sleep=60"])

    def stop() -> None:
        while not (folder / "calls").exists():
            time.sleep(0.02)
        time.sleep(0.3)  # until its handler is there
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    results = launch(jobs, folder, Machine((str(train),)), quiet)
    thread.join()
    assert [(r.state, r.exit_code) for r in results] == [("preempted", 75), ("none", 75)]
    assert exit_code(results) == 75
    assert len(calls(folder)) == 1


def test_several_processes_of_a_run_are_started_by_torchrun(tmp_path: Path) -> None:
    machine = Machine(("-m", "module", "train"), processes=2, max_restarts=3)
    command = machine.command(Job("a", ("seed=1",)), tmp_path)
    assert command[:4] == [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    assert command[4:8] == ["--nproc-per-node", "2", "--max-restarts", "3"]
    assert command[8:] == [
        "-m",
        "module",
        "train",
        "seed=1",
        f"output_dir={tmp_path / 'a'}",
        "resume=auto",
    ]


def imported(folder: Path) -> str:
    """Where the package of a run comes from that is started in a folder."""
    done = subprocess.run(
        [sys.executable, "-c", "import detector; print(detector.__file__)"],
        env=Machine(()).environment(0),
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_a_run_uses_the_checkout_that_starts_it_also_beside_a_folder_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    (tmp_path / "detector").mkdir()
    (tmp_path / "detector" / "__init__.py").write_text("raise ZeroDivisionError")
    assert imported(tmp_path) == str(ROOT / "detector" / "__init__.py")


def test_the_packages_of_an_installation_do_not_come_before_the_modules_of_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROOT", tmp_path)  # such as site-packages: no pyproject.toml
    for known in ("", "mine"):
        monkeypatch.setenv("PYTHONPATH", known)
        assert Machine(()).environment(0)["PYTHONPATH"] == known


def test_the_exit_code_of_a_run_under_torchrun_is_what_the_run_says(tmp_path: Path) -> None:
    RunFolder(tmp_path / "a").path.mkdir()
    RunFolder(tmp_path / "a").write_status("preempted", step=3, exit_code=75, message="stopped")
    result = module.result_of(Job("a", ()), tmp_path, 1)  # torchrun's own code
    assert (result.state, result.exit_code) == ("preempted", 75)


def test_codes_say_whether_calling_again_helps() -> None:
    def of(*codes: int) -> int:
        return exit_code([Result("a", Path("a"), "done" if not c else "x", c) for c in codes])

    assert (of(0, 0), of(0, 75), of(75, 4), of(0, 3, 2)) == (0, 75, 4, 3)


SMALL = [
    *("experiment=smoke", "steps=2", "tensorboard=false", "device=cpu", "precision=float32"),
    *("data.image_size=64", "data.max_size=32", "data.num_val=2", "loader.num_workers=0"),
    *("model.fpn.channels=16", "model.head.channels=16"),
]


def test_the_tool_trains_prints_one_table_and_does_nothing_the_second_time(
    tmp_path: Path,
) -> None:
    small = " ".join(SMALL)
    runs = f"runs=['loss=focal {small}','loss=ssd seed=-1 {small}']"
    outcome = script("launch", runs, "folder=study", "parallel=2", cwd=tmp_path)
    assert outcome.code == 2, outcome.err
    assert "exit code 2: error: seed: -1 given, at least 0 is needed" in outcome.out
    assert outcome.out.splitlines()[-1] == "1 of 2 runs are done"
    done = next(p for p in (tmp_path / "study").iterdir() if p.name.startswith("loss_focal"))
    assert json.loads((done / "status.json").read_text())["state"] == "done"


def test_submitit_runs_them_too(tmp_path: Path, train: Path) -> None:
    from detector.runs import slurm

    folder = tmp_path / "study"
    jobs = jobs_of(["ap=0.25", "fail=diverged"])
    arguments: dict[str, Any] = {"cluster": "local", "parameters": {"timeout_min": 1}}
    results = slurm.launch(jobs, folder, Machine((str(train),)), say=quiet, **arguments)
    assert [(r.state, r.exit_code) for r in results] == [("done", 0), ("diverged", 4)]
    again = slurm.launch(jobs[:1], folder, Machine((str(train),)), say=quiet, **arguments)
    assert again[0].is_skipped
    with pytest.raises(ConfigError, match="slurm: "):
        slurm.launch(
            jobs, folder, Machine((str(train),)), say=quiet, cluster="local", parameters={"x": 1}
        )


def test_submitit_is_asked_for_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from detector.runs import slurm

    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ConfigError, match="executor: submitit is needed: pip install submitit"):
        slurm.launch([], tmp_path, Machine(()), cluster="local", parameters={})
