"""This detector beside torchvision's RetinaNet: the same work, in one run, taking turns.

Turns (A B A B ...) because a machine's speed drifts by more than the detectors differ; medians
because a single block may hit something else the machine does.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
import torchvision
from torch import Tensor, nn

import detector
from benchmarking.torchvision_retinanet import TorchvisionRetinaNet
from benchmarking.workload import SyntheticSet, Workload, synthetic_batch
from detector.runtime.distributed import World
from detector.runtime.precision import processor_name
from detector.runtime.stopwatch import Stopwatch
from detector.structures import MicroBatches
from detector.training.setup import build, predictor_of
from detector.training.train import backward


@dataclass(frozen=True)
class Turns:
    """How long both are timed.

    warmup: steps of each before the clock runs. rounds: times that they take turns. steps: of a
    turn.
    """

    warmup: int
    rounds: int
    steps: int


class Contender(Protocol):
    """What is timed."""

    def train_step(self) -> None: ...

    def infer(self) -> None: ...


class Ours:
    """The training page's step and the evaluation's forward pass, without loader, log and EMA."""

    def __init__(self, workload: Workload, plain: dict[str, Any], world: World) -> None:
        batch, targets = synthetic_batch(workload, world.device)
        data = SyntheticSet(workload)
        self.setup, self.state = build(workload.train, plain, world, (data, data))
        self.state.step = 1  # the first step also foretells its loss
        self.micro: MicroBatches = [(batch, targets)]
        self.clock = Stopwatch(world.device, enabled=False)
        self.predictor = predictor_of(self.setup, self.state)
        self.predictor.model = self.state.model  # one model in memory, as theirs is

    def train_step(self) -> None:
        state, model = self.state, self.state.model.train()
        backward(self.setup, state, model, self.micro, self.clock)
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), self.setup.config.clip or torch.inf)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.optimizer.zero_grad()

    def infer(self) -> None:
        self.predictor.detect(self.micro[0][0])


class Theirs:
    """torchvision's model under the same optimizer, clipping and number format."""

    def __init__(self, workload: Workload, ours: Ours) -> None:
        setup = ours.setup
        self.setup, device = setup, setup.world.device
        model = TorchvisionRetinaNet(
            workload.train.backbone,
            workload.train.model,
            classes=workload.classes,
            height=workload.height,
            width=workload.width,
        )
        self.model = model.to(device)
        self.optimizer = torch.optim.AdamW(
            [p for p in self.model.parameters() if p.requires_grad], lr=1e-4, fused=True
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=setup.precision.needs_scaling)  # type: ignore[attr-defined]
        batch, targets = ours.micro[0]
        self.images = list(batch.images.float() / 255)
        self.targets = [
            {"boxes": b, "labels": k} for b, k in zip(targets.boxes, targets.labels, strict=True)
        ]

    def train_step(self) -> None:
        self.model.train()
        with self.setup.precision.autocast(self.setup.world.device):
            losses: dict[str, Tensor] = self.model(self.images, self.targets)
            loss = torch.stack([*losses.values()]).sum()
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.setup.config.clip or torch.inf)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def infer(self) -> None:
        with self.setup.precision.autocast(self.setup.world.device):
            self.model.eval()(self.images)


@dataclass(frozen=True)
class Timing:
    """Of one contender. seconds: of one step, for each block. peak_memory: bytes; None on a CPU."""

    seconds: list[float]
    peak_memory: int | None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def take_turns(
    work: dict[str, Callable[[], None]], turns: Turns, device: torch.device
) -> dict[str, Timing]:
    """Each `rounds` blocks of `steps` calls, in turn, after a warm-up that is not counted."""
    for call in work.values():
        block(call, turns.warmup, device)
    seconds: dict[str, list[float]] = {name: [] for name in work}
    peaks: dict[str, int | None] = dict.fromkeys(work)
    for _ in range(turns.rounds):
        for name, call in work.items():
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            seconds[name].append(block(call, turns.steps, device))
            if device.type == "cuda":
                peaks[name] = max(peaks[name] or 0, torch.cuda.max_memory_allocated(device))
    return {name: Timing(seconds[name], peaks[name]) for name in work}


def block(call: Callable[[], None], times: int, device: torch.device) -> float:
    """Seconds of one call, over `times` of them."""
    began = now(device)
    for _ in range(times):
        call()
    return (now(device) - began) / max(1, times)


def now(device: torch.device) -> float:
    """Seconds of the clock once the device has done what it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def compare(
    workload: Workload, turns: Turns, plain: dict[str, Any], world: World
) -> dict[str, Any]:
    """What was timed, where, and the seconds of both, in plain containers.

    plain: the values that `workload.train` was made of.
    """
    if workload.tf32:
        torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = workload.tf32
    ours = Ours(workload, plain, world)
    theirs = Theirs(workload, ours)
    names = ("detector", "torchvision")
    contenders: dict[str, Contender] = dict(zip(names, (ours, theirs), strict=True))
    results = {}
    for kind, method in (("training", "train_step"), ("inference", "infer")):
        work = {name: getattr(contender, method) for name, contender in contenders.items()}
        timings = take_turns(work, turns, world.device)
        results[kind] = summary(timings, workload.train.batch_size)
    return {
        "hardware": hardware(world.device),
        "versions": versions(),
        "settings": settings(workload, ours),
        **results,
    }


def summary(timings: dict[str, Timing], batch_size: int) -> dict[str, Any]:
    """Medians, and the ratio: torchvision's time over ours in each round."""
    ours, theirs = timings["detector"], timings["torchvision"]
    ratios = [b / a for a, b in zip(ours.seconds, theirs.seconds, strict=True)]
    each = {
        name: asdict(t) | {"median": t.median, "images_per_second": batch_size / t.median}
        for name, t in timings.items()
    }
    return each | {
        "speedup": statistics.median(ratios),
        "speedup_range": [min(ratios), max(ratios)],
    }


def hardware(device: torch.device) -> dict[str, Any]:
    """What the seconds were measured on."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {"gpu": gpu, "processor": processor_name(), "threads": torch.get_num_threads()}


def versions() -> dict[str, str]:
    """What the seconds were measured with."""
    return {
        "detector": detector.__version__,
        "torch": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
        "cuda": str(torch.version.cuda),
        "python": platform.python_version(),
    }


def settings(workload: Workload, ours: Ours) -> dict[str, Any]:
    """What was asked of both, and the parameters that each trains."""
    train = workload.train
    precision = ours.setup.precision.name + (" (TF32)" if workload.tf32 else "")
    return {
        "backbone": train.backbone.options["arch"],
        "norm": ours.state.model.backbone.bn1.__class__.__name__,
        "frozen_stages": ours.state.model.backbone.frozen_stages,
        "channels": train.model.head.channels,
        "convolutions": {"detector": train.model.head.num_convs, "torchvision": 4},
        "image": [workload.height, workload.width],
        "batch_size": train.batch_size,
        "classes": workload.classes,
        "precision": precision,
        "channels_last": {"detector": train.channels_last, "torchvision": False},
        "loss": train.loss.name,
    }
