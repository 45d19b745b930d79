"""The cases of docs/guarantees.md: a fault put into real runs, and what came out, in words."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from detector.errors import ConfigError, Preempted
from detector.runs import checkpoint
from detector.runs.checkpoint import load, save
from detector.training import replay, train
from tests.commands import ROOT
from tests.guarantees.evaluation import evaluation
from tests.guarantees.page import Case
from tests.guarantees.programs import SOAK, STOPS, WORKER
from tests.training.test_processes import last, status, two
from tests.training.test_saving import kill_while_saving
from tests.training.test_train import StopAfter, assert_same, first_gradient
from tests.training.tiny import go, launch, losses, tiny, torchrun


def is_equal(a: Path, b: Path) -> bool:
    """Whether two runs ended alike to the bit: weights, averages, optimizer, buffers, losses."""
    first, second = (load(f / "checkpoints" / "last.pt") for f in (a, b))
    try:
        assert_same({**first, "config": None}, {**second, "config": None})
    except AssertionError:
        return False
    return losses(a) == losses(b)


def hard(loss: str) -> dict[str, Any]:
    """A loss with buffers, averaged weights, accumulation, evaluations, an option on a ramp."""
    return {
        "steps": 12,
        "micro_batch": 1,
        "loss": {"name": loss},
        "evaluation": {"every": 4},
        "ema": {"decay": 0.9},
        "ramps": ({"option": "loss.weight", "start": 1.0, "end": 2.0},),
    }


def resume(folder: Path) -> str:
    """Each loss is stopped at ten steps drawn at random of the 11 before the last."""
    equal = []
    for seed, loss in enumerate(("ghm", "equalized_focal")):
        whole = go(tiny(folder / loss, **hard(loss)))
        points = random.Random(seed).sample(range(1, 12), 10)
        for stop in points:
            plain = tiny(folder / f"{loss}_{stop}", **hard(loss), resume="auto")
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(StopAfter, "step", stop)
                patch.setattr(train, "StopRequest", StopAfter)
                with suppress(Preempted):
                    go(plain)
            equal.append(is_equal(whole, go(plain)))
    return f"{sum(equal)} of {len(equal)} bit-equal to the unbroken run"


def resume_two(folder: Path) -> str:
    """The same of two processes, in one conversation of theirs: GHM at even steps, EFL at odd."""
    losses_of = {stop: ("ghm", "equalized_focal")[stop % 2] for stop in range(2, 12)}
    jobs = [
        [stop, tiny(folder / str(stop), **hard(loss), resume="auto")]
        for stop, loss in losses_of.items()
    ]
    whole = [tiny(folder / loss, **hard(loss)) for loss in ("ghm", "equalized_focal")]
    argument = json.dumps([whole, jobs])
    launch(2, STOPS, argument, folder, wanted=folder / "11" / "metrics.json")
    equal = [is_equal(folder / loss, folder / str(stop)) for stop, loss in losses_of.items()]
    return f"{sum(equal)} of {len(equal)} bit-equal to the unbroken run of two processes"


def kills(folder: Path) -> str:
    found = kill_while_saving(folder / "k", 50)
    return (
        f"{found.unreadable} of 50 left no whole checkpoint; of {found.finished} finished saves at "
        f"most {found.saves_lost} lost by a kill (the interrupted one costs save_every steps)"
    )


def bits(folder: Path) -> str:
    path = folder / "a.pt"
    save(path, {"w": torch.arange(20_000.0)})
    content, generator, found = path.read_bytes(), random.Random(1), 0
    for _ in range(200):
        damaged = bytearray(content)
        bit = generator.randrange(8 * len(content))
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(damaged))
        try:
            load(path)
        except ConfigError:
            found += 1
    return f"{found} of 200 found"


def full(folder: Path) -> str:
    whole = go(tiny(folder / "run", steps=4, save_every=2))
    before = (whole / "checkpoints" / "last.pt").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "lacks_space", lambda folder, num_bytes: True)
        try:
            go(
                tiny(
                    folder / "run", steps=8, save_every=2, resume=str(whole / "checkpoints/last.pt")
                )
            )
            said = "the run did not say so"
        except Exception as error:
            said = f"the run ended with {type(error).__name__}"
    is_kept = (whole / "checkpoints" / "last.pt").read_bytes() == before
    return f"older checkpoint {'whole' if is_kept else 'LOST'}; {said}"


def sigterm(folder: Path) -> str:
    two(folder / "whole")
    began = time.monotonic()
    two(folder / "parts", {"kind": "sigterm", "step": 3, "rank": 1})
    seconds, said = time.monotonic() - began, status(folder / "parts")
    lost = 3 - last(folder / "parts")["step"]
    two(folder / "parts")
    equal = is_equal(folder / "whole" / "run", folder / "parts" / "run")
    return (
        f"{said['state']}, {lost} steps lost, {seconds:.0f} s from start to end; "
        f"resumed: {'bit-equal' if equal else 'DIFFERENT'}"
    )


def restarts(folder: Path, times: range = range(10)) -> str:
    two(folder / "whole")
    recovered = equal = 0
    for i in times:
        part = folder / f"part_{i}"
        fault = {"kind": "sigkill", "step": 2 + i % 4, "rank": i % 2, "once": str(folder / f"k{i}")}
        two(part, fault, max_restarts=1)
        recovered += status(part)["state"] == "done"
        equal += is_equal(folder / "whole" / "run", part / "run")
    return f"{recovered} of {len(times)} on the first restart, {equal} bit-equal"


def difference(a: Path, b: Path) -> float:
    """Largest |a - b| of the weights of two runs."""
    first, second = (load(f / "checkpoints" / "last.pt")["model"] for f in (a, b))
    return max(float((first[k].double() - second[k].double()).abs().max()) for k in first)


DOUBLE: dict[str, Any] = {"steps": 20, "batch_size": 8, "precision": "float64"}


def splits(folder: Path) -> str:
    one = go(tiny(folder / "one", **DOUBLE))
    accumulated = go(tiny(folder / "accumulated", **DOUBLE, micro_batch=2))
    pair = torchrun(2, tiny(folder / "pair", **DOUBLE), folder)
    four = torchrun(4, tiny(folder / "four", **DOUBLE), folder)
    found = [difference(one, other) for other in (accumulated, pair, four)]
    first = {"steps": 1, "batch_size": 8, "clip": None}
    first["optim"] = {"name": "sgd", "weight_decay": 0.0}
    a = first_gradient(go(tiny(folder / "single_one", **first)))
    b = first_gradient(torchrun(2, tiny(folder / "single_pair", **first), folder))
    shares = [float((x - y).norm() / x.norm()) for x, y in zip(a, b, strict=True)]
    return (
        f"largest difference of a weight after 20 steps {max(found):.1e}; "
        f"of the first gradient in float32, 1 and 2 processes, {max(shares):.1e} of its norm"
    )


def devices(folder: Path) -> str:
    """From two processes to one and back to two."""
    plain = tiny(folder / "run", **DOUBLE, resume="auto")
    plain["save_every"] = 1
    whole = go(tiny(folder / "whole", **DOUBLE))
    fault = {"kind": "sigterm", "step": 7, "rank": 0}
    two(folder, fault, **DOUBLE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StopAfter, "step", 7)
        patch.setattr(train, "StopRequest", StopAfter)
        with suppress(Preempted):
            go(plain)
    step = load(folder / "run" / "checkpoints" / "last.pt")["step"]
    two(folder, **DOUBLE)
    return (
        f"stopped at 7 and {step}; largest difference of a weight after 20 steps "
        f"{difference(whole, folder / 'run'):.1e}"
    )


def nan(folder: Path) -> str:
    two(folder, {"kind": "nan", "step": 3, "rank": 1}, max_bad_steps=1)
    kept = load(folder / "run" / "crash" / "checkpoint.pt")
    before = last(folder)
    touched = sum(not torch.equal(kept["model"][k], before["model"][k]) for k in kept["model"])
    image = re.search(r"image \d+: [\w ]+", status(folder)["message"])
    step = replay.replay(str(folder / "run"), "cpu").step
    return f"{touched} weights touched; named: {image and image[0]}; replay has step {step}"


def workers(folder: Path) -> str:
    parts = []
    causes = {"killed": "killed by|exited unexpectedly", "hung": "timed out", "raised": "b.jpg: tr"}
    for kind, cause in causes.items():
        done = subprocess.run(
            [sys.executable, "-c", WORKER, kind, str(folder / kind)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
        )
        found = re.search(r"SECONDS ([\d.]+)", done.stdout)
        is_told = re.search(cause, "\n".join(done.stderr.splitlines()[-5:])) is not None
        parts.append(f"{kind}: ended after {found and found[1]} s, cause told: {is_told}")
    return "; ".join(parts)


def soak(folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SOAK, str(folder / "run")], cwd=ROOT, capture_output=True, text=True
    )
    found = re.search(r"GROWTH (.*)", done.stdout)
    if found is None:
        return f"FAILED: {done.stderr[-200:]}"
    parts = [
        f"{name} {before:.1f} to {after:.1f} MB ({after / before - 1:+.2%})"
        for name, (before, after) in zip(
            ("main process", "worker"), json.loads(found[1]), strict=True
        )
    ]
    return f"resident from step 200 to 2,000: {', '.join(parts)}"


CASES = {
    "resume": Case(
        "a stop at 10 random steps of 12, with GHM and with EFL: averaged weights, accumulation, "
        "evaluations, a loss on a ramp",
        resume,
    ),
    "resume_two": Case("the same of two processes, a stop after each of steps 2 to 11", resume_two),
    "evaluation": Case("images of different shapes scored by 1, 2 and 3 processes", evaluation),
    "kills": Case("SIGKILL at 50 random moments while checkpoints are saved", kills),
    "bits": Case("one random bit of a checkpoint flipped, 200 times", bits),
    "full": Case("no room for a checkpoint", full),
    "sigterm": Case("SIGTERM to one of two processes", sigterm),
    "restarts": Case("SIGKILL to one of two processes under torchrun, 10 times", restarts),
    "splits": Case("8 images as 1 x 8, 4 x 2 accumulated, 2 and 4 processes, float64", splits),
    "devices": Case("from 2 processes to 1 and back to 2, float64", devices),
    "nan": Case("a value that is not finite on one of two processes", nan),
    "workers": Case("a loader process killed, hung (timeout 5 s), raising", workers),
    "soak": Case("2,000 steps with evaluations, saves and logs", soak),
}
