"""Exported graphs beside their checkpoint: the same image, one call each, taking turns.

Turns, because a machine's speed drifts by more than engines differ; medians, and the fastest call
beside them, because something else may run on the machine.
"""

from __future__ import annotations

import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detector.evaluation.text import aligned
from detector.inference.calling import ImageModel
from detector.inference.load import load
from detector.runtime.precision import processor_name

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
"""Of the processor, on which the numbers depend."""


def flags() -> str:
    """Those of FLAGS that this processor has."""
    path = Path("/proc/cpuinfo")
    words = set(path.read_text().split()) if path.is_file() else set()
    return " ".join(flag for flag in FLAGS if flag in words) or "unknown"


def memory() -> float:
    """Megabytes that this process holds; NaN where the system does not say."""
    path = Path("/proc/self/statm")
    if not path.is_file():
        return float("nan")
    gc.collect()
    return int(path.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def contenders(checkpoint: str, graphs: Sequence[str], bfloat16: bool) -> dict[str, Any]:
    """What is timed by its name: the model, and the megabytes that opening it took."""
    opened: list[tuple[str, Callable[[], ImageModel]]] = [
        ("torch, eager, float32", lambda: load(checkpoint, device="cpu", precision="float32"))
    ]
    for graph in graphs:
        opened.append((Path(graph).name, lambda graph=graph: load(graph)))
        if bfloat16 and graph.endswith(".xml"):
            name = f"{Path(graph).name}, bfloat16"
            opened.append((name, lambda graph=graph: load(graph, precision="bfloat16")))
    found = {}
    for name, open_ in opened:
        before = memory()
        found[name] = (open_(), before)
        found[name] = (found[name][0], memory() - before)
    return found


def measure(models: dict[str, Any], size: tuple[int, int], warmup: int, rounds: int) -> list[Any]:
    """Rows of name, median and least milliseconds, ratio of the first's median, megabytes."""
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    times: dict[str, list[float]] = {name: [] for name in models}
    for i in range(warmup + rounds):
        for name, (model, _) in models.items():
            began = time.perf_counter()
            model(image, threshold=0.3)
            if i >= warmup:
                times[name].append((time.perf_counter() - began) * 1000)
    first = statistics.median(next(iter(times.values())))
    return [
        (name, statistics.median(own), min(own), first / statistics.median(own), models[name][1])
        for name, own in times.items()
    ]


def table(rows: list[Any], size: tuple[int, int]) -> str:
    """For a terminal, and for docs/deploy.md."""
    text = [("", "median ms", "least ms", "speed", "opened, MB")]
    text += [
        (name, f"{median:.1f}", f"{least:.1f}", f"{ratio:.2f}", f"{megabytes:.0f}")
        for name, median, least, ratio, megabytes in rows
    ]
    where = f"{processor_name()}, {flags()}; {torch.get_num_threads()} thread(s)"
    load_average = os.getloadavg()[0] / (os.cpu_count() or 1)
    return "\n".join(
        [
            *aligned(text),
            f"an image of {size[0]} x {size[1]} px, from pixels to detections; {where}",
            f"torch {torch.__version__}, Python {platform.python_version()}; "
            f"load {load_average:.1f} per core by all that runs here",
        ]
    )
