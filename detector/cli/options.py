"""From a composed config to the checked options of a command."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from omegaconf import DictConfig

from detector.config import schema
from detector.config.compose import plain_values
from detector.config.registry import import_plugins
from detector.config.train import check_parts
from detector.runtime.startup import check_versions

T = TypeVar("T")

PROGRAM = ("-m", "detector.cli", "train")
"""What Python is called with to train: in a checkout, in an installed wheel, under torchrun."""


def checked(cls: type[T], node: DictConfig) -> T:
    """The options of a command. Raises ConfigError for keys and values that are not allowed."""
    return schema.build(cls, plain_values(node))


def start(plugins: Iterable[str] = ()) -> None:
    """To be called before the parts are used, which import torch.

    Raises ConfigError where the installed libraries do not fit, and for a plugin that is not there.
    """
    check_versions()  # reading somebody's checkpoint is safe from torch 2.10 on
    import_plugins(plugins)


def checked_run(cls: type[T], node: DictConfig, own: Iterable[str]) -> tuple[T, dict[str, Any]]:
    """The options of a command that takes all keys of a run, as its field `train`, beside its own;
    and the plain values of the run.

    Raises ConfigError also for a part of the run, or an option of it, that is not known.
    """
    plain = plain_values(node)
    values = {key: plain.pop(key) for key in own}
    options: Any = schema.build(cls, {**values, "train": plain})
    start(options.train.plugins)
    check_parts(options.train)
    return options, plain
