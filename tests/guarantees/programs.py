"""Programs of their own, for faults that a process would not survive or would remember."""

WORKER = """
import os, signal, sys, time
from pathlib import Path
from detector.data.transforms import Albumentations
from detector.errors import DataError
from tests.training.tiny import go, tiny

kind, folder = sys.argv[1:]
evaluate, calls = Albumentations.train, [0]


def spoiled(self, sample, key):
    calls[0] += 1
    if calls[0] == 9:
        if kind == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "hung":
            time.sleep(3600)
        raise DataError("b.jpg: truncated")
    return evaluate(self, sample, key)


Albumentations.train = spoiled
began = time.monotonic()
try:
    go(tiny(Path(folder), loader={"num_workers": 1, "timeout": 5.0}))
finally:
    print(f"SECONDS {time.monotonic() - began:.1f}", flush=True)
"""


SOAK = """
import json, os, resource, sys
from pathlib import Path
from detector.training import train
from tests.training.tiny import go, tiny

seen, backward = [], train.backward


def resident(pid):  # not the private part: a page that one side of a fork writes to becomes that
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Rss"))


def children():
    me = os.getpid()
    return [int(p) for p in Path(f"/proc/{me}/task/{me}/children").read_text().split()]


def watched(setup, state, *rest):
    if state.step in (200, 1999):
        seen.append((resident(os.getpid()), max(map(resident, children()))))
    return backward(setup, state, *rest)


train.backward = watched
go(tiny(Path(sys.argv[1]), steps=2000, batch_size=2, save_every=100, log_every=10,
        evaluation={"every": 200}, loader={"num_workers": 1}))
print("GROWTH", json.dumps([[a / 1e3, b / 1e3] for a, b in zip(*seen)]))
"""


STOPS = """
import json, sys
from contextlib import suppress
from detector.runtime import distributed
from detector.config import from_plain
from detector.training import train
from detector.training.run import run
from detector.runtime.signals import StopRequest
from detector.errors import Preempted
from tests.training.test_train import StopAfter

stop, distributed.stop = distributed.stop, lambda: None  # one conversation for all runs
wholes, jobs = json.loads(sys.argv[1])
for plain in wholes:
    run(from_plain(plain), plain)
for StopAfter.step, plain in jobs:
    train.StopRequest = StopAfter
    with suppress(Preempted):
        run(from_plain(plain), plain)
    train.StopRequest = StopRequest
    run(from_plain(plain), plain)
stop()
"""


EVALUATIONS = """
import json, sys
from detector.runtime import distributed
from detector.inference.evaluate import evaluate

stop, distributed.stop = distributed.stop, lambda: None  # one conversation for both
for path, output in json.loads(sys.argv[1]):
    evaluate(path, output_dir=output, device="cpu")
stop()
"""
