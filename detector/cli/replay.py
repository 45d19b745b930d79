"""Repeats a step that was not finite: `detector replay folder=RUN`. See --help."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import DictConfig

from detector.cli import hydra_app
from detector.cli.options import checked, start


@dataclass(frozen=True)
class ReplayConfig:
    """One call of `tools/replay.py`. See `configs/replay.yaml` for what each key means."""

    folder: str
    device: str = "auto"


def run(node: DictConfig) -> None:
    """Says which image, which term and which tensor is at fault."""
    options = checked(ReplayConfig, node)
    start()

    from detector.training import replay  # torch takes seconds

    print(replay.in_words(replay.replay(options.folder, options.device)))


def main() -> None:
    hydra_app.main("replay", run)
