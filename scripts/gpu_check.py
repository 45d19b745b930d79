"""One part of what needs a GPU: `python scripts/gpu_check.py PART FOLDER`, see `gpu_check.sh`.

A part adds lines of JSON to FOLDER/gpu_check.jsonl as it goes, so that what was measured before a
failure, or before the time is up, is kept. Without a GPU each part runs at a size that shows no
more than that it runs.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from benchmarking.timing import Theirs, hardware, versions  # noqa: E402
from benchmarking.workload import SyntheticSet, Workload, synthetic_batch  # noqa: E402

from detector.config import from_plain  # noqa: E402
from detector.data.loader import train_batches  # noqa: E402
from detector.inference.predictor import Predictor  # noqa: E402
from detector.runtime.compiling import compilations  # noqa: E402
from detector.runtime.distributed import World  # noqa: E402
from detector.runtime.stopwatch import Stopwatch  # noqa: E402
from detector.structures import Batch, MicroBatches, Targets, to_device  # noqa: E402
from detector.training.run import run  # noqa: E402
from detector.training.setup import build, predictor_of  # noqa: E402
from detector.training.train import Update, backward, update  # noqa: E402

IS_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if IS_GPU else "cpu")
SIDE, BATCH = (800, 32) if IS_GPU else (64, 2)
STEPS = 10 if IS_GPU else 2
MODES = ("off", "loss", "model", "step")


class Record:
    """Where the numbers go."""

    def __init__(self, folder: Path, part: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.part = folder, part

    def __call__(self, name: str, **values: Any) -> None:
        row = {"part": self.part, "name": name, **values}
        with (self.folder / "gpu_check.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        shown = {k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()}
        print(f"{self.part} {name}: {shown}", flush=True)


def plain_of(*overrides: str) -> dict[str, Any]:
    """The values of a run of `configs/benchmark.yaml`: RetinaNet as published."""
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        node = compose("benchmark", [f"batch_size={BATCH}", "seed=0", *overrides])
    plain: Any = OmegaConf.to_container(node, resolve=True)
    plain.pop("benchmark")
    return plain


class Ours:
    """The training page's step: all that it does but the loader, the log and the EMA."""

    def __init__(self, *overrides: str) -> None:
        plain = plain_of(*overrides)
        config = from_plain(plain)
        self.workload = Workload(config, SIDE, SIDE, classes=80, objects=8)
        batch, targets = synthetic_batch(self.workload, DEVICE)
        data = SyntheticSet(self.workload)
        self.world = World(0, 1, DEVICE)
        self.setup, self.state = build(config, plain, self.world, (data, data))
        self.state.step = 1  # the first step also foretells its loss
        self.micro: MicroBatches = [(batch, targets)]
        self.parameters = [p for p in self.state.model.parameters() if p.requires_grad]
        self.clock = Stopwatch(DEVICE, enabled=False)

    def train_step(self) -> Update:
        model = self.state.model.train()
        sums = backward(self.setup, self.state, model, self.micro, self.clock)
        return update(self.setup, self.state, self.parameters, sums, stop_requested=False)

    def predictor(self) -> Predictor:
        made = predictor_of(self.setup, self.state)
        made.model = self.state.model
        return made


def seconds(call: Callable[[], Any], times: int = STEPS) -> list[float]:
    """Of each call, after three that are not counted."""
    for _ in range(3 if IS_GPU else 1):
        call()
    found = []
    for _ in range(times):
        synchronize()
        began = time.perf_counter()
        call()
        synchronize()
        found.append(time.perf_counter() - began)
    return found


def synchronize() -> None:
    if IS_GPU:
        torch.cuda.synchronize()


def peak_gigabytes(call: Callable[[], Any]) -> float | None:
    if not IS_GPU:
        return None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    call()
    synchronize()
    return torch.cuda.max_memory_allocated() / 1e9


def matrix_teraflops(dtype: torch.dtype) -> float:
    """The rate of a large product of random numbers, which is what this GPU can do."""
    size = 8192 if IS_GPU else 256
    a, b = (torch.randn(size, size, device=DEVICE).to(dtype) for _ in range(2))
    return 2 * size**3 / statistics.median(seconds(lambda: a @ b, 20)) / 1e12


def facts_of_step(ours: Ours, peak: float, flops: float) -> dict[str, Any]:
    taken = seconds(ours.train_step)
    median = statistics.median(taken)
    return {
        "seconds": median,
        "least": min(taken),
        "images_per_second": BATCH / median,
        "teraflops": flops / median / 1e12,
        "share_of_peak": flops / median / 1e12 / peak,
        "peak_gigabytes": peak_gigabytes(ours.train_step),
        # What recorded graphs hold is not allocated anew in a step, and is no part of that peak.
        "reserved_gigabytes": torch.cuda.memory_reserved() / 1e9 if IS_GPU else None,
    }


def profiled(call: Callable[[], Any], folder: Path, name: str) -> dict[str, Any]:
    """Kernels of a step into a file; time on the device, launches and waits of it."""
    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * IS_GPU
    with profile(activities=kinds) as found:
        call()
        synchronize()
    averages: Any = found.key_averages()
    key = "self_cuda_time_total" if IS_GPU else "self_cpu_time_total"
    table = averages.table(sort_by=key, row_limit=25, max_name_column_width=90)
    with (folder / "kernels.txt").open("a") as file:
        file.write(f"== {name}\n{table}\n")
    counts = {event.key: event.count for event in averages}
    device_time = sum(getattr(event, "self_device_time_total", 0) for event in averages)
    return {
        "device_seconds": device_time / 1e6,
        "operators": sum(n for key, n in counts.items() if key.startswith("aten::")),
        "launches": sum(n for key, n in counts.items() if "LaunchKernel" in key),
        "graph_launches": counts.get("cudaGraphLaunch", 0),
        "reads": counts.get("aten::_local_scalar_dense", 0),
        "copies_to_host": sum(n for k, n in counts.items() if k.startswith("Memcpy DtoH")),
        "data_dependent": sum(counts.get(f"aten::{k}", 0) for k in ("nonzero", "masked_select")),
    }


def parts_of_step(ours: Ours) -> dict[str, float]:
    """Seconds of the parts, the device being waited for between them."""
    ours.clock = Stopwatch(DEVICE, enabled=True)
    for _ in range(3):
        with ours.clock("data"):
            pass
        with_optimizer(ours)
    found = ours.clock.take()
    ours.clock = Stopwatch(DEVICE, enabled=False)
    return found


def with_optimizer(ours: Ours) -> None:
    sums = backward(ours.setup, ours.state, ours.state.model.train(), ours.micro, ours.clock)
    with ours.clock("optimizer"):
        update(ours.setup, ours.state, ours.parameters, sums, stop_requested=False)


def environment(record: Record) -> None:
    """What the rest was measured on."""
    record("hardware", **hardware(DEVICE), cores=os.cpu_count())
    record("versions", **versions())


def step(record: Record) -> None:
    """ResNet-50, 800 x 800, 80 classes, bfloat16: each mode of `compile`, beside torchvision."""
    peak = matrix_teraflops(torch.bfloat16)
    record("bfloat16 product", teraflops=peak)
    ours = Ours("precision=bfloat16", "compile=off")
    with FlopCounterMode(display=False) as counter:
        ours.train_step()
    flops = float(counter.get_total_flops())
    record("work", gigaflops_per_image=flops / BATCH / 1e9, batch=BATCH, side=SIDE)
    theirs = Theirs(ours.workload, ours)  # type: ignore[arg-type]  it takes setup and micro of it
    own, other = [], []
    for _ in range(3):  # taking turns
        own += seconds(ours.train_step, 4)
        other += seconds(theirs.train_step, 4)
    a, b = statistics.median(own), statistics.median(other)
    record("beside torchvision", ours=BATCH / a, theirs=BATCH / b, times=b / a)
    peak_theirs = peak_gigabytes(theirs.train_step)
    record("torchvision", images_per_second=BATCH / b, peak_gigabytes=peak_theirs)
    del theirs
    expected: list[float] = []
    for mode in MODES:
        if mode != "off":
            del ours
            torch._dynamo.reset()
        # From random weights a usual rate makes losses jump, which shows rounding and nothing else.
        ours = Ours("precision=bfloat16", f"compile={mode}", "optim.lr=1e-5")
        before, began = compilations(), time.perf_counter()
        losses = [sum(ours.train_step().terms.values()) for _ in range(20 if IS_GPU else 3)]
        first = time.perf_counter() - began
        warm = compilations()
        expected = expected or losses
        apart = max(abs(x - y) / abs(y) for x, y in zip(losses, expected, strict=True))
        facts = facts_of_step(ours, peak, flops)
        facts |= profiled(ours.train_step, record.folder, f"compile={mode}")
        after = (compilations() - warm).facts()
        record(
            f"compile={mode}",
            **facts,
            times_torchvision=b / facts["seconds"],
            loss_apart=apart,
            first_steps_seconds=first,
            compiled=(warm - before).facts(),
            after_warm_up=after,
            **parts_of_step(ours),
        )


def precision(record: Record) -> None:
    """float32, TF32 and bfloat16 at half the batch."""
    half = f"batch_size={max(1, BATCH // 2)}"
    for name, value, tf32 in (
        ("float32", "float32", False),
        ("TF32", "float32", True),
        ("bfloat16", "bfloat16", False),
    ):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.allow_tf32 = tf32
        ours = Ours(f"precision={value}", half)
        median = statistics.median(seconds(ours.train_step, 5))
        peak = peak_gigabytes(ours.train_step)
        record(name, images_per_second=max(1, BATCH // 2) / median, peak_gigabytes=peak)


def memory(record: Record) -> None:
    """Activation checkpointing, where this version has it, and its price."""
    key = "activation_checkpointing"
    names = {field.name for field in dataclasses.fields(type(from_plain(plain_of())))}
    if key not in names:
        record("skipped", reason=f"there is no key {key}")
        return
    for value in ("off", "backbone", "all"):
        ours = Ours("precision=bfloat16", f"{key}={value}")
        median = statistics.median(seconds(ours.train_step, 5))
        peak = peak_gigabytes(ours.train_step)
        record(f"{key}={value}", images_per_second=BATCH / median, peak_gigabytes=peak)


def loader(record: Record) -> None:
    """Training with the loader running: JPEG files of 640 x 640, resized to 800 x 800, flipped."""
    data = jpegs(Path(tempfile.gettempdir()) / "gpu_check_jpegs", 256 if IS_GPU else 4)
    words = [
        "data=coco", f"data.root={data}", "data.train_annotations=train.json",
        "data.train_images=images", "data.val_annotations=train.json", "data.val_images=images",
        f"augment.min_size={SIDE}", f"augment.max_size={SIDE}", "precision=bfloat16",
    ]  # fmt: skip
    for mode in ("off", "step"):
        plain = plain_of(*words, f"compile={mode}")
        setup, state = build(from_plain(plain), plain, World(0, 1, DEVICE))
        state.step = 1
        model = state.model.train()
        parameters = [p for p in model.parameters() if p.requires_grad]
        clock = Stopwatch(DEVICE, enabled=False)
        workers = (os.cpu_count() or 1) - 1 if IS_GPU else 1
        stream = batches(setup, workers)
        if mode == "off":
            alone = [next(stream) for _ in range(3)]
            began, count = time.perf_counter(), 20 if IS_GPU else 2
            for _ in range(count):
                next(stream)
            rate = count * BATCH / (time.perf_counter() - began)
            record("loader alone", images_per_second=rate, workers=workers, shape=str(shape(alone)))
        for _ in range(6 if IS_GPU else 1):
            train_on(setup, state, model, parameters, clock, next(stream))
        synchronize()
        began, count = time.perf_counter(), 30 if IS_GPU else 2
        for _ in range(count):
            train_on(setup, state, model, parameters, clock, next(stream))
        synchronize()
        rate = count * BATCH / (time.perf_counter() - began)
        record(f"training with it, compile={mode}", images_per_second=rate)
        del stream


def shape(seen: list[tuple[Batch, Targets]]) -> list[int]:
    return list(seen[0][0].images.shape)


def batches(setup: Any, workers: int) -> Iterator[tuple[Batch, Targets]]:
    return iter(
        train_batches(
            setup.train_set,
            setup.augment,
            seed=0,
            batch_size=BATCH,
            micro_batch=BATCH,
            rank=0,
            world_size=1,
            start_step=0,
            stop_step=1000,
            sampler=setup.sampler,
            num_workers=workers,
            timeout=60.0,
            pin_memory=IS_GPU,
        )
    )


def train_on(
    setup: Any, state: Any, model: Any, parameters: Any, clock: Stopwatch, given: Any
) -> None:
    batch, targets = (to_device(part, DEVICE) for part in given)
    sums = backward(setup, state, model, [(batch, targets)], clock)
    update(setup, state, parameters, sums, stop_requested=False)


def jpegs(folder: Path, count: int) -> Path:
    """Images with structure, since noise takes a decoder longer than a photograph does."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    rows: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": []}
    rows["categories"] = [{"id": k + 1, "name": f"class {k}"} for k in range(80)]
    for i in range(count):
        coarse = generator.integers(0, 256, (40, 40, 3), np.uint8)
        image = Image.fromarray(coarse).resize((640, 640), Image.Resampling.BICUBIC)
        image.save(folder / "images" / f"{i}.jpg", quality=90)
        rows["images"].append({"id": i + 1, "file_name": f"{i}.jpg", "height": 640, "width": 640})
        for _ in range(8):
            x, y, w, h = (float(v) for v in generator.uniform(20, 300, 4))
            row = {"id": len(rows["annotations"]) + 1, "image_id": i + 1, "bbox": [x, y, w, h]}
            category = int(generator.integers(80)) + 1
            rows["annotations"].append(row | {"category_id": category, "area": w * h, "iscrowd": 0})
    (folder / "train.json").write_text(json.dumps(rows))
    return folder


def inference(record: Record) -> None:
    """One image at a time, and many: beside torchvision."""
    ours = Ours("precision=bfloat16")
    theirs = Theirs(ours.workload, ours)  # type: ignore[arg-type]
    predictor, batch = ours.predictor(), ours.micro[0][0]
    for count in (1, BATCH):
        part = dataclasses.replace(
            batch,
            images=batch.images[:count],
            sizes=batch.sizes[:count],
            scales=batch.scales[:count],
            image_ids=batch.image_ids[:count],
        )
        images, theirs.images = theirs.images, theirs.images[:count]
        own, other = [], []
        for _ in range(3):
            own += seconds(lambda part=part: predictor.detect(part), 5)
            other += seconds(theirs.infer, 5)
        theirs.images = images
        a, b = statistics.median(own), statistics.median(other)
        facts = {
            "milliseconds": a * 1e3,
            "images_per_second": count / a,
            "times_torchvision": b / a,
        }
        record(f"{count} at a time", **facts)


def resume(record: Record) -> None:
    """A run that is stopped and resumed on the GPU is the unbroken run, to the bit."""
    words = ["experiment=smoke", "steps=8", "save_every=4", "evaluation.every=null"]
    words += ["tensorboard=false", "schedule.warmup_share=0"]
    whole, broken = (
        Path(tempfile.gettempdir()) / f"gpu_check_{name}" for name in ("whole", "broken")
    )
    trained(*words, f"output_dir={whole}", "overwrite=true")
    middle = next((whole / "checkpoints").glob("step_*4.pt"))
    trained(*words, f"output_dir={broken}", "overwrite=true", f"resume={middle}")
    ends = [
        torch.load(folder / "checkpoints" / "last.pt", weights_only=True)
        for folder in (whole, broken)
    ]
    for part in ("model", "ema"):
        ours, theirs = (end[part] for end in ends)
        same = all(torch.equal(ours[key], theirs[key]) for key in ours)
        record(part, is_equal_to_the_bit=same, tensors=len(ours))


def trained(*words: str) -> None:
    """One run of `tools/train.py`, in this process."""
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        node = compose("train", [*words])
    plain: Any = OmegaConf.to_container(node, resolve=True)
    run(from_plain(plain), plain)


PARTS = {
    part.__name__: part
    for part in (environment, step, precision, memory, loader, inference, resume)
}

if __name__ == "__main__":
    name, target = sys.argv[1:]
    PARTS[name](Record(Path(target), name))
