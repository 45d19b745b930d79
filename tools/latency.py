"""Times exported graphs beside their checkpoint: `python tools/latency.py checkpoint=FILE ...`."""

import checkout  # noqa: F401  what runs is this checkout, installed or not
from benchmarking.commands import latency

from detector.cli import hydra_app

if __name__ == "__main__":
    hydra_app.main("latency", latency)
