"""What the benchmark is told."""

from __future__ import annotations

from dataclasses import dataclass

from detector.config import Config
from detector.config.schema import require_at_least


@dataclass(frozen=True)
class BenchmarkConfig:
    """One call of `tools/benchmark.py`. See `configs/benchmark.yaml` for what each key means.

    train: all the other keys.
    """

    train: Config
    height: int
    width: int
    classes: int
    objects: int
    warmup: int
    rounds: int
    steps: int
    tf32: bool
    output: str | None

    def __post_init__(self) -> None:
        require_at_least(32, self, "height", "width")
        require_at_least(1, self, "classes", "objects", "rounds", "steps")
        require_at_least(0, self, "warmup")


@dataclass(frozen=True)
class BenchmarkPageConfig:
    """One call of `tools/benchmark_page.py`. folder: what holds the results."""

    folder: str = "docs/benchmarks"


@dataclass(frozen=True)
class LatencyConfig:
    """One call of `tools/latency.py`. See `configs/latency.yaml` for what each key means."""

    checkpoint: str
    graphs: tuple[str, ...]
    height: int = 480
    width: int = 640
    bfloat16: bool = True
    warmup: int = 3
    rounds: int = 15

    def __post_init__(self) -> None:
        require_at_least(1, self, "height", "width", "rounds")
        require_at_least(0, self, "warmup")
