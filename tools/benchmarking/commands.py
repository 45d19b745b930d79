"""What `tools/benchmark.py`, `tools/benchmark_page.py` and `tools/latency.py` do."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from omegaconf import DictConfig

from benchmarking.options import BenchmarkConfig, BenchmarkPageConfig, LatencyConfig
from detector.cli.options import checked, start
from detector.config import check_parts, schema
from detector.config.compose import plain_values
from detector.config.schema import require


def benchmark(node: DictConfig) -> None:
    """Both take turns in this process; prints a table and writes JSON where a file is given."""
    train = plain_values(node)
    options = schema.build(BenchmarkConfig, {**train.pop("benchmark"), "train": train})
    require(options.train.prior != "from_data", "prior: from_data given, a number is needed here")
    start(options.train.plugins)
    check_parts(options.train)

    from benchmarking.report import table, write
    from benchmarking.timing import Turns, compare
    from benchmarking.workload import Workload
    from detector.runtime import distributed

    workload = Workload(
        train=options.train,
        height=options.height,
        width=options.width,
        classes=options.classes,
        objects=options.objects,
        tf32=options.tf32,
    )
    turns = Turns(warmup=options.warmup, rounds=options.rounds, steps=options.steps)
    result = compare(workload, turns, train, distributed.start(options.train.device))
    result = {"command": shlex.join(["python", *sys.argv]), **result}
    print(table(result))
    if options.output is not None:
        write(result, options.output)
        print(f"written: {options.output}")


def benchmark_page(node: DictConfig) -> None:
    """Writes Markdown beside the folder, under its name."""
    from benchmarking.report import page

    folder = Path(checked(BenchmarkPageConfig, node).folder)
    target = folder.with_suffix(".md")
    target.write_text(page(folder))
    print(f"written: {target}")


def latency(node: DictConfig) -> None:
    """All take turns in this process; prints a table."""
    options = checked(LatencyConfig, node)
    start()

    from benchmarking.latency import contenders, measure, table

    models = contenders(options.checkpoint, options.graphs, options.bfloat16)
    size = (options.height, options.width)
    print(table(measure(models, size, options.warmup, options.rounds), size))
