"""Draws what the model sees after augmentation: `detector show_batch`. See --help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from omegaconf import DictConfig

from detector.cli import hydra_app
from detector.cli.options import checked_run
from detector.config import Config
from detector.config.ranges import AtLeast, require_ranges


@dataclass(frozen=True)
class ShowBatchConfig:
    """One call of `tools/show_batch.py`. See `configs/show_batch.yaml` for what each key means.

    train: all the other keys.
    """

    train: Config
    batches: Annotated[int, AtLeast(1)] = 1
    matches: bool = False

    def __post_init__(self) -> None:
        require_ranges(self)


def run(node: DictConfig) -> None:
    """Writes the first batches of a training as PNG."""
    options, _ = checked_run(ShowBatchConfig, node, own=("batches", "matches"))

    from detector.training.show_batch import show_batches  # torch takes seconds

    show_batches(options.train, batches=options.batches, with_matches=options.matches)


def main() -> None:
    hydra_app.main("show_batch", run)
