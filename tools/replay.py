"""Repeats a step that was not finite: `python tools/replay.py folder=RUN`. See --help."""

from __future__ import annotations

from cli import main
from omegaconf import DictConfig


def replay(node: DictConfig) -> None:
    """Says which image, which term and which tensor is at fault."""
    from detector import schema
    from detector.config import plain_values
    from detector.startup import check_versions
    from detector.tool_config import ReplayConfig

    config = schema.build(ReplayConfig, plain_values(node))
    check_versions()  # a checkpoint may be anyone's: reading it is safe from torch 2.10 on

    from detector.engine import replay  # torch takes seconds

    print(replay.in_words(replay.replay(config.folder, config.device)))


if __name__ == "__main__":
    main("replay", replay)
