"""Trains a detector and evaluates it: `python tools/train.py loss=focal`. See --help."""

from __future__ import annotations

from cli import main
from omegaconf import DictConfig


def train(node: DictConfig) -> None:
    """Checks the whole config before anything is built, then trains."""
    from detector import config
    from detector.registry import import_plugins
    from detector.startup import check_versions

    checked, plain = config.from_omegaconf(node)
    check_versions()  # before the parts, which import both libraries
    import_plugins(checked.plugins)
    config.check_parts(checked)

    from detector.engine.run import run  # after the cheap checks: torch takes seconds

    run(checked, plain)


if __name__ == "__main__":
    main("train", train)
