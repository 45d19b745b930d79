"""This detector beside torchvision's RetinaNet: the same work, in one run, taking turns.

Turns (A B A B ...) because a machine's speed drifts by more than the detectors differ; medians
because a single block may hit something else the machine does.
"""

from __future__ import annotations

import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from torch import Tensor, nn

import detector
from benchmarking.options import BenchmarkConfig
from benchmarking.torchvision_retinanet import TorchvisionRetinaNet
from detector.data.annotations import Rows, pack
from detector.data.readers.base import Dataset
from detector.models.postprocess import postprocess
from detector.runtime.distributed import World
from detector.runtime.precision import processor_name
from detector.runtime.stopwatch import Stopwatch
from detector.structures import Batch, MicroBatches, Targets
from detector.training.setup import build
from detector.training.train import backward


class Contender(Protocol):
    """What is timed."""

    def train_step(self) -> None: ...

    def infer(self) -> None: ...


class Ours:
    """The training page's step and the evaluation's forward pass, without loader, log and EMA."""

    def __init__(self, config: BenchmarkConfig, plain: dict[str, Any], world: World) -> None:
        batch, targets = synthetic_batch(config, world.device)
        data = SyntheticSet(config)
        self.setup, self.state = build(config.train, plain, world, (data, data))
        self.state.step = 1  # the first step also foretells its loss
        self.micro: MicroBatches = [(batch, targets)]
        self.clock = Stopwatch(world.device, enabled=False)

    def train_step(self) -> None:
        state, model = self.state, self.state.model.train()
        backward(self.setup, state, model, self.micro, self.clock)
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), self.setup.config.clip or torch.inf)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.optimizer.zero_grad()

    @torch.no_grad()
    def infer(self) -> None:
        batch, _ = self.micro[0]
        with self.setup.precision.autocast(self.setup.world.device):
            predictions = self.state.model.eval()(batch)
        layout = self.state.criterion.layout
        postprocess(predictions, layout, batch, self.setup.config.model.postprocess)


class Theirs:
    """torchvision's model under the same optimizer, clipping and number format."""

    def __init__(self, config: BenchmarkConfig, ours: Ours) -> None:
        setup = ours.setup
        self.setup, device = setup, setup.world.device
        self.model = TorchvisionRetinaNet(config).to(device)
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


def synthetic_batch(config: BenchmarkConfig, device: torch.device) -> tuple[Batch, Targets]:
    """Random pixels, `objects` boxes of 16 to 256 px in each image; the same on every machine."""
    n, m = config.train.batch_size, config.objects
    generator = torch.Generator().manual_seed(0)
    size = torch.tensor([config.width, config.height])
    images = torch.randint(
        256, (n, 3, config.height, config.width), generator=generator, dtype=torch.uint8
    )
    side = 16 * 16 ** torch.rand(n, m, 2, generator=generator)
    side = torch.minimum(side, 0.9 * size)
    corner = torch.rand(n, m, 2, generator=generator) * (size - side)
    ids = tuple(range(1, n + 1))
    sizes = torch.tensor([[config.height, config.width]] * n)
    labels = torch.randint(config.classes, (n, m), generator=generator)
    batch = Batch(images.to(device), sizes.to(device), torch.ones(n, 2, device=device), ids)
    targets = Targets(
        boxes=torch.cat([corner, corner + side], -1).to(device),
        labels=labels.to(device),
        crowd=torch.zeros(n, m, dtype=torch.bool, device=device),
        image_sizes=sizes.to(device),
        image_ids=ids,
        keys=torch.arange(n, device=device),
    )
    return batch, targets


class SyntheticSet(Dataset):
    """One image without objects: what a run needs to know of data it never reads."""

    def __init__(self, config: BenchmarkConfig) -> None:
        rows = Rows([1], ["synthetic"], [(config.height, config.width)])
        names = {k: f"class {k}" for k in range(config.classes)}
        annotations = pack(rows, source="synthetic", categories=names, on_invalid="error")
        super().__init__("synthetic", annotations)
        self._size = (config.height, config.width, 3)

    def image(self, index: int) -> NDArray[np.uint8]:
        return np.zeros(self._size, np.uint8)


@dataclass(frozen=True)
class Timing:
    """Of one contender. seconds: of one step, for each block. peak_memory: bytes; None on a CPU."""

    seconds: list[float]
    peak_memory: int | None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def take_turns(
    work: dict[str, Callable[[], None]], config: BenchmarkConfig, device: torch.device
) -> dict[str, Timing]:
    """Each `rounds` blocks of `steps` calls, in turn, after a warm-up that is not counted."""
    for call in work.values():
        block(call, config.warmup, device)
    seconds: dict[str, list[float]] = {name: [] for name in work}
    peaks: dict[str, int | None] = dict.fromkeys(work)
    for _ in range(config.rounds):
        for name, call in work.items():
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            seconds[name].append(block(call, config.steps, device))
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


def compare(config: BenchmarkConfig, plain: dict[str, Any], world: World) -> dict[str, Any]:
    """Everything that `tools/benchmark.py` writes, in plain containers."""
    if config.tf32:
        torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = config.tf32
    ours = Ours(config, plain, world)
    theirs = Theirs(config, ours)
    names = ("detector", "torchvision")
    contenders: dict[str, Contender] = dict(zip(names, (ours, theirs), strict=True))
    results = {}
    for kind, method in (("training", "train_step"), ("inference", "infer")):
        work = {name: getattr(contender, method) for name, contender in contenders.items()}
        results[kind] = summary(take_turns(work, config, world.device), config.train.batch_size)
    return {
        "command": shlex.join(["python", *sys.argv]),
        "hardware": hardware(world.device),
        "versions": versions(),
        "settings": settings(config, ours),
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


def settings(config: BenchmarkConfig, ours: Ours) -> dict[str, Any]:
    """What was asked of both, and the parameters that each trains."""
    train = config.train
    precision = ours.setup.precision.name + (" (TF32)" if config.tf32 else "")
    return {
        "backbone": train.backbone.options["arch"],
        "norm": ours.state.model.backbone.bn1.__class__.__name__,
        "frozen_stages": ours.state.model.backbone.frozen_stages,
        "channels": train.model.head.channels,
        "convolutions": {"detector": train.model.head.num_convs, "torchvision": 4},
        "image": [config.height, config.width],
        "batch_size": train.batch_size,
        "classes": config.classes,
        "precision": precision,
        "channels_last": {"detector": train.channels_last, "torchvision": False},
        "loss": train.loss.name,
    }
