"""Makes a page of benchmark results: `python tools/benchmark_page.py folder=docs/benchmarks`."""

from __future__ import annotations

from pathlib import Path

from cli import main
from omegaconf import DictConfig


def benchmark_page(node: DictConfig) -> None:
    """Writes Markdown beside the folder, under its name."""
    from detector import schema
    from detector.config import plain_values
    from detector.engine.benchmark_report import page
    from detector.tool_config import BenchmarkPageConfig

    folder = Path(schema.build(BenchmarkPageConfig, plain_values(node)).folder)
    target = folder.with_suffix(".md")
    target.write_text(page(folder))
    print(f"written: {target}")


if __name__ == "__main__":
    main("benchmark_page", benchmark_page)
