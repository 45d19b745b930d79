"""Trains a detector and evaluates it: `detector train loss=focal`. See --help."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from detector.cli import hydra_app
from detector.cli.options import start
from detector.config import Config, check_parts
from detector.config.compose import from_omegaconf

if TYPE_CHECKING:
    from detector.training.run import Run


def run(node: DictConfig) -> None:
    """Checks the whole config before anything is built, then trains."""
    config, plain = check(node)

    from detector.training.run import run  # after the cheap checks: torch takes seconds

    run(config, plain)


def check(node: DictConfig) -> tuple[Config, dict[str, Any]]:
    """The config of a run and the same as plain values. Raises ConfigError."""
    config, plain = from_omegaconf(node)
    start(config.plugins)
    check_parts(config)
    return config, plain


def train(*overrides: str) -> Run:
    """Trains and evaluates, as `detector train` does with the same overrides.

    overrides: such as "loss=ssd", "data=coco", "data.root=DIR". The outcome has the `metrics` of
    the last evaluation, the `folder` of the run, and its model: `train("loss=ssd").load()`.

    Raises ConfigError for what is wrong with an override, DataError for what is wrong with the
    data, DivergedError, OutOfMemory, ... for what stops a run; all of them are UserErrors, whose
    message is one line.
    """
    config, plain = check(hydra_app.composed("train", overrides))

    from detector.training.run import run

    return run(config, plain)


def main() -> None:
    hydra_app.say_loading()
    hydra_app.main("train", run)
