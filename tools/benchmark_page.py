"""Makes a page of benchmark results: `python tools/benchmark_page.py folder=docs/benchmarks`."""

import checkout  # noqa: F401  what runs is this checkout, installed or not
from benchmarking.commands import benchmark_page

from detector.cli import hydra_app

if __name__ == "__main__":
    hydra_app.main("benchmark_page", benchmark_page)
