"""Real faults put into real runs from outside of their process, and what came out, in words.

Nothing of the project is patched: signals, limits, mounts and files are those of the system.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from detector.runs import checkpoint
from tests.commands import ROOT
from tests.guarantees.page import Case
from tests.training.test_side_files import DAMAGES, SIDE_FILES
from tests.training.tiny import small, started

LIMIT = 150.0
"""Seconds after which a process that has not ended counts as hanging."""

LONG = ("steps=100000", "save_every=null", "evaluation.every=null")


TRAIN = (
    *(sys.executable, "-c"),
    f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom detector.cli.train import main\nmain()",
)


class Ended:
    """A process that has come to its end, and how."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        began = time.monotonic()
        try:
            self.out, self.err = process.communicate(timeout=LIMIT)
            self.code: int | str = process.returncode
        except subprocess.TimeoutExpired:
            process.kill()
            self.out, self.err = process.communicate()
            self.code = "HUNG"
        self.seconds = time.monotonic() - began

    @property
    def is_one_line(self) -> bool:
        """Whether one line says why."""
        return len((self.err or "").splitlines()) == 1

    def says(self, words: str) -> bool:
        return re.search(words, self.err or "") is not None

    def told(self, words: str) -> bool:
        """Whether one line says so; what says it otherwise is printed."""
        is_told = self.is_one_line and self.says(words)
        if not is_told:
            print(f"exit {self.code}, looked for {words!r}: {self.err}", flush=True)
        return is_told


def run(folder: Path, *words: str, **options: Any) -> Ended:
    """A run from its start to its end."""
    return Ended(started(folder, *words, **options))


def at_step(folder: Path, step: int, *words: str, **options: Any) -> subprocess.Popen[str]:
    """A run that has just said that a step is done."""
    process = started(folder, *words, **options)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(f"step {step}/"):
            return process
    raise AssertionError(process.communicate()[1])


def step_of(folder: Path) -> int:
    return checkpoint.load(folder / "checkpoints" / "last.pt")["step"]


def status(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "status.json").read_text())


def loaders(process: subprocess.Popen[str]) -> list[int]:
    """The loader processes of a run."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(number) for number in path.read_text().split()]


def share(outcomes: list[bool]) -> str:
    return f"{sum(outcomes)} of {len(outcomes)}"


def together(folder: Path) -> str:
    """Two runs started in one folder at once, four times."""
    fits = []
    for i in range(4):
        pair = [started(folder / str(i), "steps=20") for _ in range(2)]
        ends = [Ended(process) for process in pair]
        codes = sorted(end.code for end in ends)  # type: ignore[type-var]
        fits.append(codes == [0, 2] and any(end.says("is in use by process") for end in ends))
    return f"{share(fits)}: one trains, the other is refused"


def side_files(folder: Path) -> str:
    run(folder / "whole", "steps=2")
    fits = []
    for name, damage in DAMAGES.items():
        mine = Path(shutil.copytree(folder / "whole", folder / name))
        for file in SIDE_FILES:
            damage(mine / file)
        end = run(mine, "steps=2", "resume=auto")
        fits.append(end.code == 0 and step_of(mine) == 2)
    return f"{share(fits)} went on from the checkpoint"


def newer(folder: Path) -> str:
    run(folder / "run", "steps=2")
    last = folder / "run" / "checkpoints" / "last.pt"
    content = checkpoint.load(last)
    content["format_version"] += 1
    last.write_bytes(checkpoint.pack(content))
    before = {p: p.read_bytes() for p in last.parent.iterdir()}
    end = run(folder / "run", "steps=2", "resume=auto")
    is_kept = {p: p.read_bytes() for p in last.parent.iterdir()} == before
    return f"exit {end.code}, one line: {end.is_one_line}; all as it was: {is_kept}"


def streams(folder: Path) -> str:
    """Standard output is closed by its reader, was never there, or is a full device; or standard
    error was never there."""
    words = ["steps=4", "save_every=2"]
    ends: dict[str, Ended] = {}
    with open("/dev/full", "w") as full:
        ends["full"] = run(folder / "full", *words, stdout=full)
    process = started(folder / "closed", *words)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    process.stdout = None
    ends["closed"] = Ended(process)
    ends["none"] = run(folder / "none", *words, stdout=None, preexec_fn=lambda: os.close(1))
    ends["no errors"] = run(
        folder / "no errors", *words, stderr=None, preexec_fn=lambda: os.close(2)
    )
    fits = [end.code == 0 and step_of(folder / name) == 4 for name, end in ends.items()]
    warnings = [len((end.err or "").splitlines()) for end in ends.values()]
    return f"{share(fits)} trained to the end; lines said of it: {', '.join(map(str, warnings))}"


def signals(folder: Path) -> str:
    fits, seconds = [], []
    for name in ("SIGINT", "SIGHUP", "SIGTERM", "SIGUSR1"):
        mine = folder / name
        words = (*LONG, "loader.num_workers=1")
        process = at_step(mine, 3, *words, start_new_session=True)
        os.killpg(process.pid, getattr(signal, name))
        end = Ended(process)
        said = status(mine)
        is_saved = step_of(mine) == said["step"] >= 3 and end.told("resume=auto goes on")
        fits.append(end.code == said["exit_code"] == 75 and is_saved)
        seconds.append(end.seconds)
    return f"{share(fits)} saved the step at hand, at most {max(seconds):.1f} s after the signal"


def twice(folder: Path) -> str:
    """A second signal, while the first is not obeyed yet: the run waits for a stopped loader."""
    process = at_step(folder / "run", 3, *LONG, "loader.num_workers=1", "loader.timeout=100")
    stopped = loaders(process)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    code = process.wait(LIMIT)
    seconds = time.monotonic() - began
    for pid in stopped:  # they see that the run is gone, and end, once they may go on
        os.kill(pid, signal.SIGCONT)
    process.communicate()
    return f"ended {seconds:.1f} s after the second, by signal {-code}"


def early(folder: Path) -> str:
    fits = []
    for i in range(12):
        words = small(*LONG, f"output_dir={folder / str(i)}")
        process = command(folder, "train", *words)
        time.sleep(0.4 + 0.35 * i)
        process.send_signal(signal.SIGINT)
        end = Ended(process)
        fits.append(end.code in (130, 75) and end.told("stopped by Ctrl-C"))
    return f"{share(fits)}: one line, exit 130, or 75 once there was a step"


def evaluating(folder: Path) -> str:
    words = ["steps=2", "data.num_val=3000", "evaluation.images_per_group=1"]
    process = at_step(folder / "run", 2, *words)
    time.sleep(2)
    process.send_signal(signal.SIGTERM)
    end = Ended(process)
    said, step = end.says("in the evaluation after step 2"), step_of(folder / "run")
    return f"ended after {end.seconds:.1f} s, exit {end.code}, said: {said}, step {step} saved"


def frozen(folder: Path) -> str:
    words = (*LONG, "loader.num_workers=2", "loader.timeout=5")
    process = at_step(folder / "run", 5, *words)
    for pid in loaders(process):
        os.kill(pid, signal.SIGSTOP)
    end = Ended(process)
    return (
        f"ended {end.seconds:.1f} s after it (timeout 5 s), exit {end.code}, one line that names "
        f"images: {end.told('loading image ids')}"
    )


def files(folder: Path) -> str:
    parts = []
    for limit in (20, 30):

        def few(limit: int = limit) -> None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

        end = run(folder / str(limit), *LONG, "loader.num_workers=2", preexec_fn=few)
        told = end.told("too many open files")
        parts.append(
            f"{limit} files: exit {end.code} {end.seconds:.0f} s after the start, told: {told}"
        )
    return "; ".join(parts)


def in_mount(folder: Path, mount: str, at: Path, *words: str) -> Ended:
    """A run that sees a file system of its own at a folder. Needs root, or user namespaces."""
    command = [*TRAIN, *small(*words)]
    shell = f'mount -t tmpfs {mount} tmpfs {at} && exec "$0" "$@"'
    process = subprocess.Popen(
        ["unshare", "-rm", "sh", "-c", shell, *command],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return Ended(process)


def shared_memory(folder: Path) -> str:
    parts = []
    for size in ("40k", "200k"):
        words = (f"output_dir={folder / size}", *LONG, "loader.num_workers=2")
        end = in_mount(folder, f"-o size={size}", Path("/dev/shm"), *words)
        told = end.told("/dev/shm has")
        parts.append(f"{size}B: exit {end.code} {end.seconds:.0f} s after the start, told: {told}")
    return "; ".join(parts)


def full_disk(folder: Path) -> str:
    """Room for one checkpoint and no second."""
    disk = folder / "disk"
    disk.mkdir()
    run(folder / "whole", "steps=2")
    size = (folder / "whole" / "checkpoints" / "last.pt").stat().st_size
    code = f"output_dir={disk}/run"
    kept = folder / "kept.pt"
    words = (code, "steps=4", "save_every=1")
    # What lies there is gone with the mount: the shell looks before it ends.
    shell = f'mount -t tmpfs -o size={int(1.6 * size)} tmpfs {disk} && "$0" "$@"; c=$?; '
    shell += f"cp {disk}/run/checkpoints/last.pt {kept}; exit $c"
    command = ["unshare", "-rm", "sh", "-c", shell, *TRAIN, *small(*words)]
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    end = Ended(process)
    warned = end.out.count("is not saved")
    step = checkpoint.load(kept)["step"]
    return (
        f"trained to the end with {warned} warnings, exit {end.code}, one line: {end.is_one_line}; "
        f"the checkpoint of step {step} is whole"
    )


def memory(folder: Path) -> str:
    def little() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30))

    model = run(folder / "model", "model.head.channels=30000", preexec_fn=little)
    large = ("data.image_size=640", "augment.max_size=640", "data.num_val=64", "batch_size=1")
    scored = run(folder / "scored", *large, "evaluation.images_per_group=64", preexec_fn=little)
    told = [model.told("model.fpn.channels"), scored.told("evaluation.images_per_group=32")]
    return f"exit {model.code} and {scored.code}; key named: {told[0]} and {told[1]}"


def silent(folder: Path) -> str:
    """One of two processes is stopped."""
    code = "from detector.cli.train import main; main()"
    (folder / "main.py").write_text(code)
    command = [str(ROOT / "scripts" / "launch.sh"), "--standalone", "--nproc-per-node", "2"]
    words = small(*LONG, f"output_dir={folder / 'run'}", "process_timeout=8", "batch_size=4")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PATH": path}
    process = subprocess.Popen(
        [*command, str(folder / "main.py"), *words],
        env=environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert any(line.startswith("step 3/") for line in process.stdout)
    first, second = sorted(loaders(process))[-2:]
    other = second if is_rank(second, 1) else first
    os.kill(other, signal.SIGSTOP)
    end = Ended(process)
    message = status(folder / "run")["message"]
    return (
        f"ended {end.seconds:.0f} s after it (torchrun waits 30 s for the stopped one): {message}"
    )


def is_rank(pid: int, rank: int) -> bool:
    return f"RANK={rank}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


def no_files(folder: Path) -> str:
    """What is no file where a file is expected, for each command that reads one."""
    os.mkfifo(folder / "fifo")
    (folder / "folder").mkdir()
    (folder / "loop").symlink_to("loop")
    (folder / "text").write_text("{")
    (folder / "images").mkdir()
    Image.new("RGB", (64, 64)).save(folder / "images" / "a.png")
    commands = (
        ("evaluate", "checkpoint={}"),
        ("evaluate", "detections={} annotations={}"),
        ("predict", "checkpoint={} source=images"),
        ("calibrate", "checkpoint={} output=c.pt"),
        ("table", "folder={}"),
        ("replay", "folder={}"),
    )
    fits = []
    for name, words in commands:
        for file in ("fifo", "folder", "loop", "text"):
            end = Ended(command(folder, name, *words.format(*[file] * 2).split()))
            fits.append(end.code in (2, 3) and end.told(rf"\b{file}\b"))
    return f"{share(fits)}: one line that names it, exit 2 or 3"


def command(folder: Path, name: str, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "detector.cli", name, *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outside(folder: Path) -> str:
    """Names of images that lead out of the folder of `images=`."""
    images = folder / "images"
    images.mkdir()
    Image.new("RGB", (64, 64), (255, 0, 255)).save(folder / "secret.png")
    (images / "link.png").symlink_to("../secret.png")
    (images / "up").symlink_to("..")
    names = ("../secret.png", "link.png", "up/secret.png", str(folder / "secret.png"), "link.png\0")
    fits = [is_refused(folder, name) for name in names]
    return f"{share(fits)} refused in one line; 0 pictures drawn: {not any(drawn(folder))}"


def is_refused(folder: Path, name: str) -> bool:
    truth = {
        "images": [{"id": 1, "width": 64, "height": 64, "file_name": name}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 20, 20], "area": 400,
             "iscrowd": 0}
        ],
    }  # fmt: skip
    found = [{"image_id": 1, "category_id": 1, "bbox": [30, 30, 20, 20], "score": 0.9}]
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "found.json").write_text(json.dumps(found))
    words = ("detections=found.json", "annotations=truth.json", "images=images", "output_dir=out")
    end = Ended(command(folder, "evaluate", *words))
    return end.code in (2, 3) and end.is_one_line


def drawn(folder: Path) -> Iterator[bool]:
    return (path.is_file() for path in (folder / "out" / "worst").glob("*"))


Figure = Callable[[Path], str]

CASES: dict[str, Case] = {
    "together": Case("two runs started in one folder at the same moment, 4 times", together),
    "side_files": Case(
        f"{len(DAMAGES)} kinds of damage to all of {', '.join(SIDE_FILES)}, then resume=auto",
        side_files,
    ),
    "newer": Case("last.pt of a format that comes later, then resume=auto", newer),
    "streams": Case(
        "standard output on a full device, closed by its reader, not there; no standard error",
        streams,
    ),
    "signals": Case("SIGINT, SIGHUP, SIGTERM, SIGUSR1 to a run and its loader process", signals),
    "twice": Case("Ctrl-C twice while the run waits", twice),
    "early": Case("Ctrl-C at 12 moments from 0.4 to 4.3 s after the start", early),
    "evaluating": Case("SIGTERM in an evaluation of 3,000 images", evaluating),
    "frozen": Case("SIGSTOP to both loader processes", frozen),
    "files": Case("`ulimit -n` of 20 and of 30, two loader processes", files),
    "shared_memory": Case("/dev/shm of 40 and of 200 kB, two loader processes", shared_memory),
    "full_disk": Case("a disk with room for 1.6 checkpoints", full_disk),
    "memory": Case(
        "8 GiB of address space for a model that is too large, and for an evaluation", memory
    ),
    "silent": Case("SIGSTOP to one of two processes under torchrun, process_timeout 8 s", silent),
    "no_files": Case(
        "a FIFO, a folder, a link to itself and half a JSON in place of a file", no_files
    ),
    "outside": Case("5 names of images that lead out of `tools/evaluate.py images=`", outside),
}
