"""Times a step and inference beside torchvision's RetinaNet: `python tools/benchmark.py`."""

import checkout  # noqa: F401  what runs is this checkout, installed or not
from benchmarking.commands import benchmark

from detector.cli import hydra_app

if __name__ == "__main__":
    hydra_app.main("benchmark", benchmark)
